"""May this call run, may this answer go, and what does the copy's state have to do with it?

The data plane of one copy whose state is replicated: what it holds, its passive half and, while it
is the active, its active half.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from raphub.core.dedup import Kept, Verdict
from raphub.core.following import Following
from raphub.core.holding import Holding, StateBounds
from raphub.core.log import Position, Write
from raphub.core.messages import (
    Apply,
    ApplyNow,
    CallBegan,
    CallWrote,
    ReplicaAction,
    Roster,
    SendToHub,
    WakeCalls,
    WritesLost,
)
from raphub.core.model import Acks, ReplicaId
from raphub.core.shipping import Shipping

DEATHS_MAX = 2
"""A call in which so many copies died is never run again (law 15)."""


class Admission(StrEnum):
    """What becomes of a call that arrives.

    SERVE runs it, ANSWERED gives its first answer again, WAIT means that this copy may serve in a
    moment. All others refuse it, and it certainly has not run here.
    """

    SERVE = "serve"
    ANSWERED = "answered"
    WAIT = "wait"
    NOT_ACTIVE = "not_active"
    STALE = "stale"
    NOT_OPEN = "not_open"
    TOO_FEW_IN_SYNC = "too_few_in_sync"
    AWAITS_COPY = "awaits_copy"
    OUT_OF_ORDER = "out_of_order"
    FORGOTTEN = "forgotten"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt of a call, as its client describes it.

    `after` is the client's last write before it of which it has no answer, 0 if there is none: it
    has to be applied first. `settled_below` is the number below which it has all answers.
    """

    client: str
    number: int
    epoch: int
    settled_below: int = 1
    after: int = 0
    is_retry: bool = False
    is_read: bool = False


