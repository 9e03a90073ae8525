"""In which order does one process call one child, and which of its calls are settled?

The calls of a process to a child form a lane. Each has a number; a write is sent with the number of
the last unsettled write before it, so that a copy can refuse to run it first. When the active
changes, everything that is not settled is sent again, in order, before anything new.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raphub.core.calls import Attempt


@dataclass(slots=True)
class Waiting:
    """A call that is not settled. Without `attempt`, it is to be sent; `tries` counts the others."""

    number: int
    is_read: bool
    attempt: Attempt | None = None
    tries: int = 0


@dataclass(slots=True)
class Lane:
    """The unsettled calls, by number, in order."""

    last_number: int = 0
    waiting: dict[int, Waiting] = field(default_factory=dict)

    @property
    def settled_below(self) -> int:
        """All calls below this number have their answers."""
        return next(iter(self.waiting), self.last_number + 1)

    def open(self, *, is_read: bool) -> int:
        """Take a number for a new call, which stands behind all others."""
        self.last_number += 1
        self.waiting[self.last_number] = Waiting(self.last_number, is_read)
        return self.last_number

    def settle(self, number: int) -> None:
        """The call has its answer, or will never be sent again."""
        self.waiting.pop(number, None)

    def write_before(self, number: int) -> int:
        """The last unsettled write before this call, 0 if there is none."""
        for waiting in reversed(self.waiting.values()):
            if waiting.number < number and not waiting.is_read:
                return waiting.number
        return 0

    def sent(self, number: int, attempt: Attempt) -> None:
        """The call was sent."""
        waiting = self.waiting[number]
        waiting.attempt = attempt
        waiting.tries += 1

    def hold(self, number: int) -> None:
        """The attempt has failed: send the call again when its turn comes."""
        if number in self.waiting:
            self.waiting[number].attempt = None

    def outdated(self, epoch: int) -> list[int]:
        """The calls whose attempts went to the active of an earlier epoch, in order."""
        return [
            waiting.number
            for waiting in self.waiting.values()
            if waiting.attempt is not None and waiting.attempt.epoch < epoch
        ]

    def due(self) -> list[int]:
        """The calls to be sent, in order."""
        return [waiting.number for waiting in self.waiting.values() if waiting.attempt is None]
