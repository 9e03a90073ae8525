"""In which order does one process call one child, and which of its calls are settled?

The calls of a process to a child form a lane. Each has a number; a write is sent with the number of
the last unsettled write before it, so that a copy can refuse to run it first. When the active
changes, everything that is not settled is sent again, in order, before anything new.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from raphub.core.calls import Attempt


@dataclass(slots=True)
class Waiting:
    """A call that is not settled. Without `attempt`, it is to be sent; `tries` counts the others.

    `may_have_run` says that some attempt ended without proof that it did not.
    """

    number: int
    is_read: bool
    attempt: Attempt | None = None
    tries: int = 0
    may_have_run: bool = False


@dataclass(slots=True)
class Lane:
    """The unsettled calls, by number, in order. What happens once a call costs the same always.

    `held` names all and only those without an attempt. `writes` ends with the last unsettled write
    but the newest call, `before_last`; settled ones among the others are dropped when they come to
    that end.
    """

    last_number: int = 0
    waiting: dict[int, Waiting] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    writes: deque[int] = field(default_factory=deque)
    before_last: int = 0
    first: int = 1

    @property
    def settled_below(self) -> int:
        """All calls below this number have their answers."""
        while self.first <= self.last_number and self.first not in self.waiting:
            self.first += 1
        return self.first

    def open(self, *, is_read: bool) -> int:
        """Take a number for a new call, which stands behind all others."""
        while self.writes and self.writes[-1] not in self.waiting:
            self.writes.pop()
        self.before_last = self.writes[-1] if self.writes else 0
        self.last_number += 1
        number = self.last_number
        self.waiting[number] = Waiting(number, is_read)
        self.held.add(number)
        if not is_read:
            self.writes.append(number)
            while self.writes[0] not in self.waiting:
                self.writes.popleft()
        return number

    def settle(self, number: int) -> None:
        """The call has its answer, or will never be sent again."""
        self.waiting.pop(number, None)
        self.held.discard(number)

    def write_before(self, number: int) -> int:
        """The last unsettled write before this call, 0 if there is none."""
        if number == self.last_number and (
            self.before_last in self.waiting or not self.before_last
        ):
            return self.before_last
        last = 0
        for waiting in self.waiting.values():
            if waiting.number >= number:
                break
            if not waiting.is_read:
                last = waiting.number
        return last

    def sent(self, number: int, attempt: Attempt) -> None:
        """The call was sent."""
        waiting = self.waiting[number]
        waiting.attempt = attempt
        waiting.tries += 1
        self.held.discard(number)

    def hold(self, number: int, *, did_not_run: bool = False) -> None:
        """The attempt has failed: send the call again when its turn comes."""
        waiting = self.waiting.get(number)
        if waiting is not None and waiting.attempt is not None:
            waiting.attempt = None
            waiting.may_have_run = waiting.may_have_run or not did_not_run
            self.held.add(number)

    def outdated(self, epoch: int) -> list[int]:
        """The calls whose attempts went to the active of an earlier epoch, in order."""
        return [
            waiting.number
            for waiting in self.waiting.values()
            if waiting.attempt is not None and waiting.attempt.epoch < epoch
        ]

    def due(self) -> list[int]:
        """The calls to be sent, in order."""
        return sorted(self.held)

    def due_after(self) -> list[tuple[int, int]]:
        """The calls to be sent, in order, each with the last unsettled write before it."""
        found: list[tuple[int, int]] = []
        if self.held:
            last = 0
            for waiting in self.waiting.values():
                if waiting.attempt is None:
                    found.append((waiting.number, last))
                if not waiting.is_read:
                    last = waiting.number
        return found
