"""A hub whose copies come up, take their roles and end as soon as they are told to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from raphub.core.hub_machine import HubMachine
from raphub.core.messages import (
    ChildrenRequested,
    ControlRequest,
    FromReplica,
    HubAction,
    HubEvent,
    NodesSeen,
    Note,
    ProcessGone,
    Recovered,
    ReplicaLocated,
    ReplicaStopped,
    Reply,
    Report,
    RoleTaken,
    SendToReplica,
    StartReplica,
    StepDown,
    SteppedDown,
    StopReplica,
    TakeRole,
    TermHeld,
    Ticked,
)
from raphub.core.model import (
    ChildId,
    ChildPlan,
    Distribution,
    Health,
    HubSettings,
    Node,
    NodeId,
    Phase,
    replica_id,
)
from raphub.core.placement import Custom
from raphub.core.records import Answer, Ledger, RequestId, StartAnswer

CHILD = ChildId("c")


class Hub:
    """A hub whose copies come up, take their roles and end as soon as they are told to."""

    def __init__(
        self,
        nodes: Iterable[Node],
        distribution: Distribution | None = None,
        label_selector: dict[str, str] | None = None,
        custom: Custom | None = None,
    ) -> None:
        self.now = 0.0
        self.notes: list[Note] = []
        self.replies: list[Answer] = []
        self.requests = 0
        self.cpus: Mapping[NodeId, float] = {}
        settings = HubSettings(
            distribution=distribution or Distribution(),
            label_selector=label_selector or {},
            replicas_starting_max=1000,
        )
        self.machine = HubMachine(settings, Ledger(), 1, 0.0, custom)
        self.nodes = list(nodes)
        self.tell(NodesSeen(tuple(self.nodes)), Recovered(), TermHeld(0.0))

    def tell(self, *events: HubEvent) -> None:
        waiting = list(events)
        while waiting:
            for action in self.machine.handle(waiting.pop(0), self.now):
                waiting += self._outcome(action)

    def _outcome(self, action: HubAction) -> list[HubEvent]:
        match action:
            case StartReplica(replica, node_id, _):
                return [
                    ReplicaLocated(replica, (node_id, 1), 7),
                    FromReplica(replica, Report(Phase.READY, None, 0, 7)),
                ]
            case SendToReplica(replica, TakeRole(role, epoch, _)):
                return [FromReplica(replica, RoleTaken(role, epoch))]
            case SendToReplica(replica, StepDown(epoch)):
                return [FromReplica(replica, SteppedDown(epoch))]
            case StopReplica(replica):
                return [ReplicaStopped(replica)]
            case Note():
                self.notes.append(action)
            case Reply(_, answer):
                self.replies.append(answer)
        return []

    def request(self) -> RequestId:
        self.requests += 1
        return RequestId("client", self.requests)

    def ask(self, request: ControlRequest) -> Answer | None:
        """The answer, if there is one at once."""
        before = len(self.replies)
        self.tell(request)
        return self.replies[-1] if len(self.replies) > before else None

    def start(self, *plans: ChildPlan, check_existing: bool = True) -> StartAnswer | None:
        answer = self.ask(ChildrenRequested(self.request(), plans, check_existing=check_existing))
        assert answer is None or isinstance(answer, StartAnswer)
        return answer

    def see(self, *nodes: Node) -> None:
        """Ray's table is this now; whatever was on other nodes is gone."""
        gone = {node.node_id for node in self.nodes} - {node.node_id for node in nodes}
        self.nodes = list(nodes)
        lost = [
            replica_id(child_id, placed.number)
            for child_id, child in self.machine.ledger.children.items()
            for placed in child.replicas.values()
            if placed.node_id in gone
        ]
        self.tell(NodesSeen(nodes), *(ProcessGone(replica) for replica in lost))
        self.wait(60.0)

    def wait(self, for_s: float) -> None:
        ends_at = self.now + for_s
        while self.now < ends_at:
            self.now += 0.5
            for child_id, child in self.machine.ledger.children.items():
                for number in list(child.replicas):
                    seen = self.machine.state.sightings[replica_id(child_id, number)]
                    report = Report(Phase.READY, seen.role, seen.epoch, 7)
                    self.tell(FromReplica(replica_id(child_id, number), report))
            self.tell(TermHeld(self.now), Ticked())

    def on(self, child_id: ChildId = CHILD) -> list[str]:
        """The nodes of the child's copies, in the order of their numbers."""
        replicas = self.machine.ledger.children[child_id].replicas
        return [replicas[number].node_id for number in sorted(replicas)]

    def health(self) -> tuple[Health, str]:
        view = self.machine.view(CHILD, self.now)
        assert view is not None
        return view.health, view.reason


def nodes(*names: str, **labels: str) -> list[Node]:
    return [Node(NodeId(name), f"ip-{name}", labels, {"CPU": 4.0}) for name in names]
