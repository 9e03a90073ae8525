"""How much of the child's history does this copy hold, and how much of it is in its object?

Four marks, each at or before the next: what has arrived in the user's object (`applied`), what was
handed to it (`ordered`), what every in-sync copy holds (`committed`), and what this copy holds (the
log's tail). A passive applies committed writes only, so nothing applied ever has to be undone; the
active applies a write by executing it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raphub.core.dedup import AnswerBounds, AnswerTable
from raphub.core.log import START, Log, Position, Write
from raphub.core.model import ChildPlan, HubSettings


@dataclass(frozen=True, slots=True)
class StateBounds:
    """The bounds of replication. Times in seconds, sizes in bytes.

    A passive that has not acknowledged for `ack_timeout_s`, and the time that what was shipped
    takes at `ship_bytes_per_s_min`, is asked out of the in-sync set. A passive acknowledges nothing
    more while `unapplied_max` writes wait for its object. `window_bytes_max` is how much may be
    under way to one passive, in messages of about `batch_bytes_max`.
    """

    ack_timeout_s: float = 0.5
    ship_bytes_per_s_min: float = 10e6
    rejoin_s: float = 1.0
    read_staleness_s: float = 2.0
    unapplied_max: int = 10_000
    log_entries_max: int = 1000
    log_bytes_max: int = 64 * 1024 * 1024
    window_bytes_max: int = 32 * 1024 * 1024
    batch_bytes_max: int = 1024 * 1024
    max_lag_writes: int = 1000
    answers: AnswerBounds = field(default_factory=AnswerBounds)


def state_bounds(settings: HubSettings, plan: ChildPlan) -> StateBounds:
    """The bounds that hold for the copies of a child."""
    return StateBounds(
        ack_timeout_s=settings.ack_timeout_s,
        read_staleness_s=settings.read_staleness_s,
        unapplied_max=settings.unapplied_max,
        log_bytes_max=settings.log_bytes_max,
        max_lag_writes=plan.max_lag_writes,
        answers=AnswerBounds(
            clients_max=settings.clients_max,
            per_client_max=settings.answers_per_client_max,
            answer_bytes_max=settings.answer_bytes_max,
        ),
    )


@dataclass(slots=True)
class Holding:
    """What one copy holds. Without `has_state`, it holds nothing that counts."""

    bounds: StateBounds
    log: Log = field(default_factory=Log)
    answers: AnswerTable = field(init=False)
    has_state: bool = False
    is_installing: bool = False
    ordered: Position = START
    applied: Position = START
    committed: int = 0

    def __post_init__(self) -> None:
        self.answers = AnswerTable(self.bounds.answers)

    @property
    def is_caught_up(self) -> bool:
        """Is everything that the copy holds in its object?"""
        return self.has_state and not self.is_installing and self.applied == self.log.tail

    def begin(self, floor: Position) -> None:
        """The state that the constructor made is the child's."""
        self.log.reset(floor)
        self.ordered = self.applied = floor
        self.committed = floor.seq
        self.has_state = True

    def order(self, upto_seq: int) -> tuple[Write, ...]:
        """Hand the writes up to there to the object; those that were not before."""
        entries = tuple(
            entry for entry in self.log.after(self.ordered.seq) if entry.position.seq <= upto_seq
        )
        for entry in entries:
            self.answers.add(entry)
        if entries:
            self.ordered = entries[-1].position
        return entries

    def execute(self, entry: Write) -> None:
        """Add a write that the object has executed."""
        self.log.append(entry)
        self.answers.add(entry)
        self.ordered = self.applied = entry.position

    def trim(self, upto_seq: int) -> None:
        """Forget old entries that nobody needs any more."""
        bounds = self.bounds
        self.log.trim(
            min(upto_seq, self.applied.seq),
            entries_max=bounds.log_entries_max,
            bytes_max=bounds.log_bytes_max,
        )
