"""May this copy serve, and what does it tell the hub and the user's object?

A copy serves while it has taken the ACTIVE role of its epoch and its own clock says that the lease
of that epoch runs. It obeys the highest term that it has seen, and a higher epoch, from whomever it
hears of it, ends its serving for good. Where state is replicated, `replication` keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from raphub.core.dedup import Kept
from raphub.core.log import START
from raphub.core.messages import (
    AbandonCallback,
    Applied,
    ApplyDue,
    ApplyFailed,
    BuildBegan,
    BuildFailed,
    BuildRaised,
    Built,
    CallBack,
    CallbackReturned,
    CallBegan,
    CallEnded,
    CallRead,
    CallWrote,
    Diverged,
    DrainNear,
    DrainTold,
    DrainTroubled,
    Fenced,
    FromHub,
    FromPeer,
    HubConnected,
    HubMessage,
    Installed,
    LeaseGranted,
    PeerClosed,
    PeerConnected,
    Renew,
    ReplicaAction,
    ReplicaEvent,
    Report,
    RoleOverdue,
    RoleTaken,
    Roster,
    SendToHub,
    SendToPeer,
    SnapshotTaken,
    StateBroken,
    StepDown,
    SteppedDown,
    TakeRole,
    TellDrain,
    TellPosition,
    Ticked,
    WakeCalls,
)
from raphub.core.model import Phase, ReplicaId, Role, Signal
from raphub.core.replication import Admission, Call, Replication
from raphub.core.shipments import (
    Acked,
    Beat,
    Began,
    EpochOver,
    Follow,
    FromActive,
    FromPassive,
    Pulse,
    Ship,
    Snapshot,
    Standing,
)

NEVER = float("-inf")


@dataclass(slots=True)
class RunningCallback:
    """The user's `on_role_change` at work. At most one runs at a time."""

    role: Role
    epoch: int
    began_at: float
    is_overdue: bool = False


