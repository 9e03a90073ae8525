"""Is there any order at all that explains a history? Tries them all; for histories of a few.

Generic: the object is a function. (Wing and Gong: Testing and Verifying Concurrent Objects, JPDC
17, 1993; with Lowe's memory of what was tried in vain, 2017.)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Step(Generic[S]):
    """One operation. `apply` gives the state after it, or None if its answer is impossible.

    One that has no end need not take effect at all.
    """

    began_at: float
    ended_at: float | None
    apply: Callable[[S], S | None]


def is_linearizable(steps: Sequence[Step[S]], start: S) -> bool:
    """Can the steps be put in an order that keeps real time and explains every answer?"""
    in_vain: set[tuple[frozenset[int], S]] = set()
    must = frozenset(n for n, step in enumerate(steps) if step.ended_at is not None)

    def can_end(left: frozenset[int], state: S) -> bool:
        if not left & must:
            return True
        if (left, state) in in_vain:
            return False
        first_end = min(end for n in left if (end := steps[n].ended_at) is not None)
        for number in left:
            if steps[number].began_at <= first_end:
                after = steps[number].apply(state)
                if after is not None and can_end(left - {number}, after):
                    return True
        in_vain.add((left, state))
        return False

    return can_end(frozenset(range(len(steps))), start)
