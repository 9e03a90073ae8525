"""Who uses the hub in the simulated world?

Callers follow their pushed view, which may be old. Requesters start and stop children, send the
same request again while it is not answered, and let later ones overtake earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raphub.core import calls
from raphub.core.calls import Attempt, News, Next, Outcome
from raphub.core.messages import (
    CallEnded,
    ChildrenRequested,
    ClusterSizeSet,
    ControlRequest,
    DrainRequested,
    MigrationRequested,
    PauseRequested,
    StopRequested,
    SwitchoverRequested,
)
from raphub.core.model import ChildId, ChildPlan, NodeId, ReplicaId
from raphub.core.records import Answer, RequestId
from raphub.core.replication import Admission, Call
from raphub.core.views import ChildView
from tests.simulation.checkers import Checkers, LawBrokenError
from tests.simulation.cluster import Cluster, Process
from tests.simulation.world import CLIENTS, World

CALL_EVERY_S = 0.25

ADMISSION_WAIT_S = 1.0


@dataclass
class Caller:
    """Calls one child after the other, always the copy that its view names."""

    world: World
    cluster: Cluster
    checkers: Checkers
    view: dict[str, ChildView] = field(default_factory=dict)

    def told(self, child_id: str, view: ChildView | None) -> None:
        """The registry was pushed."""
        if view is None:
            self.view.pop(child_id, None)
        elif child_id not in self.view or view.epoch >= self.view[child_id].epoch:
            self.view[child_id] = view

    def keep_calling(self) -> None:
        """Make a call now, and more later."""
        for child_id, view in self.view.items():
            if view.active is not None:
                self._send(ChildId(child_id), Attempt(view.active, view.epoch))
        self.world.at(self.world.chance.uniform(0.5, 1.5) * CALL_EVERY_S, self.keep_calling)

    def _send(self, child_id: ChildId, attempt: Attempt) -> None:
        process = self.cluster.processes.get(ReplicaId(attempt.replica))
        if process is not None:
            self.world.carry(
                CLIENTS, process.node.name, lambda: self._arrive(child_id, process, attempt, 0.0)
            )

    def _arrive(
        self, child_id: ChildId, process: Process, attempt: Attempt, waited_s: float
    ) -> None:
        if not process.is_alive:
            self._conclude(child_id, Outcome.DIED, attempt)
            return
        if not process.runs:
            self.world.at(0.5, lambda: self._arrive(child_id, process, attempt, waited_s))
            return
        call = Call("caller", 0, attempt.epoch)
        verdict, _ = process.machine.admit_call(call, process.own_now())
        self.checkers.after_replica(process)
        if verdict is Admission.SERVE:
            epoch = process.machine.epoch
            takes_s = self.world.chance.choice((0.0, 0.0, 0.005, 0.5))
            self.world.at(takes_s, lambda: self._answer(child_id, process, attempt, epoch))
        elif verdict is Admission.WAIT and waited_s < ADMISSION_WAIT_S:
            again_s = waited_s + 0.05
            self.world.at(0.05, lambda: self._arrive(child_id, process, attempt, again_s))
        else:
            self._conclude(child_id, Outcome.REFUSED, attempt)

    def _answer(self, child_id: ChildId, process: Process, attempt: Attempt, epoch: int) -> None:
        if not process.runs:
            if process.is_alive:
                self.world.at(0.5, lambda: self._answer(child_id, process, attempt, epoch))
            return
        if process.machine.may_answer(epoch, process.own_now()):
            self.checkers.acknowledges(process, epoch)
        else:
            self._conclude(child_id, Outcome.WITHHELD, attempt)
        process.handle(CallEnded())

    def _conclude(self, child_id: ChildId, outcome: Outcome, attempt: Attempt) -> None:
        view = self.view.get(child_id)
        if view is None:
            return
        is_listed = any(copy.replica == attempt.replica for copy in view.replicas)
        news = News(view.active, view.epoch, is_listed)
        match calls.after(outcome, attempt, news, may_retry=True):
            case Next.RESEND:
                assert news.active is not None
                died = outcome is not Outcome.REFUSED
                self._send(child_id, Attempt(news.active, news.epoch, attempt.deaths + died))
            case Next.FAIL_KILLED_REPLICA:
                self.world.totals["given up after two deaths"] += 1
            case _:
                self.world.totals["calls without news"] += 1


@dataclass
class Requester:
    """One process that starts and stops children."""

    world: World
    cluster: Cluster
    name: str
    number: int = 0
    unanswered: dict[int, ControlRequest] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)

    def start(self, *plans: ChildPlan, rollback: bool = False) -> None:
        """Ask for children."""
        self._ask(ChildrenRequested(self._next(), plans, check_existing=False, rollback=rollback))

    def stop(self, child_id: str) -> None:
        """Ask for the end of a child."""
        self._ask(StopRequested(self._next(), (ChildId(child_id),)))

    def switch(self, child_id: ChildId, node_id: NodeId | None) -> None:
        """Ask for another active."""
        self._ask(SwitchoverRequested(self._next(), child_id, node_id))

    def migrate(self, replica: ReplicaId, node_id: NodeId | None) -> None:
        """Ask for a copy to be elsewhere."""
        self._ask(MigrationRequested(self._next(), replica, node_id))

    def drain(self, node_id: NodeId, deadline_s: float, *, is_undone: bool = False) -> None:
        """Ask for a node to be emptied, or to be used again."""
        self._ask(DrainRequested(self._next(), node_id, deadline_s, is_undone))

    def pause(self, *, is_paused: bool) -> None:
        """Ask the hub to do nothing by itself, or to do so again."""
        self._ask(PauseRequested(self._next(), is_paused))

    def set_cluster_size(self, size: int) -> None:
        """Say how large the whole cluster is."""
        self._ask(ClusterSizeSet(self._next(), size))

    def answered(self, request: RequestId, answer: Answer) -> None:
        """An answer has come; every further one must be the same."""
        if request.client != self.name:
            return
        known = self.answers.setdefault(request.number, answer)
        if known != answer:
            raise LawBrokenError("3", f"{request}: {known} became {answer}")
        self.unanswered.pop(request.number, None)

    def _next(self) -> RequestId:
        self.number += 1
        return RequestId(self.name, self.number, min([*self.unanswered, self.number]))

    def _ask(self, event: ControlRequest) -> None:
        self.unanswered[event.request.number] = event
        self._send(event)

    def _send(self, event: ControlRequest) -> None:
        """Send it, twice now and then, and again for as long as there is no answer."""
        if event.request.number not in self.unanswered:
            return
        for _ in range(2 if self.world.likely(0.2) else 1):
            self.world.at(self.world.chance.uniform(0, 0.3), lambda: self._deliver(event))
        self.world.at(self.world.chance.uniform(2, 4), lambda: self._send(event))

    def _deliver(self, event: ControlRequest) -> None:
        for life in self.cluster.lives[-1:]:
            life.report(event)
