"""When does a client's request run, and when is it answered?

A request is recorded with its effect, so that a retry finds the first one, even in a later life
of the hub actor. Requests of one client run in the order of their numbers, whatever order they
arrive in; what is answered is kept for retries, bounded by `answers_max`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from raphub.core import moves
from raphub.core.hub_state import HubState, has_strict_zones
from raphub.core.messages import (
    ChildrenRequested,
    ClusterSizeSet,
    ControlRequest,
    Failure,
    Reply,
    StopReplica,
    StopRequested,
)
from raphub.core.model import ChildId, ChildPlan, NodeId, ReplicaId, Spread, replica_id
from raphub.core.placement import mapping_trouble
from raphub.core.quorum import MajorityRule
from raphub.core.records import (
    Answer,
    Child,
    ChildAdded,
    ChildRemoved,
    ClusterSized,
    Move,
    OpenRequest,
    RequestAnswered,
    RequestId,
    RequestOpened,
    RequestRolledBack,
    RequestTroubled,
    SizeAnswer,
    StartAnswer,
    StopAnswer,
    Trouble,
)
from raphub.core.views import is_complete

FIRST_DEATHS_MAX = 3
"""A child whose copies die so often before it ever was complete has failed to start."""


@dataclass(slots=True)
class Requests:
    """The requests that run or wait. Rebuilt from the ledger when a hub actor starts again.

    `drains` are the requests to empty a node, and when each began in this life. `first_starts` names
    the request whose child each id is, until that is answered; `interested`
    all requests that wait for news of an id, for a child may be stopped while its start runs.
    """

    state: HubState
    held_back: dict[str, dict[int, ControlRequest]] = field(default_factory=dict)
    held_back_count: int = 0
    first_starts: dict[ChildId, tuple[str, int]] = field(default_factory=dict)
    interested: dict[ChildId, dict[tuple[str, int], None]] = field(default_factory=dict)
    ended_jobs: dict[str, None] = field(default_factory=dict)
    drains: dict[tuple[str, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, opened in self.state.ledger.requests.items():
            if opened.move is not None:
                self._await_move(key, opened.move, self.state.began_at)
            elif not (opened.is_stop or opened.is_move):
                self.first_starts.update(dict.fromkeys(opened.child_ids, key))
                self._take_interest(key, opened.child_ids)

    def _take_interest(self, key: tuple[str, int], child_ids: Iterable[ChildId]) -> None:
        for child_id in child_ids:
            self.interested.setdefault(child_id, {})[key] = None

    # --- arrival ------------------------------------------------------------------------------

    def receive(self, event: ControlRequest, now: float) -> None:
        """Run the request if all earlier ones of its client were seen, else hold it back."""
        request = event.request
        ledger = self.state.ledger
        if request.key in ledger.answers:
            self.state.do(Reply(request, ledger.answers[request.key]))
            return
        if request.key in ledger.requests:
            return
        waiting = self.held_back.setdefault(request.client, {})
        if request.number not in waiting:
            if self.held_back_count >= self.state.settings.requests_waiting_max:
                self._refuse_busy(request)
                return
            waiting[request.number] = event
            self.held_back_count += 1
        self._run_waiting(request.client, now)

    def _run_waiting(self, client: str, now: float) -> None:
        waiting = self.held_back[client]
        for number in sorted(waiting):
            event = waiting[number]
            if any(
                not self._was_seen(client, n) for n in range(event.request.settled_below, number)
            ):
                break
            del waiting[number]
            self.held_back_count -= 1
            self._run(event, now)
        if not waiting:
            del self.held_back[client]

    def _was_seen(self, client: str, number: int) -> bool:
        ledger = self.state.ledger
        return (client, number) in ledger.answers or (client, number) in ledger.requests

    def _refuse_busy(self, request: RequestId) -> None:
        """Refused without a record: the client may send the same request again."""
        reason = "too many requests wait for earlier ones of their clients"
        self.state.do(Reply(request, StopAnswer((), (Trouble(ChildId(""), "busy", reason),))))

    def _run(self, event: ControlRequest, now: float) -> None:
        match event:
            case ChildrenRequested():
                self._run_start(event)
            case StopRequested():
                self._run_stop(event)
            case ClusterSizeSet():
                self._set_cluster_size(event)
            case _:
                self._run_move(event, now)
        self.progress(event.request.key, now)

    # --- start --------------------------------------------------------------------------------

    def _run_start(self, event: ChildrenRequested) -> None:
        state, request = self.state, event.request
        if not state.goes_on:
            self._refuse(request, [plan.child_id for plan in event.plans], rollback=event.rollback)
            return
        accepted: dict[ChildId, ChildPlan] = {}
        troubles: list[Trouble] = []
        for plan in event.plans:
            trouble = self._refusal(plan, accepted)
            if trouble is None:
                accepted[plan.child_id] = plan
            else:
                troubles.append(trouble)
        kinds = {trouble.kind for trouble in troubles}
        was_there = event.check_existing and "already_started" in kinds
        nothing_starts = was_there or "invalid_mapping" in kinds or (event.rollback and troubles)
        if nothing_starts:
            accepted = {}
        for child_id, plan in accepted.items():
            state.record(ChildAdded(plan, *state.ledger.beginning(child_id)))
            state.crashes.pop(child_id, None)
            self.first_starts[child_id] = request.key
            state.touch(child_id)
        self._take_interest(request.key, accepted)
        state.record(
            RequestOpened(
                request, tuple(accepted), troubles=tuple(troubles), rollback=event.rollback
            )
        )

    def _refusal(self, plan: ChildPlan, accepted: dict[ChildId, ChildPlan]) -> Trouble | None:
        state, child_id = self.state, plan.child_id
        if plan.job_id in self.ended_jobs:
            return Trouble(child_id, "start_failed", f"its job {plan.job_id} is over")
        if child_id in state.ledger.children:
            return Trouble(child_id, "already_started", f"the child {child_id!r} runs already")
        if child_id in accepted:
            return Trouble(child_id, "duplicate", f"{child_id!r} stands twice in one request")
        if state.is_guided:
            settings, nodes = state.settings, list(state.nodes.values())
            reason = mapping_trouble(settings.distribution, plan, nodes, settings.label_selector)
            if reason:
                return Trouble(child_id, "invalid_mapping", reason)
        unstarted = Child(plan, 0, 0)
        places = state.places(unstarted)
        needed = plan.factor if plan.spread is Spread.STRICT and plan.factor else 1
        if places < needed and has_strict_zones(unstarted):
            text = f"{needed} zones (label {plan.zone_label!r}) are needed, there are {places}"
            return Trouble(child_id, "not_enough_nodes", text)
        if places < needed:
            reason = f"{needed} usable nodes are needed, there are {places} of {len(state.nodes)}"
            return Trouble(child_id, "not_enough_nodes", reason)
        return None

    def fail_copy(
        self, child: Child, failure: Failure, reason: str, node_id: NodeId, now: float
    ) -> bool:
        """A copy did not come up. True if that ends the start of its child, which is removed."""
        child_id = child.plan.child_id
        key = self.first_starts.get(child_id)
        if key is None or child.is_open or child.is_lost:
            return False
        deaths = self.state.crashes_of(child_id).count
        if failure is not Failure.CONSTRUCTOR and deaths < FIRST_DEATHS_MAX:
            return False
        opened = self.state.ledger.requests[key]
        awaited = self.remove(child_id)
        trouble = Trouble(child_id, "start_failed", reason, node_id)
        self.state.record(RequestTroubled(opened.request, trouble, awaited))
        self.state.note("start_failed", reason, child_id, node_id=node_id)
        self.progress(key, now)
        return True

    # --- partitions ---------------------------------------------------------------------------

    def _refuse(
        self,
        request: RequestId,
        child_ids: Iterable[ChildId],
        *,
        is_stop: bool = False,
        rollback: bool = False,
    ) -> None:
        """A partitioned hub starts and stops nothing; only its own end is always possible."""
        why = self.state.standstill or ""
        troubles = tuple(Trouble(c, "no_quorum", why) for c in dict.fromkeys(child_ids))
        self.state.record(
            RequestOpened(request, (), troubles=troubles, is_stop=is_stop, rollback=rollback)
        )

    def _set_cluster_size(self, event: ClusterSizeSet) -> None:
        """The user knows how large the cluster is; what was remembered of it is forgotten."""
        has_size = isinstance(self.state.settings.partition_tolerance, MajorityRule)
        answer = SizeAnswer(event.size if has_size else None)
        if has_size:
            self.state.record(ClusterSized(event.size))
            self.state.note("cluster_size_set", f"{event.size} nodes are the whole cluster now")
        self.state.record(RequestAnswered(event.request, answer))
        self.state.do(Reply(event.request, answer))

    # --- stop ---------------------------------------------------------------------------------

    def _run_stop(self, event: StopRequested) -> None:
        state = self.state
        if not state.goes_on and event.child_ids is not None:
            self._refuse(event.request, event.child_ids, is_stop=True)
            return
        asked = list(state.ledger.children) if event.child_ids is None else event.child_ids
        known = tuple(dict.fromkeys(c for c in asked if c in state.ledger.children))
        troubles = tuple(
            Trouble(child_id, "not_found", f"there is no child {child_id!r}")
            for child_id in dict.fromkeys(asked)
            if child_id not in known
        )
        awaited = [replica for child_id in known for replica in self.remove(child_id)]
        if event.child_ids is None:
            awaited = sorted(state.ledger.retired)
        state.record(RequestOpened(event.request, known, tuple(awaited), troubles, is_stop=True))

    def _run_move(self, event: moves.MoveRequest, now: float) -> None:
        move, troubles = moves.begin(self.state, event, now)
        request = event.request
        child_ids = () if move is None or move.child_id is None else (move.child_id,)
        opened = RequestOpened(
            request, child_ids, troubles=tuple(troubles), is_move=True, move=move
        )
        self.state.record(opened)
        if move is not None:
            self._await_move(request.key, move, now)

    def _await_move(self, key: tuple[str, int], move: Move, now: float) -> None:
        if move.child_id is None:
            self.drains[key] = now
        else:
            self._take_interest(key, (move.child_id,))

    def pass_time(self, now: float) -> None:
        """Nodes that are being emptied may be empty by now, or out of time."""
        for key in list(self.drains):
            self.progress(key, now)

    def end_jobs(self, job_ids: tuple[str, ...]) -> None:
        """End all children of these jobs, and start none for them that was asked for too late."""
        self.ended_jobs.update(dict.fromkeys(job_ids))
        while len(self.ended_jobs) > self.state.settings.tombstones_max:
            del self.ended_jobs[next(iter(self.ended_jobs))]
        for child_id, child in list(self.state.ledger.children.items()):
            if child.plan.job_id in job_ids:
                self.remove(child_id)

    def remove(self, child_id: ChildId) -> tuple[ReplicaId, ...]:
        """End the child. Returns its copies, which are on their way out."""
        state = self.state
        child = state.ledger.children[child_id]
        placed_on = {replica_id(child_id, p.number): p.node_id for p in child.replicas.values()}
        self.first_starts.pop(child_id, None)
        state.record(ChildRemoved(child_id))
        for replica, node_id in placed_on.items():
            state.forget_copy(replica, node_id)
            state.do(StopReplica(replica))
        state.crashes.pop(child_id, None)
        state.short.discard(child_id)
        state.queued.pop(child_id, None)
        state.publish(child_id)
        state.note("child_removed", f"{child_id} is stopped", child_id)
        state.touch(child_id)
        return tuple(placed_on)

    # --- answers ------------------------------------------------------------------------------

    def settled(self, child_id: ChildId, now: float) -> None:
        """The child was settled: perhaps a request can be answered."""
        for key in list(self.interested.get(child_id, ())):
            self.progress(key, now)

    def progress_all(self, now: float) -> None:
        """Copies have ended: perhaps requests that wait for their end can be answered."""
        for key, opened in list(self.state.ledger.requests.items()):
            if not opened.awaited:
                self.progress(key, now)

    def progress(self, key: tuple[str, int], now: float) -> None:
        """Bring the request as far as it can go; answer it when it is complete."""
        opened = self.state.ledger.requests.get(key)
        if opened is None:
            return
        if opened.rollback and opened.troubles and not opened.rolled_back:
            self._roll_back(opened)
        if opened.awaited:
            return
        if opened.is_move:
            answered = moves.answer(self.state, opened, self.drains.get(key, now), now)
            if answered is not None:
                self.drains.pop(key, None)
                self._answer(opened, answered)
        elif opened.is_stop:
            self._answer(opened, StopAnswer(opened.child_ids, tuple(opened.troubles)))
        elif opened.rolled_back or all(self._is_done(opened, c, now) for c in opened.child_ids):
            self._answer(opened, self._start_answer(opened, now))

    def _is_done(self, opened: OpenRequest, child_id: ChildId, now: float) -> bool:
        child = self.state.ledger.children.get(child_id)
        is_ours = self.first_starts.get(child_id) == opened.request.key
        return child is None or not is_ours or is_complete(self.state, child, now)

    def _roll_back(self, opened: OpenRequest) -> None:
        awaited: list[ReplicaId] = []
        for child_id in opened.child_ids:
            if self.first_starts.get(child_id) == opened.request.key:
                awaited += self.remove(child_id)
        self.state.record(RequestRolledBack(opened.request, tuple(awaited)))

    def _start_answer(self, opened: OpenRequest, now: float) -> StartAnswer:
        state = self.state
        troubled = {trouble.child_id for trouble in opened.troubles}
        troubles = list(opened.troubles)
        started: dict[ChildId, tuple[ReplicaId, ...]] = {}
        for child_id in opened.child_ids:
            child = state.ledger.children.get(child_id)
            if child is not None and self.first_starts.get(child_id) == opened.request.key:
                started[child_id] = tuple(
                    replica_id(child_id, placed.number) for placed, _ in state.counted(child, now)
                )
            elif child_id not in troubled and not opened.rolled_back:
                reason = "stopped before its start was complete"
                troubles.append(Trouble(child_id, "start_failed", reason))
        return StartAnswer(started, tuple(troubles), opened.rolled_back)

    def _answer(self, opened: OpenRequest, answer: Answer) -> None:
        for child_id in opened.child_ids:
            if self.first_starts.get(child_id) == opened.request.key:
                del self.first_starts[child_id]
            waiting = self.interested.get(child_id, {})
            waiting.pop(opened.request.key, None)
            if not waiting:
                self.interested.pop(child_id, None)
        self.state.record(RequestAnswered(opened.request, answer))
        self.state.do(Reply(opened.request, answer))
