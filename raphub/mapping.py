"""How are many calls sent in few messages, and their results given in order?"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from raphub.actors import calling
from raphub.call import Call
from raphub.errors import InvalidSetting
from raphub.sent import revived

UNDER_WAY_MAX = 4
"""So many batches are under way at a time: the copy has the next one when it is done with one."""

BATCH_SIZE_MAX = 1000
BATCH_S = 0.005
"""A batch of this duration costs little beside what it does, and holds nothing else up for long."""


@dataclass(slots=True)
class BatchSize:
    """How many items go in a batch: fixed, or by how long batches take."""

    size: int = 1
    is_fixed: bool = False

    @classmethod
    def of(cls, asked: int | None) -> BatchSize:
        """As asked for; None finds it out. Raises `InvalidSetting`."""
        if asked is None:
            return cls()
        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
            raise InvalidSetting(
                f"batch_size should be a whole number from 1, not {asked!r}.", field="batch_size"
            )
        return cls(asked, is_fixed=True)

    def took(self, count: int, duration_s: float) -> None:
        """A batch of `count` items took so long; growing, it doubles at most."""
        if self.is_fixed:
            return
        fitting = int(count * BATCH_S / max(duration_s, 1e-6))
        self.size = min(max(1, fitting), 2 * self.size, BATCH_SIZE_MAX)


@dataclass(frozen=True, slots=True)
class _Batch:
    call: Call[Any]
    count: int
    sent_at: float


class _Items:
    """The items that are left. What the user's iterable raises is kept until its turn."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self._is_over = False
        self.error: BaseException | None = None

    def take(self, count: int) -> list[tuple[Any]]:
        taken: list[tuple[Any]] = []
        while len(taken) < count and not self._is_over:
            try:
                taken.append((next(self._items),))
            except StopIteration:
                self._is_over = True
            except Exception as error:  # noqa: BLE001 - the user's; it is raised in its turn
                self._is_over, self.error = True, error
        return taken


def mapped(
    make: Callable[[list[tuple[Any]]], Call[Any]],
    items: Iterable[Any],
    size: BatchSize,
    *,
    return_exceptions: bool,
) -> Iterator[Any]:
    """The results of one call for each item, in order; see `Method.map`."""
    left = _Items(items)
    under_way: deque[_Batch] = deque()
    last_at = 0.0
    while True:
        while len(under_way) < UNDER_WAY_MAX and (taken := left.take(size.size)):
            under_way.append(_Batch(make(taken), len(taken), time.monotonic()))
        if not under_way:
            break
        batch = under_way.popleft()
        had_come = batch.call.look()
        answer = batch.call.result()
        if not had_come:
            # One that came while the caller was away tells nothing of how long it took.
            now = time.monotonic()
            size.took(batch.count, now - max(last_at, batch.sent_at))
        assert isinstance(answer, calling.Mapped), f"a map was answered with {type(answer)}"
        for result in answer.results:
            if not isinstance(result, calling.Raised):
                yield result
                continue
            error = revived(result.error, result.story, copy=batch.call.child_id)
            if not return_exceptions:
                raise error
            yield error
        last_at = time.monotonic()
    if left.error is not None:
        raise left.error
