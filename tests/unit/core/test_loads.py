"""What a node bears, by Ray's figures and by what is not in them yet."""

from __future__ import annotations

import pytest

from raphub.core.loads import COPY_CPUS_MIN, FIGURES_LAG_S, Loads
from raphub.core.model import ChildId, ChildPlan, Node, NodeId, ReplicaId

A, B = (Node(NodeId(name), name, {}, {"CPU": 4.0, "memory": 100.0}) for name in "ab")
LIGHT = ChildPlan(ChildId("light"))
HEAVY = ChildPlan(ChildId("heavy"), resources={"CPU": 1.0})


def placed(loads: Loads, plan: ChildPlan, node: Node, number: int) -> ReplicaId:
    replica = ReplicaId(f"{plan.child_id}#{number}")
    loads.place(replica, node.node_id, plan, is_up=False)
    return replica


def free(cpus: float) -> dict[NodeId, dict[str, float]]:
    return {A.node_id: {"CPU": cpus, "memory": 100.0}}


def test_without_figures_a_node_counts_as_empty() -> None:
    assert Loads().load(A, LIGHT) == 0.0
    assert Loads().has_room(A, HEAVY)


def test_the_resource_of_which_most_is_used_counts() -> None:
    loads = Loads()
    loads.see({A.node_id: {"CPU": 3.0, "memory": 25.0}}, 0.0)
    assert loads.load(A, LIGHT) == 0.75


def test_what_ray_leaves_out_is_used_up() -> None:
    loads = Loads()
    loads.see({A.node_id: {"memory": 100.0}}, 0.0)
    assert loads.load(A, LIGHT) == 1.0
    assert not loads.has_room(A, HEAVY)


def test_a_resource_that_the_child_does_not_ask_for_does_not_count() -> None:
    node = Node(NodeId("g"), "g", {}, {"CPU": 4.0, "GPU": 1.0})
    loads = Loads()
    loads.see({node.node_id: {"CPU": 4.0}}, 0.0)
    assert loads.load(node, LIGHT) == 0.0
    assert loads.load(node, ChildPlan(ChildId("g"), resources={"GPU": 0.5})) == 1.0


def test_a_copy_that_reserves_nothing_counts_as_a_tenth_of_a_cpu() -> None:
    loads = Loads()
    placed(loads, LIGHT, A, 1)
    assert loads.load(A, LIGHT) == pytest.approx(COPY_CPUS_MIN / 4)
    assert loads.load(A, LIGHT, 1) == pytest.approx(2 * COPY_CPUS_MIN / 4)
    assert loads.count(A.node_id) == 1


def test_what_is_placed_counts_until_the_figures_show_it_and_never_twice() -> None:
    loads = Loads()
    replica = placed(loads, HEAVY, A, 1)
    assert loads.load(A, HEAVY) == 0.25
    loads.see(free(4.0), 5.0)
    assert loads.load(A, HEAVY) == 0.25
    loads.come_up(replica, A.node_id, 6.0)
    loads.see(free(4.0), 6.0 + FIGURES_LAG_S / 2)
    assert loads.load(A, HEAVY) == 0.25
    loads.see(free(3.0), 6.0 + FIGURES_LAG_S)
    assert loads.load(A, HEAVY) == 0.25


def test_room_is_what_is_free_less_what_was_placed_since() -> None:
    loads = Loads()
    loads.see({A.node_id: {"CPU": 1.5}}, 0.0)
    assert loads.has_room(A, HEAVY)
    placed(loads, HEAVY, A, 1)
    assert not loads.has_room(A, HEAVY)


def test_a_copy_of_an_earlier_life_shows_in_the_figures_already() -> None:
    loads = Loads()
    loads.place(ReplicaId("heavy#1"), A.node_id, HEAVY, is_up=True)
    assert loads.load(A, HEAVY) == 0.0


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    loads = Loads()
    replica = placed(loads, HEAVY, A, 1)
    other = placed(loads, LIGHT, A, 1)
    loads.place(replica, A.node_id, HEAVY, is_up=False)
    for _ in range(2):
        loads.forget(replica, A.node_id)
        loads.forget(other, A.node_id)
    assert loads == Loads()


def test_equal_nodes_fill_evenly() -> None:
    loads = Loads()
    for number in range(50):
        least = min((A, B), key=lambda node: round(loads.load(node, LIGHT), 6))
        placed(loads, LIGHT, least, number)
    assert (loads.count(A.node_id), loads.count(B.node_id)) == (25, 25)
