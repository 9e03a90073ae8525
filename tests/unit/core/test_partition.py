"""What does a partitioned hub do, and what not? Short stories of one hub with four nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raphub.core.hub_machine import HubMachine
from raphub.core.messages import (
    ChildrenRequested,
    ClusterSizeSet,
    FromReplica,
    HubAction,
    HubEvent,
    LeaseGranted,
    NodesSeen,
    Note,
    ProcessGone,
    PublishCluster,
    Record,
    Recovered,
    Renew,
    ReplicaLocated,
    Reply,
    Report,
    RoleTaken,
    SendToReplica,
    SetWanted,
    StartReplica,
    StopRequested,
    TakeRole,
    TermHeld,
    Ticked,
)
from raphub.core.model import (
    ChildId,
    ChildPlan,
    Health,
    HubSettings,
    Model,
    Node,
    NodeId,
    Phase,
    Role,
    State,
    replica_id,
)
from raphub.core.quorum import MajorityRule, Rule, StaticRule
from raphub.core.records import (
    ClusterSized,
    InSyncChanged,
    Ledger,
    ReplicaPlaced,
    ReplicaPromoted,
    RequestId,
    SizeAnswer,
    StartAnswer,
    StopAnswer,
    Trouble,
)

CHILD = ChildId("c")
PLAN = ChildPlan(CHILD, factor=2)
NODES = tuple(Node(NodeId(f"n{n}"), f"n{n}", resources={"CPU": 8.0}) for n in range(4))


class Hub:
    """A hub, and what its copies and nodes are said to be."""

    def __init__(self, rule: Rule, ledger: Ledger | None = None, nodes: int = 4) -> None:
        self.now, self.number = 0.0, 0
        self.actions: list[HubAction] = []
        settings = HubSettings(partition_tolerance=rule)
        ledger = ledger or Ledger()
        self.machine = HubMachine(settings, ledger, ledger.term + 1, 0.0)
        self.tell(NodesSeen(NODES[:nodes]), Recovered(), TermHeld(0.0))

    def tell(self, *events: HubEvent) -> list[HubAction]:
        told = [action for event in events for action in self.machine.handle(event, self.now)]
        self.actions += told
        return told

    def request(self) -> RequestId:
        self.number += 1
        return RequestId("me", self.number)

    def start(self, plan: ChildPlan = PLAN) -> list[HubAction]:
        return self.tell(ChildrenRequested(self.request(), (plan,)))

    def up(self, *numbers: int) -> None:
        """The copies are ready, and take the roles that they are told."""
        for number in numbers:
            replica = replica_id(CHILD, number)
            self.tell(ReplicaLocated(replica, ("host", number), number))
            self.actions.clear()
            self.say(number, Report(Phase.READY, None, 0, number))
            for order in [a for a in self.actions if isinstance(a, SendToReplica)]:
                if isinstance(order.message, TakeRole):
                    taken = RoleTaken(order.message.role, order.message.epoch)
                    self.tell(FromReplica(order.replica, taken))

    def say(self, number: int, message: object) -> list[HubAction]:
        return self.tell(FromReplica(replica_id(CHILD, number), message))  # type: ignore[arg-type]

    def is_granted(self, number: int, epoch: int = 1) -> bool:
        self.tell(TermHeld(self.now))
        asked = self.say(number, Renew(epoch, self.now))
        return SendToReplica(replica_id(CHILD, number), LeaseGranted(epoch, self.now)) in asked

    def see(self, nodes: int) -> list[HubAction]:
        """Ray's table shows so many nodes; what is doubted is believed later."""
        seen = self.tell(NodesSeen(NODES[:nodes]))
        self.now += 5.0
        return [*seen, *self.tell(TermHeld(self.now), Ticked())]

    def health(self) -> tuple[Health, str]:
        view = self.machine.view(CHILD, self.now)
        assert view is not None
        return view.health, view.reason


def notes(actions: list[HubAction]) -> list[str]:
    return [action.kind for action in actions if isinstance(action, Note)]


def facts(actions: list[HubAction]) -> list[object]:
    return [fact for action in actions if isinstance(action, Record) for fact in action.facts]


def reply(actions: list[HubAction]) -> object:
    [answer] = [action.answer for action in actions if isinstance(action, Reply)]
    return answer


@pytest.fixture
def hub() -> Hub:
    """Four nodes, all wanted; one child with two copies that are up."""
    made = Hub(StaticRule(4))
    made.start()
    made.up(1, 2)
    assert made.is_granted(1)
    return made


def test_without_a_rule_nothing_is_counted() -> None:
    machine = HubMachine(HubSettings(), Ledger(), 1, 0.0)
    machine.handle(NodesSeen(NODES[:1]), 0.0)
    actions = machine.handle(Recovered(), 0.0)
    assert machine.state.goes_on
    assert (facts(actions), notes(actions)) == ([], [])


def test_a_partitioned_hub_grants_nothing_and_the_same_epoch_goes_on_when_nodes_are_back(
    hub: Hub,
) -> None:
    told = hub.see(3)
    assert "partitioned" in notes(told)
    assert PublishCluster() in told
    assert not hub.is_granted(1)
    assert hub.health() == (Health.NO_ACTIVE, "partitioned: 3 of 4 nodes")
    told = hub.see(4)
    assert notes(told).count("quorum_regained") == 1
    assert hub.is_granted(1, epoch=1)
    assert hub.machine.ledger.children[CHILD].active == 1


