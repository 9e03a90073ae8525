"""Which copies of a child hold its state? Told as short stories of one hub with one child."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raphub.core.hub_machine import HubMachine
from raphub.core.log import START, Position
from raphub.core.messages import (
    ChildrenRequested,
    Diverged,
    Failure,
    FromReplica,
    HubAction,
    HubEvent,
    NodesSeen,
    Note,
    ProcessGone,
    Record,
    Recovered,
    ReplicaFailed,
    ReplicaLocated,
    ReplicaMessage,
    Report,
    RoleTaken,
    Roster,
    SendToReplica,
    SetWanted,
    ShipmentSlow,
    StartReplica,
    SteppedDown,
    StopReplica,
    TakeRole,
    TellPosition,
    TermHeld,
    Ticked,
    WritesLost,
)
from raphub.core.model import (
    ChildId,
    ChildPlan,
    Health,
    HubSettings,
    Node,
    NodeId,
    OnDataLoss,
    Phase,
    Role,
    State,
    replica_id,
)
from raphub.core.records import (
    ChildOpened,
    DataLost,
    InSyncChanged,
    Ledger,
    ReplicaPromoted,
    ReplicaRetired,
    RequestId,
)

CHILD = ChildId("c")
PLAN = ChildPlan(CHILD, factor=3, state=State.SNAPSHOT, start_grace_s=10.0)


class Hub:
    """A hub with four nodes. Its copies say what the story has them say."""

    def __init__(self, plan: ChildPlan = PLAN, *others: ChildPlan) -> None:
        self.now = 0.0
        self.actions: list[HubAction] = []
        self.machine = HubMachine(HubSettings(), Ledger(), 1, 0.0)
        nodes = tuple(Node(NodeId(f"n{n}"), f"n{n}", resources={"CPU": 8.0}) for n in range(4))
        self.nodes = nodes
        self.tell(NodesSeen(nodes), Recovered(), TermHeld(0.0))
        self.tell(ChildrenRequested(RequestId("client", 1), (plan, *others)))

    @property
    def child(self) -> object:
        return self.machine.ledger.children[CHILD]

    @property
    def in_sync(self) -> tuple[int, ...]:
        return self.machine.ledger.children[CHILD].in_sync

    def tell(self, *events: HubEvent) -> None:
        for event in events:
            self.actions += self.machine.handle(event, self.now)

    def wait(self, for_s: float, *speaking: int) -> None:
        """Time passes; these copies go on saying what they are."""
        ends_at = self.now + for_s
        while self.now < ends_at:
            self.now += 0.25
            for number in speaking:
                self.say(number, self.reports[number])
            self.tell(TermHeld(self.now), Ticked())

    reports: dict[int, Report] = {}  # noqa: RUF012 - replaced in each hub by the first report

    def say(self, number: int, message: ReplicaMessage) -> None:
        if isinstance(message, Report):
            self.reports = {**self.reports, number: message}
        self.tell(FromReplica(replica_id(CHILD, number), message))

    def up(self, *numbers: int, phase: Phase = Phase.READY, tail: Position = START) -> None:
        """The copies listen and say what they are."""
        for number in numbers:
            placed = self.machine.ledger.children[CHILD].replicas[number]
            self.tell(ReplicaLocated(replica_id(CHILD, number), (placed.node_id, 1), number))
            self.say(number, Report(phase, None, 0, number, tail=tail))

    def serve(self, number: int, tail: Position = START) -> None:
        """The copy has taken the role of the active."""
        epoch = self.machine.ledger.children[CHILD].epoch
        self.say(number, Report(Phase.READY, Role.ACTIVE, epoch, number, tail=tail))
        self.say(number, RoleTaken(Role.ACTIVE, epoch))

    def wish(self, number: int, *members: int, version: int | None = None, epoch: int = 0) -> None:
        child = self.machine.ledger.children[CHILD]
        wanted = tuple(replica_id(CHILD, member) for member in members)
        known = child.set_version if version is None else version
        self.say(number, SetWanted(epoch or child.epoch, known, wanted))

    def facts(self, kind: type) -> list[object]:
        records = [action for action in self.actions if isinstance(action, Record)]
        return [fact for record in records for fact in record.facts if isinstance(fact, kind)]

    def notes(self, kind: str) -> list[Note]:
        return [a for a in self.actions if isinstance(a, Note) and a.kind == kind]

    def sent(self, kind: type) -> list[tuple[str, object]]:
        sent = [action for action in self.actions if isinstance(action, SendToReplica)]
        return [(a.replica, a.message) for a in sent if isinstance(a.message, kind)]

    def health(self) -> Health:
        view = self.machine.view(CHILD, self.now)
        assert view is not None
        return view.health


def whole(plan: ChildPlan = PLAN) -> Hub:
    """All three copies hold the state, c#1 serves, writes are answered."""
    hub = Hub(plan)
    hub.up(1, phase=Phase.BUILDING)
    hub.serve(1)
    hub.up(2, 3)
    hub.wish(1, 1, 2, 3)
    assert hub.machine.ledger.children[CHILD].is_open
    hub.actions.clear()
    return hub