@dataclass(slots=True)
class Replication:
    """The data plane of one copy."""

    me: ReplicaId
    bounds: StateBounds = field(default_factory=StateBounds)
    acks: Acks = Acks.IN_SYNC
    min_in_sync: int = 1
    slow_after_s: float = 1.0
    holding: Holding = field(init=False)
    following: Following = field(init=False)
    shipping: Shipping | None = None

    def __post_init__(self) -> None:
        self.holding = Holding(self.bounds)
        self.following = Following(self.holding)

    # --- questions ----------------------------------------------------------------------------

    def admit(self, call: Call, now: float) -> tuple[Admission, Kept | None]:
        """Decide about a call to this copy, which serves. With the answer, if it has one."""
        assert self.shipping is not None, f"{self.me} serves without its active half"
        answers = self.holding.answers
        if not call.is_read:
            verdict, kept = answers.look_up(call.client, call.number, is_retry=call.is_retry)
            if verdict is Verdict.ANSWERED:
                return Admission.ANSWERED, kept
            if verdict is Verdict.FORGOTTEN:
                return Admission.FORGOTTEN, None
            if call.after and self._is_missing(call.client, call.after):
                return Admission.OUT_OF_ORDER, None
        return self._admit_new(call, self.shipping, now), None

    def _admit_new(self, call: Call, shipping: Shipping, now: float) -> Admission:
        """Decide about a call that has not run here."""
        roster = shipping.roster
        deaths = shipping.suspects.get((call.client, call.number), 0)
        if deaths >= DEATHS_MAX:
            return Admission.KILLED
        if deaths and shipping.in_sync_count < 2:  # noqa: PLR2004 - this one and another
            return Admission.AWAITS_COPY
        is_heard = shipping.can_be_heard(now)
        if call.is_read:
            return Admission.SERVE if is_heard else Admission.WAIT
        if not roster.is_open:
            return Admission.NOT_OPEN
        if shipping.in_sync_count < self.min_in_sync:
            return Admission.TOO_FEW_IN_SYNC
        behind = self.holding.log.tail.seq - self.holding.committed
        is_too_far = self.acks is Acks.ACTIVE and behind >= self.bounds.max_lag_writes
        return Admission.WAIT if is_too_far or not is_heard else Admission.SERVE

    def may_release(self, seq: int, *, is_read: bool) -> bool:
        """Does everybody hold what an answer reflects that was made after `seq` writes?

        A write also waits while fewer copies than `min_in_sync` are in sync; a read does not.
        """
        if self.shipping is None:
            return False
        if self.acks is Acks.ACTIVE:
            return True
        is_enough = is_read or self.shipping.in_sync_count >= self.min_in_sync
        return is_enough and self.holding.committed >= seq

    def _is_missing(self, client: str, number: int) -> bool:
        verdict, _ = self.holding.answers.look_up(client, number, is_retry=False)
        return verdict is Verdict.NEW

    # --- the active's part --------------------------------------------------------------------

    def may_begin(self, roster: Roster) -> bool:
        """May this copy be the active: has it the state, or is there none yet that counts?"""
        is_first = not roster.is_open and roster.members == (self.me,)
        return self.holding.has_state or self.holding.is_installing or is_first

    def begin(self, roster: Roster, now: float) -> list[ReplicaAction]:
        """Become the active of the roster's epoch; everything held is applied before it serves."""
        holding, following = self.holding, self.following
        actions: list[ReplicaAction] = []
        if not (holding.has_state or holding.is_installing):
            holding.begin(Position(roster.epoch, 0))
        if following.entered:
            # Promoted again while a call of its former epoch runs: what came meanwhile was
            # acknowledged to nobody, and the call comes before it.
            holding.log.cut_after(holding.ordered.seq)
        following.cease()
        base = holding.log.tail
        # What a snapshot brought along may be held by nobody else: it is committed once they say so.
        holding.committed = -1
        lost = following.heard_tail - base.seq
        if self.acks is Acks.ACTIVE and lost > 0:
            actions.append(SendToHub(WritesLost(roster.epoch, lost)))
        suspects = self._suspects()
        if following.is_due:
            actions.append(ApplyNow())
        if not holding.is_installing:
            actions += self._apply_rest()
        no_roster = Roster(roster.epoch, -1, (self.me,), (), is_open=False)
        self.shipping = Shipping(
            self.me, holding, roster.epoch, base, no_roster, self.slow_after_s, suspects
        )
        return [*actions, *self.shipping.take_roster(roster, now)]

    def end(self) -> list[ReplicaAction]:
        """Cease to be the active."""
        shipping, self.shipping = self.shipping, None
        if shipping is None:
            return []
        self.following.suspects = shipping.suspects
        return shipping.hang_up()

    def began(self, call: CallBegan) -> list[ReplicaAction]:
        """A call is being entered."""
        if self.shipping is None:
            return []
        self.following.entered.add((call.client, call.number))
        return self.shipping.began(call.client, call.number)

    def wrote(self, wrote: CallWrote, now: float) -> list[ReplicaAction]:
        """The object has executed a write: it is the next in the history.

        A copy that ceased to be the active meanwhile keeps it behind its last write, in the epoch
        in which the call began, so that it is known should the copy be promoted again. If it has
        promised something to a later active, the object has what no history has: it needs a
        snapshot.
        """
        shipping, holding, following = self.shipping, self.holding, self.following
        epoch = wrote.epoch if shipping is None else shipping.epoch
        self._end(wrote.client, wrote.number)
        if following.told_epoch > wrote.epoch or holding.ordered.epoch > epoch:
            return following.spoil()
        if shipping is None:
            holding.log.cut_after(holding.ordered.seq)
        entry = Write(
            Position(epoch, holding.log.tail.seq + 1),
            wrote.client,
            wrote.number,
            wrote.settled_below,
            wrote.answer,
            wrote.change,
            wrote.answer_bytes,
            wrote.size,
        )
        if shipping is not None:
            return shipping.append(entry, now)
        holding.execute(entry)
        return following.stand_anew() if following.epoch > wrote.epoch else []

    def read(self, client: str, number: int) -> None:
        """A read has come to its end: it killed nobody, and there is no effect that could be lost."""
        self._end(client, number)
        if self.shipping is not None:
            self.shipping.suspects.pop((client, number), None)

    def _end(self, client: str, number: int) -> None:
        if self.shipping is not None:
            self.shipping.ended(client, number)
        self.following.entered.discard((client, number))

    def broke(self) -> list[ReplicaAction]:
        """The call has changed the object in a way that cannot be shipped."""
        self.following.entered.clear()
        return self.following.spoil() if self.shipping is None else []

    # --- the object's part --------------------------------------------------------------------

    def apply_due(self) -> list[ReplicaAction]:
        """The object is to take in what is committed; an active's has taken in everything."""
        self.following.is_due = False
        return self.following.due() if self.shipping is None else []

    def applied(self, position: Position) -> list[ReplicaAction]:
        """The object has taken in everything up to here."""
        if self.shipping is None:
            return self.following.applied(position)
        self.holding.applied = max(self.holding.applied, position)
        return [WakeCalls()]

    def installed(self, position: Position) -> list[ReplicaAction]:
        """The object has taken in a snapshot."""
        actions = self.following.installed(position)
        return [*actions, *self._apply_rest()] if self.shipping is not None else actions

    def _apply_rest(self) -> list[ReplicaAction]:
        entries = self.holding.order(self.holding.log.tail.seq)
        return [Apply(entries)] if entries else []

    def _suspects(self) -> dict[tuple[str, int], int]:
        """The call that the last active had entered, and not shipped, may have killed it, too."""
        suspects, self.following.suspects = self.following.suspects, {}
        running, self.following.running = self.following.running, None
        if running is not None and running.client:
            suspects[running.client, running.number] = running.deaths + 1
        return suspects