@dataclass(slots=True)
class ReplicaMachine:
    """One copy. All times are seconds on its own clock.

    `is_led` is False where all copies serve; they serve without a lease then, unless they are
    `is_bound`: so they are where the hub may have to stop them for want of nodes. `told` is the role that the user's
    object was last told; `refused_epoch` is the highest epoch in which this copy will not serve.
    `left_over` is what an admission decided, to be done with the next event. `running` counts the
    calls that were admitted and are not answered; while they end, until `leaves_at` at most, a copy
    that was asked to step down admits no others.
    """

    replica: ReplicaId
    pid: int = 0
    is_led: bool = True
    is_bound: bool = False
    signal: Signal = Signal.ALL
    lease_duration_s: float = 3.0
    lease_renewal_s: float = 0.5
    role_deadline_s: float = 5.0
    term: int = 0
    phase: Phase = Phase.STARTING
    role: Role | None = None
    epoch: int = 0
    is_taken: bool = False
    lease_until: float = NEVER
    refused_epoch: int = 0
    renewed_at: float = NEVER
    told: Role | None = None
    callback: RunningCallback | None = None
    failure: str = ""
    is_built: bool = False
    replication: Replication | None = None
    left_over: list[ReplicaAction] = field(default_factory=list)
    running: int = 0
    leaves_at: float | None = None

    # --- questions ----------------------------------------------------------------------------

    def may_serve(self, now: float) -> bool:
        """May a call be executed, and its answer be let go, at this moment?"""
        is_active = self.role is Role.ACTIVE and self.is_taken and self.phase is Phase.READY
        return is_active and (not self._needs_lease or self._has_lease(now))

    def may_answer(self, epoch: int, now: float) -> bool:
        """May the answer of a call that began in `epoch` be let go?"""
        return self.epoch == epoch and self.may_serve(now)

    def may_serve_again(self, epoch: int) -> bool:
        """Could a renewal let this copy serve on in `epoch`?"""
        return self.role is Role.ACTIVE and self.epoch == epoch and epoch > self.refused_epoch

    @property
    def _needs_lease(self) -> bool:
        return self.is_led or self.is_bound

    @property
    def _is_active(self) -> bool:
        return self.role is Role.ACTIVE

    def admit(self, call_epoch: int, now: float) -> Admission:
        """Decide about a call whose sender believes in `call_epoch`.

        WAIT means that this copy may serve in a moment: it is being promoted, or waits for its
        lease. A call of a higher epoch proves that the own one is over.
        """
        if self.is_led and call_epoch > self.epoch:
            self.left_over += self._fence(call_epoch)
            return Admission.WAIT
        if self.role is not Role.ACTIVE:
            return Admission.WAIT if self.role is None else Admission.NOT_ACTIVE
        if self.is_led and call_epoch < self.epoch:
            return Admission.STALE
        is_free = self.may_serve(now) and self.leaves_at is None
        return Admission.SERVE if is_free else Admission.WAIT

    def admit_call(self, call: Call, now: float) -> tuple[Admission, Kept | None]:
        """The same, and what the state has to say; with the answer, if the call has one.

        A call that is to be served is running until `CallEnded`.
        """
        verdict, kept = self.admit(call.epoch, now), None
        if verdict is Admission.SERVE and self.replication is not None:
            verdict, kept = self.replication.admit(call, now)
        self.running += verdict is Admission.SERVE
        return verdict, kept

    def may_release(self, epoch: int, seq: int, now: float, *, is_read: bool = False) -> bool:
        """May an answer of `epoch` be let go that reflects the writes up to `seq`?"""
        is_safe = self.replication is None or self.replication.may_release(seq, is_read=is_read)
        return is_safe and self.may_answer(epoch, now)

    def may_read(self, now: float, max_lag_writes: int | None) -> bool:
        """May this passive answer a read that tolerates so many missing writes?"""
        if self.replication is None or self.phase is not Phase.READY:
            return False
        is_passive = self.role is not Role.ACTIVE
        return is_passive and self.replication.following.may_read(now, max_lag_writes)

    # --- events -------------------------------------------------------------------------------

    def handle(self, event: ReplicaEvent, now: float) -> list[ReplicaAction]:
        """Decide what follows from the event. Total: stale and repeated ones change nothing."""
        left_over, self.left_over = self.left_over, []
        return [*left_over, *self._decide(event, now)]

    def _decide(self, event: ReplicaEvent, now: float) -> list[ReplicaAction]:  # noqa: C901, PLR0911, PLR0912 - one case an event is the clearest
        match event:
            case CallBegan() | CallWrote() | CallRead():
                return self._follow_call(event, now)
            case FromPeer(peer, message):
                return self._hear_peer(peer, message, now)
            case CallEnded():
                self.running -= 1
                return self._leave(self.epoch, now) if self.leaves_at is not None else []
            case Ticked():
                return self._tick(now)
            case FromHub(term, message):
                if term < self.term:
                    return []
                self.term = term
                return self._obey(message, now)
            case HubConnected(term):
                if term < self.term:
                    return []
                self.term = term
                return self._beat(now)
            case BuildBegan():
                self.phase = Phase.BUILDING
                return [self._report()]
            case Built():
                self.is_built = True
                if self.replication is None:
                    self.phase = Phase.READY
                    return [self._report()]
                return [self._report(), *self.replication.following.built()]
            case BuildRaised(reason):
                self.failure = reason
                return [self._report()]
            case CallbackReturned():
                return self._end_callback(event, now)
            case PeerConnected() | PeerClosed() | SnapshotTaken():
                return self._ship(event, now)
            case ApplyDue():
                return [] if self.replication is None else self.replication.apply_due()
            case Applied() | Installed():
                return self._take_in(event, now)
            case DrainTold(trouble):
                return [SendToHub(DrainTroubled(trouble))] if trouble else []
            case ApplyFailed(reason):
                stepped_down = self._step_down(self.epoch, now) if self._is_active else []
                return [SendToHub(Diverged(reason)), *stepped_down]
            case StateBroken():
                stepped_down = self._step_down(self.epoch, now) if self._is_active else []
                spoiled = [] if self.replication is None else self.replication.broke()
                return [*stepped_down, *spoiled]
            case _:
                assert_never(event)

    def _tick(self, now: float) -> list[ReplicaAction]:
        actions = self._leave(self.epoch, now) if self.leaves_at is not None else []
        if now - self.renewed_at >= self.lease_renewal_s:
            actions += self._beat(now)
        running = self.callback
        if running is not None:
            ran_s = now - running.began_at
            if ran_s > self.role_deadline_s and not running.is_overdue:
                running.is_overdue = True
                actions.append(SendToHub(RoleOverdue(running.role, running.epoch)))
            if ran_s > 2 * self.role_deadline_s:
                actions += self._abandon_callback(running, now)
        if self.replication is not None:
            half = self.replication.shipping or self.replication.following
            actions += half.tick(now)
        return actions

    def _obey(self, message: HubMessage, now: float) -> list[ReplicaAction]:
        match message:
            case TakeRole(role, epoch, roster):
                return self._take_role(role, epoch, roster, now)
            case StepDown(epoch, drain_s):
                if epoch == self.epoch and self._is_active:
                    by = now + drain_s
                    self.leaves_at = by if self.leaves_at is None else min(self.leaves_at, by)
                return self._leave(epoch, now)
            case LeaseGranted(epoch, sent_at):
                return self._take_lease(epoch, sent_at, now)
            case Fenced(epoch):
                return self._fence(epoch)
            case Roster():
                shipping = None if self.replication is None else self.replication.shipping
                return [] if shipping is None else shipping.take_roster(message, now)
            case TellPosition():
                return [self._report()]
            case DrainNear(deadline_s):
                return [TellDrain(deadline_s)] if self.is_built else []
            case _:
                assert_never(message)

    # --- lease --------------------------------------------------------------------------------

    def _has_lease(self, now: float) -> bool:
        return now < self.lease_until and self.epoch > self.refused_epoch

    def _beat(self, now: float) -> list[ReplicaAction]:
        """Say what the copy is, so that nothing hangs on one message, and ask for the lease."""
        self.renewed_at = now
        if self._needs_lease and self._is_active and self.epoch > self.refused_epoch:
            return [self._report(), SendToHub(Renew(self.epoch, now))]
        return [self._report()]

    def _take_lease(self, epoch: int, sent_at_s: float, now: float) -> list[ReplicaAction]:
        """The lease counts from when its renewal was sent, which the hub cannot have been late for."""
        if self.role is not Role.ACTIVE or epoch != self.epoch:
            return []
        could_serve = self.may_serve(now)
        self.lease_until = max(self.lease_until, sent_at_s + self.lease_duration_s)
        return [WakeCalls()] if not could_serve else []

    def _fence(self, epoch: int) -> list[ReplicaAction]:
        """Never serve again in any epoch below this one."""
        self.refused_epoch = max(self.refused_epoch, epoch - 1)
        if self.epoch <= self.refused_epoch:
            self.leaves_at = None
        if self.is_led and self.role is Role.ACTIVE and self.epoch <= self.refused_epoch:
            self.role, self.is_taken, self.lease_until = Role.PASSIVE, False, NEVER
            return [] if self.replication is None else [*self.replication.end(), WakeCalls()]
        return []

    # --- role ---------------------------------------------------------------------------------

    def _take_role(
        self, role: Role, epoch: int, roster: Roster | None, now: float
    ) -> list[ReplicaAction]:
        if epoch < self.epoch or not self._may_take(role, roster):
            return []
        if role is Role.ACTIVE and epoch <= self.refused_epoch and self.is_led:
            # Whoever asks does not know that this copy has stepped down: an earlier hub actor
            # asked it to, and ended before that was recorded.
            return [SendToHub(SteppedDown(epoch))]
        if (role, epoch) == (self.role, self.epoch):
            return [SendToHub(RoleTaken(role, epoch))] if self.is_taken else []
        if epoch == self.epoch and self.role is Role.ACTIVE and self.is_led:
            return []
        if epoch != self.epoch and self.is_led:
            self.lease_until = NEVER
        self.role, self.epoch, self.is_taken, self.leaves_at = role, epoch, False, None
        actions = self._change_half(roster, now)
        actions += self._tell_object(now)
        if role is Role.ACTIVE and self._needs_lease:
            actions += self._beat(now)
        return actions

    def _may_take(self, role: Role, roster: Roster | None) -> bool:
        """Is there an object, with a state that counts where one is wanted?"""
        if self.replication is None or role is Role.PASSIVE:
            return self.phase is Phase.READY
        return self.is_built and roster is not None and self.replication.may_begin(roster)

    def _change_half(self, roster: Roster | None, now: float) -> list[ReplicaAction]:
        """Ship from now on, or follow."""
        if self.replication is None:
            return []
        actions = self.replication.end()
        if self.role is Role.ACTIVE and roster is not None:
            actions += self.replication.begin(roster, now)
            actions += self._become_ready()
        return actions

    def _become_ready(self) -> list[ReplicaAction]:
        if self.phase is Phase.READY or not self.is_built:
            return []
        self.phase = Phase.READY
        return [self._report()]

    def _leave(self, epoch: int, now: float) -> list[ReplicaAction]:
        """Step down once the calls that run are answered, or their time is over."""
        is_busy = self.running > 0 and self._is_active and epoch == self.epoch
        if is_busy and self.leaves_at is not None and now < self.leaves_at:
            return []
        return self._step_down(epoch, now)

    def _step_down(self, epoch: int, now: float) -> list[ReplicaAction]:
        """Stop serving first and say so; what the user's object makes of it is not awaited."""
        if epoch < self.epoch:
            return []
        actions = [*self._fence(epoch + 1), SendToHub(SteppedDown(epoch))]
        if self.role is Role.PASSIVE and not self.is_taken:
            actions += self._tell_object(now)
        return actions

    def _tell_object(self, now: float) -> list[ReplicaAction]:
        """Have the user's object told its role, unless it was, or is not to be told this one."""
        if self.role is None or self.callback is not None or not self._is_caught_up():
            return []
        if self.told is self.role or not self.signal.tells(self.role):
            self.told = self.role
            return self._have_taken("")
        self.callback = RunningCallback(self.role, self.epoch, now)
        return [CallBack(self.role, self.epoch)]

    def _is_caught_up(self) -> bool:
        """An active has in its object all that it holds before it is told its role."""
        if self.replication is None or self.role is not Role.ACTIVE or self.is_taken:
            return True
        return self.replication.holding.is_caught_up

    def _end_callback(self, returned: CallbackReturned, now: float) -> list[ReplicaAction]:
        running = self.callback
        if running is None or (running.role, running.epoch) != (returned.role, returned.epoch):
            return []
        self.callback, self.told = None, returned.role
        if (self.role, self.epoch) == (returned.role, returned.epoch):
            return self._have_taken(returned.trouble)
        return self._tell_object(now)

    def _abandon_callback(self, running: RunningCallback, now: float) -> list[ReplicaAction]:
        """Twice the deadline, and the hub has not replaced this copy: go on without the callback."""
        trouble = f"on_role_change({running.role}) still runs after {now - running.began_at:.1f} s"
        returned = CallbackReturned(running.role, running.epoch, trouble)
        return [AbandonCallback(), *self._end_callback(returned, now)]

    def _have_taken(self, trouble: str) -> list[ReplicaAction]:
        if self.role is None:
            return []
        self.is_taken = True
        return [SendToHub(RoleTaken(self.role, self.epoch, trouble)), WakeCalls()]

    # --- state --------------------------------------------------------------------------------

    def _hear_peer(
        self, peer: ReplicaId, message: FromActive | FromPassive, now: float
    ) -> list[ReplicaAction]:
        """Another copy speaks, and a higher epoch ends a lower one, whoever tells of it."""
        if self.replication is None:
            return []
        match message:
            case Follow() | Ship() | Snapshot() | Beat() | Began():
                known = max(self.epoch, self.refused_epoch + 1, self.replication.following.epoch)
                if message.epoch < known:
                    return [SendToPeer(peer, EpochOver(known))]
                actions = self._fence(message.epoch)
                return [*actions, *self._follow(peer, message)]
            case EpochOver(epoch):
                return self._fence(epoch)
            case Pulse() if not self.may_serve(now):
                # Another copy may be the active by now: what this one knows is not news.
                return []
            case Standing() | Acked() | Pulse():
                shipping = self.replication.shipping
                return [] if shipping is None else shipping.receive(peer, message, now)
            case _:
                assert_never(message)

    def _follow(self, peer: ReplicaId, message: FromActive) -> list[ReplicaAction]:
        assert self.replication is not None
        if self.replication.shipping is not None:
            return []
        return self.replication.following.receive(peer, message)

    def _ship(
        self, event: PeerConnected | PeerClosed | SnapshotTaken, now: float
    ) -> list[ReplicaAction]:
        shipping = None if self.replication is None else self.replication.shipping
        if shipping is None:
            return []
        match event:
            case PeerConnected(peer):
                return shipping.connected(peer)
            case PeerClosed(peer):
                return shipping.closed(peer, now)
            case SnapshotTaken(peer, image, size):
                return shipping.snapshot_taken(peer, image, size, now)
            case _:
                assert_never(event)

    def _follow_call(
        self, event: CallBegan | CallWrote | CallRead, now: float
    ) -> list[ReplicaAction]:
        replication = self.replication
        if replication is None:
            return []
        match event:
            case CallBegan():
                return replication.began(event)
            case CallWrote():
                actions = replication.wrote(event, now)
                is_spoiled = self._is_active and not replication.holding.has_state
                return [*actions, *(self._step_down(self.epoch, now) if is_spoiled else [])]
            case CallRead(client, number):
                replication.read(client, number)
                return []
            case _:
                assert_never(event)

    def _take_in(self, event: Applied | Installed, now: float) -> list[ReplicaAction]:
        """The object has taken something in; perhaps that was all, and the copy is ready."""
        replication = self.replication
        if replication is None:
            return []
        if isinstance(event, Applied):
            actions = replication.applied(event.position)
        else:
            actions = replication.installed(event.position)
        if replication.holding.has_state:
            actions += self._become_ready()
        if self.role is Role.ACTIVE and not self.is_taken:
            actions += self._tell_object(now)
        return actions

    def _report(self) -> ReplicaAction:
        if self.failure:
            return SendToHub(BuildFailed(self.failure))
        role = self.role if self.is_taken else None
        tail = START if self.replication is None else self.replication.holding.log.tail
        return SendToHub(Report(self.phase, role, self.epoch, self.pid, self.is_built, tail))
