"""What is moved when somebody asks for it, and what is refused? Short stories of one hub."""

from __future__ import annotations

import pytest

from raphub.core.messages import (
    DrainRequested,
    MigrationRequested,
    PauseRequested,
    ProcessGone,
    SwitchoverRequested,
)
from raphub.core.model import ChildId, ChildPlan, Model, NodeId, ReplicaId, Spread, replica_id
from raphub.core.records import Answer, MoveAnswer
from tests.unit.core.obedient_hub import CHILD, Hub, nodes

OTHER = ChildId("d")
PAIR = ChildPlan(CHILD, factor=2)


def started(plan: ChildPlan = PAIR, *names: str) -> Hub:
    hub = Hub(nodes(*(names or ("a", "b", "c"))))
    hub.start(plan)
    return hub


def active_node(hub: Hub) -> NodeId:
    child = hub.machine.ledger.children[CHILD]
    assert child.active is not None
    return child.replicas[child.active].node_id


def free_node(hub: Hub) -> NodeId:
    return next(node.node_id for node in hub.nodes if node.node_id not in hub.on())


def pause(hub: Hub, *, is_paused: bool = True) -> None:
    assert hub.ask(PauseRequested(hub.request(), is_paused)) == MoveAnswer()


def kinds(answer: Answer | None) -> list[str]:
    assert isinstance(answer, MoveAnswer)
    return [trouble.kind for trouble in answer.troubles]


def test_switchover___the_copies_stay_and_change_places() -> None:
    hub = started()
    before, old = hub.on(), active_node(hub)
    assert hub.ask(SwitchoverRequested(hub.request(), CHILD)) == MoveAnswer()
    assert hub.on() == before
    assert active_node(hub) != old


def test_migration_of_the_active___a_new_copy_first_and_the_old_one_goes_last() -> None:
    hub = started()
    child = hub.machine.ledger.children[CHILD]
    old, goal = replica_id(CHILD, child.active or 0), free_node(hub)
    assert hub.ask(MigrationRequested(hub.request(), old, goal)) is None
    assert len(child.replicas) == 3
    hub.wait(3.0)
    assert hub.replies[-1] == MoveAnswer()
    assert len(child.replicas) == 2
    assert goal in hub.on()


def test_a_node_is_drained_and_gets_nothing_until_that_is_undone() -> None:
    hub = started()
    node_id = active_node(hub)
    hub.ask(DrainRequested(hub.request(), node_id))
    hub.wait(3.0)
    assert hub.replies[-1] == MoveAnswer()
    hub.start(ChildPlan(OTHER, factor=3, spread=Spread.PREFERRED))
    assert node_id not in [*hub.on(), *hub.on(OTHER)]


def test_drain_without_room___what_is_left_and_that_it_waits_for_room() -> None:
    hub = started(ChildPlan(CHILD, factor=3, spread=Spread.STRICT))
    hub.ask(DrainRequested(hub.request(), active_node(hub), deadline_s=1.0))
    hub.wait(2.0)
    answer = hub.replies[-1]
    assert kinds(answer) == ["no_room"]
    assert isinstance(answer, MoveAnswer)
    assert len(answer.left) == 1


def test_a_drained_node_that_leaves_is_forgotten() -> None:
    hub = started()
    node_id = free_node(hub)
    hub.ask(DrainRequested(hub.request(), node_id))
    hub.see(*(node for node in hub.nodes if node.node_id != node_id))
    assert hub.machine.ledger.draining == {}


@pytest.mark.parametrize(
    ("goal", "kind"), [("a", "cannot_move"), ("moon", "no_room"), ("full", "no_room")]
)
def test_migration_to_where_it_cannot_go___refused(goal: str, kind: str) -> None:
    hub = started(PAIR, "a", "b")
    if goal == "full":
        answer = hub.ask(MigrationRequested(hub.request(), replica_id(CHILD, 1)))
    else:
        answer = hub.ask(MigrationRequested(hub.request(), replica_id(CHILD, 1), NodeId(goal)))
    assert kinds(answer) == [kind]
    assert sorted(hub.on()) == ["a", "b"]


def test_what_is_not_there_or_has_no_active_is_refused() -> None:
    hub = started(ChildPlan(CHILD, factor=2, model=Model.ACTIVE_ACTIVE))
    assert kinds(hub.ask(SwitchoverRequested(hub.request(), CHILD))) == ["cannot_move"]
    assert kinds(hub.ask(MigrationRequested(hub.request(), ReplicaId("c#9")))) == ["not_found"]
    assert kinds(hub.ask(DrainRequested(hub.request(), NodeId("moon")))) == ["not_found"]


# --- paused -----------------------------------------------------------------------------------


def test_paused___what_died_is_not_rebuilt_until_the_hub_is_resumed() -> None:
    hub = started()
    pause(hub)
    hub.tell(ProcessGone(replica_id(CHILD, 2)))
    hub.wait(5.0)
    assert len(hub.on()) == 1
    pause(hub, is_paused=False)
    hub.wait(5.0)
    assert len(hub.on()) == 2


def test_paused___a_child_that_is_asked_for_starts_whole() -> None:
    hub = Hub(nodes("a", "b", "c"))
    pause(hub)
    assert hub.start(PAIR) is not None
    assert len(hub.on()) == 2


def test_paused___a_move_that_is_asked_for_is_made() -> None:
    hub = started()
    pause(hub)
    goal = free_node(hub)
    hub.ask(MigrationRequested(hub.request(), replica_id(CHILD, 1), goal))
    hub.wait(3.0)
    assert hub.replies[-1] == MoveAnswer()
    assert goal in hub.on()
