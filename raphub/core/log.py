"""Which writes does a copy hold, and in which order?

A write's place is its `Position`: the epoch in which it was made and its `seq`, which counts the
child's writes through all epochs. Two copies that hold an entry of the same position hold the same
entries up to there, because one epoch has one active. A log keeps the newest entries, so that
another copy can be brought up to date with them; what is older is in the state itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """The place of a write in the history of its child."""

    epoch: int
    seq: int


START = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Write:
    """One write: who asked for it, what it was answered, and what it changed.

    `answer` and `change` are opaque here. `client` is "" where nobody asked. `settled_below` is
    the number below which the client has all its answers. `answer_bytes` and `size` (of answer and
    change together) are bytes.
    """

    position: Position
    client: str
    number: int
    settled_below: int
    answer: Any
    change: Any
    answer_bytes: int = 0
    size: int = 0


@dataclass(slots=True)
class Log:
    """The newest entries, without gaps. `floor` is the position before the first of them."""

    floor: Position = START
    entries: list[Write] = field(default_factory=list)
    size: int = 0

    @property
    def tail(self) -> Position:
        """The position of the last write that the copy holds."""
        return self.entries[-1].position if self.entries else self.floor

    def append(self, entry: Write) -> None:
        """Add the next write."""
        seq, tail = entry.position.seq, self.tail
        assert seq == tail.seq + 1, f"write {entry.position} cannot follow {tail}"
        assert entry.position.epoch >= tail.epoch, f"write {entry.position} is older than {tail}"
        self.entries.append(entry)
        self.size += entry.size

    def position_of(self, seq: int) -> Position | None:
        """The position of the write of this number, if the log still knows it."""
        if seq == self.floor.seq:
            return self.floor
        index = seq - self.floor.seq - 1
        return self.entries[index].position if 0 <= index < len(self.entries) else None

    def holds(self, position: Position) -> bool:
        """Is this a place in the history that the log knows?"""
        if position == self.floor:
            return True
        index = position.seq - self.floor.seq - 1
        return 0 <= index < len(self.entries) and self.entries[index].position == position

    def after(self, seq: int, bytes_max: int | None = None) -> tuple[Write, ...]:
        """The writes that follow `seq`, at most about so many bytes of them but at least one."""
        first = max(0, seq - self.floor.seq)
        if bytes_max is None:
            return tuple(self.entries[first:])
        taken: list[Write] = []
        size = 0
        for entry in self.entries[first:]:
            if taken and size + entry.size > bytes_max:
                break
            taken.append(entry)
            size += entry.size
        return tuple(taken)

    def cut_after(self, seq: int) -> None:
        """Drop the writes that follow `seq`."""
        kept = max(0, seq - self.floor.seq)
        self.size -= sum(entry.size for entry in self.entries[kept:])
        del self.entries[kept:]

    def trim(self, upto_seq: int, *, entries_max: int, bytes_max: int) -> None:
        """Forget the oldest entries, none above `upto_seq`, as long as there are too many.

        They go in bulk, because what is left has to be moved.
        """
        surplus = len(self.entries) - entries_max
        if surplus < max(1, entries_max // 2) and self.size <= bytes_max:
            return
        count = size = 0
        for entry in self.entries:
            is_needed = entry.position.seq > upto_seq
            if is_needed or (count >= surplus and self.size - size <= bytes_max):
                break
            count += 1
            size += entry.size
        if count:
            self.floor = self.entries[count - 1].position
            del self.entries[:count]
            self.size -= size

    def reset(self, floor: Position) -> None:
        """Begin anew behind this position."""
        self.floor = floor
        self.entries.clear()
        self.size = 0
