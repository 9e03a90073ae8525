"""What does a passive do with what its active ships?

It keeps the writes in order, says what it holds, and hands to its object what is committed. What
it holds beyond the history of a new active was acknowledged to nobody, and is dropped before it
ever reached the object; if it did reach it, only a snapshot can help, and the active sends one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from raphub.core.holding import Holding
from raphub.core.log import Position, Write
from raphub.core.messages import Apply, ApplySoon, Install, ReplicaAction, SendToPeer
from raphub.core.model import ReplicaId
from raphub.core.shipments import (
    Acked,
    Beat,
    Began,
    Follow,
    FromActive,
    Pulse,
    Ship,
    Snapshot,
    Standing,
)

NEVER = float("-inf")
PULSES_PER_STALENESS = 4


@dataclass(slots=True)
class Following:
    """The passive half of one copy. `active` is who spoke last in `epoch`.

    `heard_tail` is the active's last write as of `heard_at`, a time at which this copy asked for
    it. `running` is the call that the active entered last and has shipped no write of; `suspects`
    are those in which copies have died before, and how many.

    `is_matched` says that what this copy holds is known to be a part of the active's history;
    `told_epoch` is in which epoch it last said what it holds. `entered` are the calls that its own
    object still runs, from when this copy was the active: while there are any, it promises nothing.
    `is_due` says that `ApplyDue` will come.
    """

    holding: Holding
    epoch: int = 0
    active: ReplicaId | None = None
    heard_tail: int = 0
    heard_at: float = NEVER
    pulsed_at: float = NEVER
    running: Began | None = None
    heard_order: int = 0
    suspects: dict[tuple[str, int], int] = field(default_factory=dict)
    is_built: bool = False
    is_matched: bool = False
    told_epoch: int = 0
    entered: set[tuple[str, int]] = field(default_factory=set)
    is_due: bool = False
    owes: set[str] = field(default_factory=set)

    def may_read(self, now: float, max_lag_writes: int | None) -> bool:
        """May this passive answer a read that tolerates so many missing writes?"""
        holding = self.holding
        if not (holding.has_state and self.is_matched) or holding.is_installing:
            return False
        is_committed = holding.applied.seq <= holding.committed
        if not is_committed or now - self.heard_at > holding.bounds.read_staleness_s:
            return False
        lag = self.heard_tail - holding.applied.seq
        return lag <= (holding.bounds.max_lag_writes if max_lag_writes is None else max_lag_writes)

    def receive(self, peer: ReplicaId, message: FromActive) -> list[ReplicaAction]:
        """Take in a message of the active of an epoch that is not over."""
        if message.epoch > self.epoch:
            self.epoch, self.heard_tail, self.heard_order = message.epoch, 0, 0
            self.doubt()
        self.active = peer
        match message:
            case Follow(_, base, suspects):
                self.suspects = {(client, number): deaths for client, number, deaths in suspects}
                return self._stand(base)
            case Ship():
                return self._take_in(message)
            case Snapshot():
                return self._install(message)
            case Beat():
                return self._hear(message)
            case Began(order=order):
                if order >= self.heard_order:
                    self.running, self.heard_order = message, order
                return []
            case _:
                assert_never(message)

    def built(self) -> list[ReplicaAction]:
        """There is an object: an active that has asked is answered now."""
        self.is_built = True
        return self._pay()

    def doubt(self) -> None:
        """What this copy holds may not be what the active holds, until they have compared."""
        self.is_matched, self.heard_at = False, NEVER

    def stand_anew(self) -> list[ReplicaAction]:
        """Something came to this copy's own object: say what it holds now."""
        self.doubt()
        self.owes.add("standing")
        return self._pay()

    def spoil(self) -> list[ReplicaAction]:
        """The object has changed outside of any history: only a snapshot makes it good again."""
        self.holding.has_state = False
        return self.stand_anew()

    def cease(self) -> None:
        """This copy is the active now, and owes nothing to another one."""
        self.owes.clear()
        self.doubt()

    def tick(self, now: float) -> list[ReplicaAction]:
        """Pay what is owed, and ask the active how far it is; sooner while some is not committed."""
        holding = self.holding
        actions = self._pay()
        is_behind = holding.ordered.seq < holding.log.tail.seq
        wait_s = 0.0 if is_behind else holding.bounds.read_staleness_s / PULSES_PER_STALENESS
        if self.active is None or not holding.has_state or now - self.pulsed_at < wait_s:
            return actions
        self.pulsed_at = now
        return [*actions, self._to_active(Pulse(self.epoch, now))]

    def due(self) -> list[ReplicaAction]:
        """Hand the committed writes to the object."""
        self.is_due = False
        holding = self.holding
        if holding.is_installing or not holding.has_state:
            return []
        entries = holding.order(holding.committed)
        return [Apply(entries)] if entries else []

    def applied(self, position: Position) -> list[ReplicaAction]:
        """The object has taken in everything up to here."""
        holding = self.holding
        if not holding.is_installing:
            holding.applied = max(holding.applied, position)
        holding.trim(holding.applied.seq)
        return self._pay()

    def installed(self, position: Position) -> list[ReplicaAction]:
        """The object has taken in a snapshot."""
        holding = self.holding
        if not holding.is_installing or position != holding.ordered:
            return []
        holding.is_installing, holding.has_state = False, True
        holding.applied = position
        return [*self._advance(), *self._pay()]

    # --- what the active says -----------------------------------------------------------------

    def _stand(self, base: Position) -> list[ReplicaAction]:
        """Drop what is not in the history of a new active, then say what is left.

        `base` is where that history was when its epoch began: an older write beyond it is not part
        of it, and one of its own epoch is never dropped.
        """
        log = self.holding.log
        foreign = [e for e in log.after(base.seq) if e.position.epoch < self.epoch]
        if foreign:
            log.cut_after(max(base.seq, self.holding.ordered.seq))
        self.owes.add("standing")
        return self._pay()

    def _take_in(self, ship: Ship) -> list[ReplicaAction]:
        log = self.holding.log
        if not log.holds(ship.previous):
            self.owes.add("standing")
            return self._pay()
        self.is_matched = True
        for entry in ship.entries:
            self._log(entry)
            self._clear(entry)
        self._commit(ship.committed)
        self.owes.add("ack")
        # What is owed goes first: the active waits for it, and the object is slow.
        return [*self._pay(), *self._advance()]

    def _clear(self, entry: Write) -> None:
        """The call has come to its end: it killed nobody."""
        self.suspects.pop((entry.client, entry.number), None)
        running = self.running
        if running and (running.client, running.number) == (entry.client, entry.number):
            self.running = None

    def _log(self, entry: Write) -> None:
        log, position = self.holding.log, entry.position
        if log.holds(position) or position.seq <= log.floor.seq:
            return
        if position.seq <= log.tail.seq:
            story = f"{position} contradicts what was applied up to {self.holding.ordered}"
            assert position.seq > self.holding.ordered.seq, story
            log.cut_after(position.seq - 1)
        log.append(entry)

    def _install(self, snapshot: Snapshot) -> list[ReplicaAction]:
        """Take the whole state, unless this copy already follows in this epoch and is further."""
        holding = self.holding
        tail = holding.log.tail
        is_old = tail.epoch == snapshot.epoch and tail.seq >= snapshot.position.seq
        if is_old and (holding.has_state or holding.is_installing):
            self.owes.add("ack")
            return self._pay()
        holding.log.reset(snapshot.position)
        holding.answers.restore(snapshot.answers)
        holding.ordered = snapshot.position
        holding.committed = snapshot.committed
        holding.is_installing = self.is_matched = True
        self.owes.add("ack")
        return [Install(snapshot.position, snapshot.image)]

    def _hear(self, beat: Beat) -> list[ReplicaAction]:
        if not self.is_matched:
            return []
        if beat.pulsed_at >= self.heard_at:
            self.heard_tail, self.heard_at = max(self.heard_tail, beat.tail), beat.pulsed_at
        self._commit(beat.committed)
        return [*self._advance(), *self._pay()]

    # --- marks --------------------------------------------------------------------------------

    def _commit(self, committed: int) -> None:
        self.holding.committed = max(self.holding.committed, committed)

    def _advance(self) -> list[ReplicaAction]:
        """Committed writes are for the object, which takes in several at a time."""
        holding = self.holding
        is_new = holding.ordered.seq < min(holding.committed, holding.log.tail.seq)
        if self.is_due or not is_new or holding.is_installing or not holding.has_state:
            return []
        self.is_due = True
        return [ApplySoon()]

    def _pay(self) -> list[ReplicaAction]:
        """Say what is owed to the active, unless the object is too far behind, or runs a call."""
        holding = self.holding
        behind = holding.ordered.seq - holding.applied.seq
        is_busy = self.entered or holding.is_installing or behind > holding.bounds.unapplied_max
        if is_busy or not self.is_built or not self.owes or self.active is None:
            return []
        owed, self.owes, self.told_epoch = self.owes, set(), self.epoch
        tail = holding.log.tail
        if "standing" in owed:
            has_state = holding.has_state
            return [self._to_active(Standing(self.epoch, tail, holding.ordered, has_state))]
        if "ack" in owed and holding.has_state:
            return [self._to_active(Acked(self.epoch, tail))]
        return []

    def _to_active(self, message: Standing | Acked | Pulse) -> ReplicaAction:
        assert self.active is not None
        return SendToPeer(self.active, message)