# --- beginning and opening ------------------------------------------------------------------------


def test_the_first_copy_whose_object_is_built_becomes_the_active_and_its_set() -> None:
    hub = Hub()
    hub.up(2, phase=Phase.BUILDING)
    assert hub.facts(ReplicaPromoted) == [ReplicaPromoted(CHILD, 2, 1, (2,))]
    [(replica, order)] = hub.sent(TakeRole)
    assert replica == "c#2"
    assert isinstance(order, TakeRole)
    assert order.roster is not None
    assert (order.roster.members, order.roster.is_open) == (("c#2",), False)


def test_writes_are_let_in_once_enough_copies_are_in_sync() -> None:
    hub = Hub()
    hub.up(1, phase=Phase.BUILDING)
    hub.serve(1)
    hub.up(2, 3)
    hub.wish(1, 1, 2)
    assert hub.facts(ChildOpened) == []
    hub.wish(1, 1, 2, 3)
    assert hub.facts(ChildOpened) == [ChildOpened(CHILD)]
    assert hub.notes("opened_degraded") == []


def test_after_the_grace_writes_are_let_in_with_fewer_copies_and_an_event_says_so() -> None:
    hub = Hub()
    hub.up(1, phase=Phase.BUILDING)
    hub.serve(1)
    hub.wait(9.0, 1)
    assert hub.facts(ChildOpened) == []
    hub.wait(2.0, 1)
    assert hub.facts(ChildOpened) == [ChildOpened(CHILD)]
    [note] = hub.notes("opened_degraded")
    assert "1 of 3" in note.text


def test_nothing_is_let_in_before_the_active_has_begun() -> None:
    hub = Hub()
    hub.up(1, phase=Phase.BUILDING)
    hub.wait(12.0, 1)
    assert hub.facts(ChildOpened) == []
    hub.serve(1)
    assert hub.facts(ChildOpened) == [ChildOpened(CHILD)]


def test_before_it_is_open_any_copy_may_begin_the_child() -> None:
    hub = Hub()
    hub.up(1, 2, phase=Phase.BUILDING)
    hub.serve(1)
    hub.tell(ProcessGone(replica_id(CHILD, 1)))
    assert hub.facts(ReplicaPromoted)[-1] == ReplicaPromoted(CHILD, 2, 2, (2,))


# --- the set --------------------------------------------------------------------------------------


def test_a_wish_is_granted_and_the_active_told() -> None:
    hub = whole()
    hub.wish(1, 1, 3)
    assert hub.facts(InSyncChanged) == [InSyncChanged(CHILD, (1, 3))]
    assert [note.replica for note in hub.notes("out_of_sync")] == ["c#2"]
    told = [message for _, message in hub.sent(Roster)]
    assert isinstance(told[-1], Roster)
    assert told[-1].members == ("c#1", "c#3")
    hub.wish(1, 1, 3, 2)
    assert hub.notes("in_sync")[-1].replica == "c#2"


def test_a_wish_from_before_the_last_change_is_not_granted_but_answered() -> None:
    hub = whole()
    version = hub.machine.ledger.children[CHILD].set_version
    hub.wish(1, 1, version=version - 1)
    assert hub.in_sync == (1, 2, 3)
    assert hub.sent(Roster) != []


