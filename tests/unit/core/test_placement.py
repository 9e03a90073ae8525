"""Where copies go, drawn as cases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raphub.core import placement
from raphub.core.model import ChildId, ChildPlan, Node, NodeId

PLAN = ChildPlan(ChildId("hits"))


def nodes(*names: str, **labels: str) -> list[Node]:
    return [Node(NodeId(name), name, labels, {"CPU": 4.0}) for name in names]


def ranked(all_nodes: list[Node], taken: dict[str, int], plan: ChildPlan = PLAN) -> list[str]:
    zones = {node.node_id: node.labels.get("zone") for node in all_nodes}
    found = placement.rank(
        plan,
        all_nodes,
        {NodeId(name): count for name, count in taken.items()},
        avoided=lambda node_id: node_id == "avoided",
        zone_of=zones.get,
    )
    return [node.node_id for node in found]


def test_a_taken_node_comes_after_every_free_one() -> None:
    order = ranked(nodes("a", "b", "c"), {"b": 1})
    assert order[-1] == "b"


def test_an_avoided_node_comes_after_other_free_ones_and_before_taken_ones() -> None:
    order = ranked(nodes("a", "avoided", "b"), {"a": 1})
    assert order == ["b", "avoided", "a"]


def test_a_zone_without_a_copy_comes_first() -> None:
    all_nodes = [*nodes("a", "b", zone="x"), *nodes("c", zone="y")]
    plan = ChildPlan(ChildId("hits"), zone_label="zone")
    assert ranked(all_nodes, {"a": 1}, plan)[0] == "c"


@given(st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=12, unique=True), st.data())
def test_a_node_that_leaves_moves_nothing_but_what_it_held(
    names: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(names))
    before = ranked(nodes(*names), {})
    after = ranked(nodes(*(name for name in names if name != gone)), {})
    assert after == [name for name in before if name != gone]


def test_label_selectors_have_rays_forms() -> None:
    labels = {"zone": "a", "disk": "ssd"}
    assert placement.is_label_match({"zone": "a"}, labels)
    assert placement.is_label_match({"zone": "in(a, b)", "disk": "!hdd"}, labels)
    assert not placement.is_label_match({"zone": "!in(a,b)"}, labels)
    assert not placement.is_label_match({"gpu": "yes"}, labels)
    assert placement.is_label_match({"gpu": "!yes"}, labels)


def test_a_node_without_a_shred_of_cpu_is_not_usable() -> None:
    assert placement.is_usable(PLAN, nodes("a")[0], {})
    assert not placement.is_usable(PLAN, Node(NodeId("head")), {})
    greedy = ChildPlan(ChildId("hits"), resources={"GPU": 1.0})
    assert not placement.is_usable(greedy, nodes("a")[0], {})
