"""What does the hub decide when something happens?

The control plane: membership, placement, roles, leases, healing, requests. It is fed events and
the time on the hub's own clock, and answers with actions; an answer that changes durable facts
begins with one `Record`. An event that is late, repeated or stale changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from raphub.core import partition, placement
from raphub.core.copies import count_crash, dial_copies, settle_copies, start_left
from raphub.core.hub_state import HubState, child_of, is_led
from raphub.core.in_sync import change_set, find_loss, settle_set, tell_roster
from raphub.core.messages import (
    BuildFailed,
    ChildrenRequested,
    ClusterSizeSet,
    CopiesFound,
    Dial,
    Diverged,
    DrainNoticed,
    DrainRequested,
    DrainTroubled,
    Failure,
    Fenced,
    FromReplica,
    HubAction,
    HubEvent,
    JobsEnded,
    LeaseGranted,
    LoadsSeen,
    MigrationRequested,
    NodeRefused,
    NodesSeen,
    PauseRequested,
    ProbeNode,
    ProcessGone,
    Recovered,
    Renew,
    ReplicaFailed,
    ReplicaLocated,
    ReplicaStopped,
    Report,
    RoleOverdue,
    RoleTaken,
    SendToReplica,
    SetWanted,
    ShipmentSlow,
    StartReplica,
    SteppedDown,
    StopReplica,
    StopRequested,
    SwitchoverRequested,
    TermHeld,
    Ticked,
    WireClosed,
    WritesLost,
)
from raphub.core.model import (
    ChildId,
    DeathProof,
    HubSettings,
    Node,
    NodeId,
    Phase,
    ReplicaId,
    replica_id,
    split_replica_id,
)
from raphub.core.moves import drain, fail_destination, forget_drain, settle_moves
from raphub.core.records import (
    AddressLearned,
    Child,
    LeaseReleased,
    Ledger,
    ReplicaForgotten,
    TermClaimed,
)
from raphub.core.requests import Requests
from raphub.core.roles import retire, settle_roles
from raphub.core.sightings import NEVER, NOT_YET, Sighting
from raphub.core.views import ChildView, view

DIAL_AGAIN_S = 0.001
"""The first wait before a copy is dialled again; doubled up to `dial_retry_s`."""


_PHASES = list(Phase)
"""In the order in which a copy goes through them; a report of an earlier one is old news."""


@dataclass(slots=True)
class HubMachine:
    """One life of a hub actor. `began_at` is when it claimed `term`, on its own clock.

    `custom` is the strategy that `settings` name, if they name a user's and it could be loaded.
    """

    settings: HubSettings
    ledger: Ledger
    term: int
    began_at: float
    custom: placement.Custom | None = None
    state: HubState = field(init=False)
    requests: Requests = field(init=False)
    published: dict[ChildId, ChildView] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger.apply(TermClaimed(self.term))
        self.state = HubState(self.settings, self.ledger, self.term, self.began_at, self.custom)
        self.requests = Requests(self.state)

    def handle(self, event: HubEvent, now: float) -> list[HubAction]:
        """Decide what follows from the event. Total: whatever arrives late is recognised."""
        if self.state.trust.pass_time(now):
            self.state.note("hub_paused", "the hub's own loop stood still; silence is not believed")
            # That nodes were missing is old news now; whether they still are waits to be read.
            again_at = now + self.settings.lease_certain_s
            self.state.vanished_at = dict.fromkeys(self.state.vanished_at, again_at)
        self._dispatch(event, now)
        while (child_id := self.state.take_unsettled()) is not None:
            self._settle(child_id, now)
        return self.state.take_decisions()

    def wakes_at(self) -> float | None:
        """When `Ticked` has something to do next, if nothing else happens before."""
        return self.state.timers[0][0] if self.state.timers else None

    def view(self, child_id: ChildId, now: float) -> ChildView | None:
        """What the child is now; None if there is no such child."""
        return view(self.state, child_id, now)

    def is_usable(self, node: Node) -> bool:
        """May the node hold a copy that asks for nothing special?"""
        return partition.is_usable(self.state, node)

    def _dispatch(self, event: HubEvent, now: float) -> None:  # noqa: C901, PLR0912 - one case an event
        match event:
            case Ticked():
                self._tick(now)
            case TermHeld(asked_at):
                self.state.term_held_at = max(self.state.term_held_at, asked_at)
            case FromReplica(replica, message):
                self._hear(replica, message, now)
            case WireClosed(replica):
                self._close_wire(replica, now)
            case ProcessGone(replica):
                self._bury(replica, now)
            case ReplicaLocated(replica, address, pid):
                self._locate(replica, address, pid, now)
            case ReplicaFailed(replica, failure, reason):
                self._fail(replica, failure, reason, now)
            case ReplicaStopped(replica):
                if replica in self.ledger.retired:
                    self.state.record(ReplicaForgotten(replica))
                    self.requests.progress_all(now)
            case NodesSeen(nodes):
                self._see_nodes(nodes, now)
            case LoadsSeen(free):
                self.state.loads.see(free, now)
            case NodeRefused(node_id):
                self._refuse_node(node_id, now)
            case DrainNoticed(nodes):
                for node_id, left_s in nodes:
                    if node_id in self.state.nodes:
                        words = f"is being emptied: Ray takes it away in {left_s:.0f} s"
                        drain(self.state, node_id, left_s, words)
            case JobsEnded(job_ids):
                self.requests.end_jobs(job_ids)
            case (
                ChildrenRequested()
                | StopRequested()
                | SwitchoverRequested()
                | MigrationRequested()
                | DrainRequested()
                | PauseRequested()
            ):
                self.requests.receive(event, now)
            case ClusterSizeSet():
                self.requests.receive(event, now)
                self._judge(now)
            case Recovered():
                self._recover(now)
            case CopiesFound(replicas):
                for replica in replicas:
                    self._find(replica, now)
            case _:
                assert_never(event)

    # --- time, recovery, nodes ----------------------------------------------------------------

    def _tick(self, now: float) -> None:
        self._let_nodes_vanish(now)
        holding = [node_id for node_id, replicas in self.state.on_node.items() if replicas]
        self.state.trust.listen(holding, now)
        self.state.leases.forget(now)
        self.state.forget_avoided(now)
        self.state.touch_due(now)
        self.requests.pass_time(now)
        self._judge(now)

    def _judge(self, now: float) -> None:
        """May the hub go on? Not asked before all is known that the journal and Ray's table say."""
        if self.state.standstill is not None:
            partition.judge(self.state, now)

    def _recover(self, now: float) -> None:
        """Take up what the journal says: find every copy, end what is out."""
        for child_id, child in self.ledger.children.items():
            for placed, seen in self.state.copies(child, now):
                replica = replica_id(child_id, placed.number)
                is_up = placed.address is not None
                self.state.place_copy(replica, placed.node_id, child.plan, is_up=is_up)
                if placed.address is not None:
                    seen.is_inherited = True
                    self.state.trust.expect(placed.node_id)
                    seen.was_active = placed.number == child.active
            self.state.touch(child_id)
        self._doubt_first_look(now)
        partition.judge(self.state, now)
        if self.state.goes_on:
            start_left(self.state, now)
        for replica in self.ledger.retired:
            self.state.do(StopReplica(replica))
        self.requests.progress_all(now)

    def _doubt_first_look(self, now: float) -> None:
        """Most nodes that hold copies are not in Ray's table: perhaps it is being filled anew.

        They count as there for one lease, with no room for more (law 14).
        """
        state = self.state
        missing = [node_id for node_id in sorted(state.on_node) if node_id not in state.nodes]
        if self._is_mass(len(missing), len(state.on_node)):
            for node_id in missing:
                state.nodes[node_id] = Node(node_id)
                state.vanished_at[node_id] = now + self.settings.lease_certain_s

    def _is_mass(self, gone: int, known: int) -> bool:
        """Are these too many nodes to have gone at once?"""
        return gone >= 2 and gone > self.settings.distrust_node_fraction * known  # noqa: PLR2004

    def _see_nodes(self, nodes: tuple[Node, ...], now: float) -> None:
        """Take in Ray's node table. Most nodes gone at once is doubted for one lease (law 14)."""
        state = self.state
        state.refused &= {node.node_id for node in nodes}
        seen = {node.node_id: node for node in nodes if node.node_id not in state.refused}
        joined = [node_id for node_id in seen if node_id not in state.nodes]
        returned = [node_id for node_id in state.vanished_at if node_id in seen]
        for node_id in returned:
            del state.vanished_at[node_id]
        gone = [n for n in state.nodes if n not in seen and n not in state.vanished_at]
        is_mass = self._is_mass(len(gone) + len(state.vanished_at), len(state.nodes))
        for node_id in gone:
            state.vanished_at[node_id] = now + (self.settings.lease_certain_s if is_mass else 0.0)
        state.nodes.update(seen)
        for node_id in joined:
            state.note("node_joined", f"node {node_id} joined", node_id=node_id)
        self._let_nodes_vanish(now)
        self._judge(now)
        if joined or returned:
            for child_id in sorted(state.short):
                state.touch(child_id)

    def _refuse_node(self, node_id: NodeId, now: float) -> None:
        """The raylet is gone: nothing can be placed there, whatever Ray's table says for now."""
        if node_id in self.state.nodes:
            self.state.refused.add(node_id)
            self.state.vanished_at[node_id] = now
            self._let_nodes_vanish(now)
            self._judge(now)

    def _let_nodes_vanish(self, now: float) -> None:
        state = self.state
        for node_id in [n for n, at in state.vanished_at.items() if at <= now]:
            del state.vanished_at[node_id]
            del state.nodes[node_id]
            forget_drain(state, node_id)
            state.note("node_left", f"node {node_id} is not usable any more", node_id=node_id)
            for replica in sorted(state.on_node.get(node_id, ())):
                state.touch(child_of(replica))

    # --- copies -------------------------------------------------------------------------------

    def _copy(self, replica: ReplicaId, now: float) -> tuple[Child, NodeId, Sighting] | None:
        """The copy, if it is one that counts."""
        child_id, number = split_replica_id(replica)
        placed = self.ledger.placed(child_id, number)
        if placed is None:
            return None
        child = self.ledger.children[child_id]
        return child, placed.node_id, self.state.sighting(replica, now)

    def _locate(self, replica: ReplicaId, address: tuple[str, int], pid: int, now: float) -> None:
        found = self._copy(replica, now)
        if found is None:
            self._stop_stray(replica)
            return
        child, node_id, seen = found
        child_id, number = split_replica_id(replica)
        seen.pid = pid
        self.state.loads.come_up(replica, node_id, now)
        if child.replicas[number].address != address:
            self.state.record(AddressLearned(child_id, number, address))
        seen.heard_at, seen.dial_at = now, NEVER
        self.state.touch(child_id)

    def _find(self, replica: ReplicaId, now: float) -> None:
        """The cluster holds something of this copy, though nobody may have recorded where it is."""
        found = self._copy(replica, now)
        if found is None:
            self._stop_stray(replica)
        elif not found[2].is_starting:
            found[2].is_inherited = True

    def _stop_stray(self, replica: ReplicaId) -> None:
        """A copy that the ledger does not count has shown up: it is to be stopped."""
        self.state.do(StopReplica(replica))

    def _fail(self, replica: ReplicaId, failure: Failure, reason: str, now: float) -> None:
        """A copy did not come up. One that is ready by now is not touched by old news."""
        found = self._copy(replica, now)
        if found is None or found[2].is_ready:
            return
        child, node_id, _ = found
        number = split_replica_id(replica)[1]
        if child.active == number:
            return
        self.state.note("replica_failed", reason, child.plan.child_id, number, node_id)
        count_crash(self.state, child, node_id, now)
        fail_destination(self.state, child, node_id, reason)
        if not self.requests.fail_copy(child, failure, reason, node_id, now):
            retire(self.state, child, number)
            self.state.touch(child.plan.child_id)

    def _close_wire(self, replica: ReplicaId, now: float) -> None:
        """The connection broke: ask the port at once whether the process is still there."""
        found = self._copy(replica, now)
        if found is None:
            self._dial_outgoing_holder(replica)
            return
        _, _, seen = found
        was_wired, seen.is_wired, seen.is_dialing = seen.is_wired, False, False
        # What was asked may be lost with the connection; over the next one it is asked anew.
        seen.asked_role, seen.asked_at, seen.leave_asked_at = None, NEVER, NOT_YET
        seen.dial_failures = 0 if was_wired else seen.dial_failures + 1
        seen.dial_at = NEVER if was_wired else now + self._dial_again_s(seen.dial_failures)
        self.state.touch(child_of(replica))

    def _dial_again_s(self, failures: int) -> float:
        """A process on its way out may still accept and drop a connection: ask again quickly."""
        return min(self.settings.dial_retry_s, DIAL_AGAIN_S * float(2 ** min(failures, 20)))

    def _dial_outgoing_holder(self, replica: ReplicaId) -> None:
        """A retired copy that may hold the lease still matters: its end frees the next active."""
        child_id, number = split_replica_id(replica)
        placed = self.ledger.retired.get(replica)
        if placed is not None and placed.address and self.ledger.holder(child_id) == number:
            self.state.do(Dial(replica, placed.address))

    def _bury(self, replica: ReplicaId, now: float) -> None:
        """The process is proved gone; with it goes any lease that it held."""
        child_id, number = split_replica_id(replica)
        if self.ledger.holder(child_id) == number and self.settings.death_proof is DeathProof.PORT:
            self.state.record(LeaseReleased(child_id))
            self.state.touch(child_id)
        found = self._copy(replica, now)
        if found is None:
            return
        child, node_id, seen = found
        if seen.is_gone:
            return
        seen.is_gone, seen.is_wired, seen.is_dialing = True, False, False
        self.state.note("replica_died", f"{replica} is gone", child_id, number, node_id)
        node = self.state.nodes.get(node_id)
        if node is not None and node.port:
            self.state.do(ProbeNode(node_id, (node.address, node.port)))
        count_crash(self.state, child, node_id, now)
        if seen.phase is not Phase.READY:
            self.requests.fail_copy(child, Failure.DIED, "its process ended", node_id, now)
        self.state.touch(child_id)

    # --- wire messages ------------------------------------------------------------------------

    def _hear(self, replica: ReplicaId, message: object, now: float) -> None:
        found = self._copy(replica, now)
        child_id, number = split_replica_id(replica)
        if isinstance(message, SteppedDown):
            self._release(child_id, number, message.epoch)
        if found is None:
            self._fence_stray(replica, message)
            return
        child, node_id, seen = found
        if seen.is_gone:
            return
        was_silent = self.state.is_silent(seen, now)
        seen.heard_at = now
        self.state.trust.hear(node_id, now)
        if was_silent:
            self.state.touch(child_id)
        match message:
            case Renew(epoch, sent_at):
                self._renew(child, number, seen, epoch, sent_at, now)
            case Report():
                self._report(child, number, seen, message, now)
            case BuildFailed(reason):
                self._fail(replica, Failure.CONSTRUCTOR, reason, now)
            case RoleTaken(role, epoch, trouble):
                seen.role, seen.epoch, seen.is_overdue = role, epoch, False
                if trouble:
                    self.state.note("callback_failed", trouble, child_id, number, node_id)
                self.state.touch(child_id)
            case RoleOverdue(role, epoch):
                self._overdue(child, number, seen, epoch)
            case SteppedDown():
                pass
            case _:
                self._hear_of_state(child, number, message, now)

    def _hear_of_state(self, child: Child, number: int, message: object, now: float) -> None:
        child_id, node_id = child.plan.child_id, child.replicas[number].node_id
        match message:
            case SetWanted() if self.state.goes_on:
                change_set(self.state, child, number, message, now)
            case SetWanted():
                pass
            case ShipmentSlow(took_s, size):
                text = f"{size} bytes took {took_s:.1f} s to another copy; see state='log'"
                self.state.note("state_slow", text, child_id, number, node_id)
            case Diverged(reason):
                self._diverge(child, number, reason, now)
            case DrainTroubled(reason):
                self.state.note("callback_failed", reason, child_id, number, node_id)
            case WritesLost(epoch, count):
                text = f"up to {count} answered writes are lost with the old active (acks='active')"
                self.state.note("writes_lost", f"epoch {epoch}: {text}", child_id, number)
            case _:
                raise AssertionError(f"{child_id}#{number} sent {message!r}, as no replica does")

    def _renew(
        self, child: Child, number: int, seen: Sighting, epoch: int, sent_at: float, now: float
    ) -> None:
        """Grant the lease to all and only the copy that the journal names, in its epoch.

        Where all copies serve, each that counts is named.
        """
        replica = replica_id(child.plan.child_id, number)
        may_grant = self.state.goes_on and self._holds_authority(now)
        if not is_led(child):
            if may_grant:
                self.state.do(SendToReplica(replica, LeaseGranted(epoch, sent_at)))
            return
        if epoch < child.epoch or number != child.active:
            self.state.do(SendToReplica(replica, Fenced(child.epoch)))
            return
        is_named = epoch == child.epoch and child.holder == number
        if is_named and not seen.leaving and may_grant:
            self.state.leases.grant(child.plan.child_id, now)
            self.state.do(SendToReplica(replica, LeaseGranted(epoch, sent_at)))
            tell_roster(self.state, child, now)

    def _holds_authority(self, now: float) -> bool:
        """Was the term read back from the journal recently enough? Law 13."""
        return now - self.state.term_held_at <= self.settings.term_check_s

    def _report(
        self, child: Child, number: int, seen: Sighting, report: Report, now: float
    ) -> None:
        before = (seen.is_wired, seen.phase, seen.role, seen.epoch, seen.is_built)
        seen.is_wired, seen.is_dialing, seen.dial_failures = True, False, 0
        if _PHASES.index(report.phase) >= _PHASES.index(seen.phase):
            seen.phase, seen.role, seen.epoch = report.phase, report.role, report.epoch
            seen.pid = report.pid
        seen.is_built = seen.is_built or report.is_built
        seen.tail, seen.reported_at = report.tail, now
        if child.plan.child_id in self.state.elections:
            self.state.touch(child.plan.child_id)
        has_turn = self.state.starting_count < self.settings.replicas_starting_max
        is_left = seen.is_inherited and not seen.is_starting and seen.phase is Phase.STARTING
        if is_left and has_turn and not child.is_lost and self.state.goes_on:
            # The hub actor that started it ended before it had the object built. One that has no
            # turn now reports again.
            replica = replica_id(child.plan.child_id, number)
            self.state.begin_starting(seen)
            self.state.do(StartReplica(replica, child.replicas[number].node_id, child.plan))
        if report.phase is Phase.BUILDING and seen.build_began_at is None:
            seen.build_began_at = now
        if report.phase is Phase.READY:
            self.state.end_starting(seen)
        if (seen.is_wired, seen.phase, seen.role, seen.epoch, seen.is_built) != before:
            self.state.touch(child.plan.child_id)

    def _release(self, child_id: ChildId, number: int, epoch: int) -> None:
        """The active has stepped down; that counts for its own epoch only."""
        child = self.ledger.children.get(child_id)
        if child is not None and child.epoch == epoch and child.holder == number:
            self.state.record(LeaseReleased(child_id))
            self.state.touch(child_id)

    def _overdue(self, child: Child, number: int, seen: Sighting, epoch: int) -> None:
        """A role callback has passed its deadline; only an active's matters for who serves."""
        child_id = child.plan.child_id
        self.state.note("callback_overdue", "on_role_change runs too long", child_id, number)
        if number == child.active and epoch == child.epoch:
            seen.is_overdue = True
            self.state.touch(child_id)

    def _diverge(self, child: Child, number: int, reason: str, now: float) -> None:
        """A copy's object is not what the active's is: it is out, and another one is built."""
        child_id = child.plan.child_id
        node_id = child.replicas[number].node_id
        self.state.note("diverged", reason, child_id, number, node_id)
        if number == child.active:
            return
        count_crash(self.state, child, node_id, now)
        retire(self.state, child, number)
        self.state.touch(child_id)

    def _fence_stray(self, replica: ReplicaId, message: object) -> None:
        """A copy that is out speaks: it must serve no more, whatever it believes."""
        child_id = child_of(replica)
        if isinstance(message, Renew):
            child = self.ledger.children.get(child_id)
            epoch = child.epoch if child is not None else message.epoch + 1
            self.state.do(SendToReplica(replica, Fenced(max(epoch, message.epoch + 1))))
        elif isinstance(message, Report) and replica not in self.ledger.retired:
            self._stop_stray(replica)

    # --- settling -----------------------------------------------------------------------------

    def _settle(self, child_id: ChildId, now: float) -> None:
        child = self.ledger.children.get(child_id)
        if child is None:
            self.state.forget_child(child_id)
        elif not self.state.goes_on:
            dial_copies(self.state, child, now)
        else:
            settle_moves(self.state, child, now)
            settle_roles(self.state, child, now)
            if find_loss(self.state, child, now):
                self._lose(child, now)
            settle_copies(self.state, child, now)
            settle_roles(self.state, child, now)
            settle_set(self.state, child, now)
            self._wake_for_silence(child, now)
        self.requests.settled(child_id, now)
        present = view(self.state, child_id, now)
        if present is None:
            self.published.pop(child_id, None)
        elif present != self.published.get(child_id):
            self.published[child_id] = present
            self.state.publish(child_id)

    def _lose(self, child: Child, now: float) -> None:
        """Make room: a lost child's copies wait for a state that never comes, others are retired."""
        for placed, seen in list(self.state.copies(child, now)):
            if child.is_lost:
                self.state.end_starting(seen)
            else:
                retire(self.state, child, placed.number)

    def _wake_for_silence(self, child: Child, now: float) -> None:
        """Look at the child again when a copy may have become silent, or silence believable."""
        state = self.state
        believed_at = state.silence_believed_at()
        for _, seen in state.copies(child, now):
            at = state.silent_at(seen)
            if at > now:
                state.wake_at(child.plan.child_id, at)
            elif believed_at > now:
                state.wake_at(child.plan.child_id, believed_at)
        ends_at = state.leases.ends_at(child.plan.child_id)
        if ends_at > now and child.holder is not None:
            state.wake_at(child.plan.child_id, ends_at)