def test_fewer_and_fewer_nodes_are_told_and_regain_nothing(hub: Hub) -> None:
    hub.see(3)
    told = hub.see(2)
    assert hub.health()[1] == "partitioned: 2 of 4 nodes"
    assert not {"partitioned", "quorum_regained"} & set(notes(told))


def test_a_partitioned_hub_promotes_and_places_nothing_until_nodes_are_back(hub: Hub) -> None:
    hub.see(3)
    hub.actions.clear()
    hub.tell(ProcessGone(replica_id(CHILD, 1)))
    hub.now += 20.0
    hub.tell(TermHeld(hub.now), Ticked())
    kinds = {type(fact) for fact in facts(hub.actions)}
    assert not kinds & {ReplicaPromoted, ReplicaPlaced}
    hub.say(2, Report(Phase.READY, Role.PASSIVE, 1, 2))
    told = hub.see(4)
    assert ReplicaPromoted(CHILD, 2, 2) in facts(told)
    assert any(isinstance(fact, ReplicaPlaced) for fact in facts(told))


def test_a_partitioned_hub_keeps_the_set_as_it_is() -> None:
    hub = Hub(StaticRule(4))
    hub.start(replace(PLAN, state=State.SNAPSHOT))
    hub.up(1)
    hub.see(3)
    child = hub.machine.ledger.children[CHILD]
    members = (replica_id(CHILD, 1), replica_id(CHILD, 2))
    wish = SetWanted(child.epoch, child.set_version, members)
    assert not any(isinstance(fact, InSyncChanged) for fact in facts(hub.say(1, wish)))
    hub.see(4)
    assert InSyncChanged(CHILD, (1, 2)) in facts(hub.say(1, wish))


def test_a_doubted_loss_is_none_yet(hub: Hub) -> None:
    hub.tell(NodesSeen(NODES[:1]))
    assert hub.machine.state.goes_on
    assert hub.is_granted(1)
    for _ in range(8):
        hub.now += 0.5
        hub.tell(Ticked())
    assert not hub.machine.state.goes_on


def test_where_all_serve_each_copy_that_counts_has_a_lease_until_the_hub_is_partitioned() -> None:
    hub = Hub(StaticRule(4))
    hub.start(replace(PLAN, model=Model.ACTIVE_ACTIVE))
    hub.up(1, 2)
    assert hub.is_granted(1)
    assert hub.is_granted(2)
    hub.see(3)
    assert not hub.is_granted(1)
    assert not hub.is_granted(2)


def test_starts_and_stops_are_refused_and_recorded_as_refused(hub: Hub) -> None:
    hub.see(3)
    why = "partitioned: 3 of 4 nodes"
    other = replace(PLAN, child_id=ChildId("d"))
    started = reply(hub.start(other))
    assert started == StartAnswer({}, (Trouble(ChildId("d"), "no_quorum", why),))
    stopped = reply(hub.tell(StopRequested(hub.request(), (CHILD,))))
    assert stopped == StopAnswer((), (Trouble(CHILD, "no_quorum", why),))
    assert list(hub.machine.ledger.children) == [CHILD]
    hub.see(4)
    again = hub.tell(ChildrenRequested(RequestId("me", hub.number - 1), (other,)))
    assert reply(again) == started


def test_the_end_of_the_whole_hub_is_never_refused(hub: Hub) -> None:
    hub.see(3)
    hub.tell(StopRequested(hub.request(), None))
    assert not hub.machine.ledger.children


def test_what_an_earlier_life_has_placed_is_started_when_nodes_are_back() -> None:
    earlier = Hub(StaticRule(4))
    earlier.start()
    hub = Hub(StaticRule(4), ledger=earlier.machine.ledger, nodes=3)
    assert not any(isinstance(action, StartReplica) for action in hub.actions)
    started = [action.replica for action in hub.see(4) if isinstance(action, StartReplica)]
    assert started == ["c#1", "c#2"]


def test_the_size_of_the_cluster_outlives_the_hub_actor() -> None:
    earlier = Hub(MajorityRule(1))
    assert ClusterSized(4) in facts(earlier.actions)
    hub = Hub(MajorityRule(1), ledger=earlier.machine.ledger, nodes=2)
    assert hub.machine.state.standstill == "partitioned: 2 of 4 nodes"


def test_a_smaller_cluster_size_is_recorded_with_its_answer_and_lets_the_hub_go_on() -> None:
    hub = Hub(MajorityRule(1))
    hub.see(2)
    assert not hub.machine.state.goes_on
    told = hub.tell(ClusterSizeSet(hub.request(), 3))
    assert ClusterSized(3) in facts(told)
    assert reply(told) == SizeAnswer(3)
    assert hub.machine.state.goes_on
    assert reply(hub.tell(ClusterSizeSet(RequestId("me", hub.number), 9))) == SizeAnswer(3)


def test_a_cluster_size_means_nothing_to_another_rule(hub: Hub) -> None:
    told = hub.tell(ClusterSizeSet(hub.request(), 1))
    assert reply(told) == SizeAnswer(None)
    assert hub.machine.ledger.cluster_size == 4