@pytest.mark.parametrize(("number", "epoch"), [(2, 0), (1, 99)])
def test_only_the_active_of_the_epoch_has_a_wish(number: int, epoch: int) -> None:
    hub = whole()
    hub.wish(number, 1, epoch=epoch)
    assert hub.in_sync == (1, 2, 3)
    assert hub.sent(Roster) == []


def test_the_active_cannot_wish_itself_out() -> None:
    hub = whole()
    hub.wish(1, 2, 3)
    assert hub.in_sync == (1, 2, 3)


def test_copies_that_are_out_or_strange_are_left_out_of_what_is_granted() -> None:
    hub = whole()
    wanted = (replica_id(CHILD, 1), replica_id(CHILD, 9), replica_id(ChildId("d"), 2))
    hub.say(1, SetWanted(1, hub.machine.ledger.children[CHILD].set_version, wanted))
    assert hub.in_sync == (1,)


def test_where_nothing_is_replicated_there_is_no_set() -> None:
    hub = Hub(replace(PLAN, state=State.NONE))
    hub.up(1, 2, 3)
    hub.serve(1)
    hub.wish(1, 1, 2)
    assert hub.in_sync == ()
    assert hub.facts(ChildOpened) == []


def test_a_passive_that_dies_leaves_the_set_with_its_retirement() -> None:
    hub = whole()
    hub.tell(ProcessGone(replica_id(CHILD, 2)))
    assert ReplicaRetired(CHILD, 2) in hub.facts(ReplicaRetired)
    assert hub.in_sync == (1, 3)
    assert hub.sent(Roster)[-1][0] == "c#1"


# --- the heir -------------------------------------------------------------------------------------


def test_the_most_advanced_copy_that_answers_is_promoted_and_the_dead_one_leaves_the_set() -> None:
    hub = whole()
    hub.tell(ProcessGone(replica_id(CHILD, 1)))
    assert sorted(replica for replica, _ in hub.sent(TellPosition)) == ["c#2", "c#3"]
    assert hub.facts(ReplicaPromoted) == []
    hub.now += 0.01
    hub.say(2, Report(Phase.READY, None, 0, 2, tail=Position(1, 4)))
    hub.say(3, Report(Phase.READY, None, 0, 3, tail=Position(1, 5)))
    assert hub.facts(ReplicaPromoted) == [ReplicaPromoted(CHILD, 3, 2, (2, 3))]


def test_a_copy_that_does_not_answer_is_not_waited_for() -> None:
    hub = whole()
    hub.tell(ProcessGone(replica_id(CHILD, 1)))
    hub.now += 0.06
    hub.tell(Ticked())
    assert hub.facts(ReplicaPromoted) == [ReplicaPromoted(CHILD, 2, 2, (2, 3))]


def test_a_ready_copy_outside_the_set_is_no_heir() -> None:
    hub = whole()
    hub.wish(1, 1, 3)
    hub.tell(ProcessGone(replica_id(CHILD, 1)))
    assert hub.facts(ReplicaPromoted) == [ReplicaPromoted(CHILD, 3, 2, (3,))]


# --- loss -----------------------------------------------------------------------------------------


def lose_all(hub: Hub) -> None:
    for number in (3, 2, 1):
        hub.tell(ProcessGone(replica_id(CHILD, number)))


def test_when_all_that_held_the_state_are_gone_the_child_is_lost_and_stays_so() -> None:
    hub = whole()
    lose_all(hub)
    assert hub.facts(DataLost) == [DataLost(CHILD, restart_empty=False)]
    [note] = hub.notes("data_lost")
    assert "stays lost" in note.text
    assert hub.health() is Health.LOST
    hub.wait(5.0)
    assert len(hub.facts(DataLost)) == 1
    assert hub.facts(ReplicaPromoted) == []


def test_or_it_begins_anew_with_fresh_copies_if_it_was_told_to() -> None:
    hub = whole(replace(PLAN, on_data_loss=OnDataLoss.RESTART_EMPTY))
    lose_all(hub)
    assert hub.facts(DataLost) == [DataLost(CHILD, restart_empty=True)]
    assert "begins anew" in hub.notes("data_lost")[0].text
    hub.wait(5.0)
    fresh = [a.replica for a in hub.actions if isinstance(a, StartReplica)]
    assert {"c#4", "c#5", "c#6"} <= set(fresh)
    hub.up(max(hub.machine.ledger.children[CHILD].replicas), phase=Phase.BUILDING)
    [promoted] = hub.facts(ReplicaPromoted)
    assert isinstance(promoted, ReplicaPromoted)
    assert promoted.epoch == 2
    assert not hub.machine.ledger.children[CHILD].is_open


