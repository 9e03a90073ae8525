"""What do two copies of a child say to each other?

The active dials each of its passives and ships them every write. Every message carries the epoch
of the active that began the conversation; a copy that knows of a higher one answers `EpochOver`.
Acknowledgements are positions, so late and repeated ones are harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raphub.core.dedup import TableKept
from raphub.core.log import Position, Write

# --- From the active to a passive -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Follow:
    """I am the active of `epoch`, which began at `base`: tell me what you hold.

    `suspects` are the calls, by client and number, in which copies have died, and how many.
    """

    epoch: int
    base: Position
    suspects: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Ship:
    """The writes that follow `previous`; all in-sync copies hold those up to `committed`."""

    epoch: int
    previous: Position
    entries: tuple[Write, ...]
    committed: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state at `position`, with the table of answers (on the wire, as bytes).

    All in-sync copies hold the writes up to `committed`, which may be fewer than it has.
    """

    epoch: int
    position: Position
    image: Any
    answers: TableKept | Any
    committed: int


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a pulse: the active's last write, and up to where all in sync hold them.

    `pulsed_at` is the passive's own clock when it asked, and comes back.
    """

    epoch: int
    tail: int
    committed: int
    pulsed_at: float


@dataclass(frozen=True, slots=True)
class Began:
    """The active enters this call now; `deaths` copies have died in it before.

    `order` counts the calls that it has entered in its epoch, for one may come late.
    """

    epoch: int
    client: str
    number: int
    deaths: int
    order: int = 0


FromActive = Follow | Ship | Snapshot | Beat | Began

# --- From a passive to the active -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """What the passive holds: writes up to `tail`, of which those up to `applied` are for good.

    Without `has_state`, it holds nothing that counts.
    """

    epoch: int
    tail: Position
    applied: Position
    has_state: bool


@dataclass(frozen=True, slots=True)
class Acked:
    """The passive holds everything up to here, and has the state that it builds upon."""

    epoch: int
    tail: Position


@dataclass(frozen=True, slots=True)
class Pulse:
    """The passive asks how far the active is."""

    epoch: int
    pulsed_at: float


@dataclass(frozen=True, slots=True)
class EpochOver:
    """The passive knows of this epoch, which is higher than the active's."""

    epoch: int


FromPassive = Standing | Acked | Pulse | EpochOver
