"""Has this call been answered before?

The table of answers is part of the replicated state: each write brings its answer along, so every
copy that holds the write can give the answer again. A client says with each call below which number
it has all its answers; those are dropped, and a call below never runs again. The method is that of
Lee et al., RIFL (SOSP 2015), with the table carried by the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from raphub.core.log import Write


class Verdict(StrEnum):
    """What the table knows of a call."""

    NEW = "new"
    ANSWERED = "answered"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer to one call, and the write that it came with. `is_kept` is False if too large."""

    answer: Any
    seq: int
    size: int
    is_kept: bool = True


@dataclass(slots=True)
class ClientAnswers:
    """One client. Numbers below `forgotten_below` were answered, or never will be."""

    forgotten_below: int = 1
    kept: dict[int, Kept] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True, slots=True)
class AnswerBounds:
    """How much is kept for retries; all copies of a child go by the same bounds."""

    clients_max: int = 10_000
    per_client_max: int = 10_000
    answer_bytes_max: int = 1024 * 1024
    client_bytes_max: int = 16 * 1024 * 1024
    bytes_max: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ClientKept:
    """In a snapshot: one client, its kept answers by number."""

    client: str
    forgotten_below: int
    kept: tuple[tuple[int, Kept], ...]


@dataclass(frozen=True, slots=True)
class TableKept:
    """In a snapshot: the table as it stood, least lately used clients first."""

    clients: tuple[ClientKept, ...]
    has_evicted: bool


@dataclass(slots=True)
class AnswerTable:
    """The answers of all clients, those used least lately first.

    Everything here follows from the sequence of entries alone, so that all copies agree.
    """

    bounds: AnswerBounds
    clients: dict[str, ClientAnswers] = field(default_factory=dict)
    has_evicted: bool = False
    size: int = 0

    def look_up(self, client: str, number: int, *, is_retry: bool) -> tuple[Verdict, Kept | None]:
        """What is known of a call; with the answer, if it was ANSWERED.

        FORGOTTEN: it may have run, and its answer is not there any more. That a client which was
        evicted comes back with a new call is no retry.
        """
        known = self.clients.get(client)
        if known is None:
            return (Verdict.FORGOTTEN if is_retry and self.has_evicted else Verdict.NEW), None
        kept = known.kept.get(number)
        if kept is not None:
            return (Verdict.ANSWERED, kept) if kept.is_kept else (Verdict.FORGOTTEN, None)
        return (Verdict.FORGOTTEN if number < known.forgotten_below else Verdict.NEW), None

    def add(self, entry: Write) -> None:
        """Keep the entry's answer, and drop what its client has settled or is above the bounds."""
        if not entry.client:
            return
        known = self.clients.pop(entry.client, None) or ClientAnswers()
        self.clients[entry.client] = known
        if entry.number in known.kept:
            self._drop(known, entry.number)
        fits = entry.answer_bytes <= self.bounds.answer_bytes_max
        size = entry.answer_bytes if fits else 0
        known.kept[entry.number] = Kept(
            entry.answer if fits else None, entry.position.seq, size, is_kept=fits
        )
        known.size += size
        self.size += size
        if entry.settled_below > known.forgotten_below:
            known.forgotten_below = entry.settled_below
            while known.kept and (first := next(iter(known.kept))) < entry.settled_below:
                self._drop(known, first)
        while len(known.kept) > self.bounds.per_client_max or (
            known.size > self.bounds.client_bytes_max and len(known.kept) > 1
        ):
            oldest = min(known.kept)
            self._drop(known, oldest)
            known.forgotten_below = max(known.forgotten_below, oldest + 1)
        bounds = self.bounds
        while len(self.clients) > bounds.clients_max or (
            self.size > bounds.bytes_max and len(self.clients) > 1
        ):
            self.size -= self.clients.pop(next(iter(self.clients))).size
            self.has_evicted = True

    def _drop(self, known: ClientAnswers, number: int) -> None:
        size = known.kept.pop(number).size
        known.size -= size
        self.size -= size

    def kept(self) -> TableKept:
        """The table, for a snapshot."""
        clients = tuple(
            ClientKept(client, known.forgotten_below, tuple(known.kept.items()))
            for client, known in self.clients.items()
        )
        return TableKept(clients, self.has_evicted)

    def restore(self, table: TableKept) -> None:
        """Become the table of a snapshot."""
        self.has_evicted = table.has_evicted
        self.clients = {
            kept.client: ClientAnswers(
                kept.forgotten_below, dict(kept.kept), sum(one.size for _, one in kept.kept)
            )
            for kept in table.clients
        }
        self.size = sum(known.size for known in self.clients.values())