def test_a_copy_that_was_built_when_all_was_lost_is_not_taken_for_one_that_holds_it() -> None:
    hub = whole(replace(PLAN, on_data_loss=OnDataLoss.RESTART_EMPTY))
    hub.wish(1, 1)
    hub.tell(ProcessGone(replica_id(CHILD, 1)))
    assert [a.replica for a in hub.actions if isinstance(a, StopReplica)][-3:] == [
        "c#1",
        "c#2",
        "c#3",
    ]
    assert min(hub.machine.ledger.children[CHILD].replicas) > 3


def test_a_lost_childs_copies_that_were_on_their_way_up_hold_no_turn() -> None:
    hub = Hub()
    hub.up(1, phase=Phase.BUILDING)
    hub.serve(1)
    hub.wait(11.0, 1)
    assert hub.machine.state.starting_count == 2
    hub.tell(ProcessGone(replica_id(CHILD, 1)))
    assert hub.health() is Health.LOST
    assert hub.machine.state.starting_count == 0


def test_a_silent_holder_on_a_node_that_ray_calls_dead_counts_as_lost() -> None:
    hub = whole()
    hub.wish(1, 1)
    placed = hub.machine.ledger.children[CHILD].replicas[1].node_id
    hub.tell(NodesSeen(tuple(node for node in hub.nodes if node.node_id != placed)))
    assert hub.facts(DataLost) == []
    hub.wait(5.0, 2, 3)
    assert hub.facts(DataLost) == [DataLost(CHILD, restart_empty=False)]


def test_a_silent_holder_on_a_node_that_stands_is_waited_for() -> None:
    hub = whole()
    hub.wish(1, 1)
    hub.wait(20.0, 2, 3)
    assert hub.facts(DataLost) == []
    assert hub.facts(ReplicaPromoted) == []


# --- what copies say ------------------------------------------------------------------------------


def test_a_passive_that_diverged_is_retired_and_another_one_built() -> None:
    hub = whole()
    hub.say(2, Diverged("another answer"))
    assert hub.notes("diverged")[0].replica == "c#2"
    assert hub.facts(ReplicaRetired) == [ReplicaRetired(CHILD, 2)]
    hub.wait(3.0, 1, 3)
    assert "c#4" in [a.replica for a in hub.actions if isinstance(a, StartReplica)]


def test_an_active_that_diverged_is_followed_once_it_has_stepped_down() -> None:
    hub = whole()
    hub.say(1, Diverged("another answer"))
    assert hub.facts(ReplicaRetired) == []
    hub.wish(1, 1, 2)
    hub.say(1, SteppedDown(1))
    hub.say(1, Report(Phase.READY, Role.PASSIVE, 1, 1))
    hub.now += 0.06
    hub.tell(Ticked())
    assert hub.facts(ReplicaPromoted) == [ReplicaPromoted(CHILD, 2, 2, (2,))]


def test_slow_shipments_and_lost_writes_are_events() -> None:
    hub = whole()
    hub.say(1, ShipmentSlow(1.5, 1000))
    assert "1000 bytes took 1.5 s" in hub.notes("state_slow")[0].text
    hub.say(1, WritesLost(2, 3))
    assert "up to 3 answered writes" in hub.notes("writes_lost")[0].text


def test_a_lost_child_is_not_removed_because_its_start_was_never_complete() -> None:
    hub = Hub(PLAN, ChildPlan(ChildId("another one, which never comes up")))
    hub.up(1, phase=Phase.BUILDING)
    hub.serve(1)
    hub.wait(11.0, 1)
    hub.tell(ProcessGone(replica_id(CHILD, 1)))
    for number in (2, 3):
        hub.tell(ReplicaFailed(replica_id(CHILD, number), Failure.CONSTRUCTOR, "it raises"))
    assert hub.health() is Health.LOST
