"""How do several lives of a hub actor share one journal without undoing each other?

The journal is a row of entries under counted keys in a store that has only put-if-absent, get,
delete and list. No key is ever overwritten. This file is the protocol without the store: each
procedure is a generator that yields one store operation and is sent its result, so that the real
store and the simulator's drive the very same steps, and a crash or a pause can fall between any
two of them.

Who may write: the life whose term is the highest. A life claims a term with an entry like any
other. Because entries are put at the next index only if it is absent, a life that was superseded
finds its index taken and steps down. A snapshot at index i stands for all entries below i; the
highest is the floor. Entries go only after the snapshot is at rest, so an append that lands on a
deleted index is found out by reading the floor after the put.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from raphub.core.records import Fact, TermClaimed


@dataclass(frozen=True, slots=True)
class Entry:
    """One put: who wrote it, in which term, and the facts. `nonce` is unique to the put."""

    term: int
    nonce: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key: an `Entry`, None where it is absent, or `NO_ANSWER`."""

    key: str


@dataclass(frozen=True, slots=True)
class PutIfAbsent:
    """Write a key unless it exists: True if written, False if it existed, or `NO_ANSWER`."""

    key: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key; nothing waits for the outcome."""

    key: str


@dataclass(frozen=True, slots=True)
class Keys:
    """List the keys with a prefix: a list of text, or `NO_ANSWER`."""

    prefix: str


class NoAnswer:
    """The store did not answer: the operation may or may not have taken effect."""


NO_ANSWER = NoAnswer()

Operation = Get | PutIfAbsent | Delete | Keys
Steps = Generator[Operation, Any, Any]


class SupersededError(Exception):
    """A life with a higher term has taken over: this one must end, and touch nothing more."""


def log_key(index: int) -> str:
    """The key of entry `index`."""
    return f"log/{index:012d}"


def snapshot_key(index: int) -> str:
    """The key of the snapshot that stands for all entries below `index`."""
    return f"snap/{index:012d}"


def index_of(key: str) -> int:
    """The index that a key was made of."""
    return int(key.rpartition("/")[2])


@dataclass(slots=True)
class Journal:
    """One life's hold on the journal. `writer` is unique to the life.

    Use: run `recover`, then `claim`, then `append` and `check` for as long as they do not raise
    `SupersededError`. One procedure at a time.
    """

    writer: str
    attempts_max: int = 20
    term: int = 0
    next_index: int = 0
    entries_since_snapshot: int = 0
    _puts: int = field(default=0)

    def recover(self) -> Generator[Operation, Any, list[Fact]]:
        """Read all facts, in order; leaves `next_index` behind the last entry."""
        while True:
            facts: list[Fact] = []
            floor = yield from self._floor()
            if floor > 0:
                snapshot = yield from self._get(snapshot_key(floor))
                if snapshot is None:
                    continue
                self._read(snapshot, facts)
            index = floor
            while (entry := (yield from self._get(log_key(index)))) is not None:
                self._read(entry, facts)
                index += 1
            if (yield from self._floor()) <= index:
                self.next_index, self.entries_since_snapshot = index, index - floor
                return facts

    def claim(self) -> Generator[Operation, Any, list[Fact]]:
        """Take the next term; returns facts that others wrote meanwhile, in order."""
        missed: list[Fact] = []
        while True:
            term = self.term + 1
            entry = self._entry(term, (TermClaimed(term),))
            found = yield from self._put(entry)
            if found is None:
                self.term = term
                self._advance()
                return missed
            self._read(found, missed)
            self._advance()

    def append(self, facts: tuple[Fact, ...]) -> Generator[Operation, Any, None]:
        """Put facts at rest, or raise `SupersededError`; nothing in between."""
        found = yield from self._put(self._entry(self.term, facts))
        if found is not None:
            raise SupersededError(f"entry {self.next_index} belongs to term {found.term}")
        self._advance()

    def check(self) -> Generator[Operation, Any, None]:
        """Make sure that this life still holds the term, or raise `SupersededError`.

        It holds it if the next index is absent and, read after it, the floor is not above it.
        """
        found = yield from self._get(log_key(self.next_index))
        if found is not None:
            raise SupersededError(f"entry {self.next_index} belongs to term {found.term}")
        yield from self._refuse_below_floor()

    def compact(self, facts: tuple[Fact, ...]) -> Generator[Operation, Any, None]:
        """Let a snapshot stand for all entries so far, and drop them.

        Safe in a superseded life, too: what it knows below its next index is what everyone knows.
        """
        entry = self._entry(self.term, facts)
        index = self.next_index
        for _ in range(self.attempts_max):
            written = yield PutIfAbsent(snapshot_key(index), entry)
            if written is not NO_ANSWER:
                break
        else:
            return
        self.entries_since_snapshot = 0
        for prefix in ("log/", "snap/"):
            keys = yield Keys(prefix)
            for key in [] if keys is NO_ANSWER else keys:
                if index_of(key) < index:
                    yield Delete(key)

    def _entry(self, term: int, facts: tuple[Fact, ...]) -> Entry:
        self._puts += 1
        return Entry(term, f"{self.writer}/{self._puts}", facts)

    def _advance(self) -> None:
        self.next_index += 1
        self.entries_since_snapshot += 1

    def _read(self, entry: Entry, facts: list[Fact]) -> None:
        self.term = max(self.term, entry.term)
        facts.extend(entry.facts)

    def _put(self, entry: Entry) -> Generator[Operation, Any, Entry | None]:
        """Put at the next index: None if it is ours now, else the entry that stands there."""
        key = log_key(self.next_index)
        for _ in range(self.attempts_max):
            if (yield PutIfAbsent(key, entry)) is True:
                yield from self._disown_below_floor(key)
                return None
            found: Entry | NoAnswer | None = yield Get(key)
            if isinstance(found, Entry):
                if found.nonce != entry.nonce:
                    return found
                yield from self._disown_below_floor(key)
                return None
            if found is None:
                yield from self._refuse_below_floor()
        raise SupersededError("the store does not answer; another life may have taken over")

    def _disown_below_floor(self, key: str) -> Generator[Operation, Any, None]:
        """An entry put below the floor never counted: remove it and step down."""
        try:
            yield from self._refuse_below_floor()
        except SupersededError:
            yield Delete(key)
            raise

    def _refuse_below_floor(self) -> Generator[Operation, Any, None]:
        floor = yield from self._floor()
        if floor > self.next_index:
            raise SupersededError(f"the floor is {floor}, above entry {self.next_index}")

    def _floor(self) -> Generator[Operation, Any, int]:
        for _ in range(self.attempts_max):
            keys = yield Keys("snap/")
            if keys is not NO_ANSWER:
                return max((index_of(key) for key in keys), default=0)
        raise SupersededError("the store does not answer; another life may have taken over")

    def _get(self, key: str) -> Generator[Operation, Any, Entry | None]:
        for _ in range(self.attempts_max):
            found = yield Get(key)
            if found is not NO_ANSWER:
                return found  # type: ignore[no-any-return]
        raise SupersededError("the store does not answer; another life may have taken over")
