"""Where copies go, drawn as cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raphub.core import placement
from raphub.core.model import ChildId, ChildPlan, Distribution, DistributionKind, Node, NodeId

PLAN = ChildPlan(ChildId("hits"))


def nodes(*names: str, **labels: str) -> list[Node]:
    return [Node(NodeId(name), name, labels, {"CPU": 4.0}) for name in names]


def ranked(all_nodes: list[Node], taken: dict[str, int], plan: ChildPlan = PLAN) -> list[str]:
    zones = {node.node_id: node.labels.get("zone") for node in all_nodes}
    found = placement.rank(
        plan,
        placement.by_hash(plan.child_id, all_nodes),
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


# --- guided -----------------------------------------------------------------------------------


def named(found: list[Node]) -> list[str]:
    return [node.node_id for node in found]


def test_a_mapping_gives_its_nodes_in_its_order_and_no_other() -> None:
    assert named(placement.by_mapping(("c", "a"), nodes("a", "b", "c"), {})) == ["c", "a"]


def test_a_mapped_node_that_is_away_is_left_out() -> None:
    assert named(placement.by_mapping(("c", "a"), nodes("a", "b"), {})) == ["a"]


def test_an_address_means_the_node_that_holds_a_copy_else_the_lowest_id() -> None:
    old, new = Node(NodeId("old"), "10.0.0.7"), Node(NodeId("new"), "10.0.0.7")
    assert named(placement.by_mapping(("10.0.0.7",), [old, new], {})) == ["new"]
    assert named(placement.by_mapping(("10.0.0.7",), [old, new], {NodeId("old"): 1})) == ["old"]


def trouble(*entries: str, factor: int | None = 2, cluster: list[Node] | None = None) -> str:
    mapping = {ChildId("hits"): entries} if entries else {}
    return placement.mapping_trouble(
        Distribution(DistributionKind.GUIDED, mapping),
        ChildPlan(ChildId("hits"), factor=factor),
        nodes("a", "b", "c") if cluster is None else cluster,
        {},
    )


def test_a_mapping_that_fits_is_no_trouble() -> None:
    assert trouble("b", "a") == ""
    assert trouble("c", "b", "a") == ""
    assert trouble("c", factor=None) == ""


def test_a_mapping_that_does_not_fit_says_what_is_wrong_and_what_to_do() -> None:
    assert "names no nodes for it; add it" in trouble()
    assert "names 'z', and no node has that id or address" in trouble("a", "z")
    assert "names too few nodes, 1 for 2 copies" in trouble("a")
    weak = [*nodes("a", "b"), Node(NodeId("head"))]
    assert "the node 'head' of the mapping may not hold it" in trouble("a", "head", cluster=weak)
    same = [Node(NodeId("a"), "10.0.0.7", {}, {"CPU": 1.0}), *nodes("b")]
    assert "names one node twice" in trouble("a", "10.0.0.7", cluster=same)


# --- least loaded, a strategy of the user's own ------------------------------------------------


def by_load(loads: dict[str, float], full: str = "") -> list[str]:
    found = placement.by_load(
        "hits",
        nodes(*loads),
        load_of=lambda node: loads[node.node_id],
        has_room=lambda node: node.node_id != full,
    )
    return named(found)


def test_the_least_loaded_node_comes_first_and_a_full_one_last() -> None:
    assert by_load({"a": 0.5, "b": 0.1, "c": 0.3}) == ["b", "c", "a"]
    assert by_load({"a": 0.5, "b": 0.1, "c": 0.3}, full="b") == ["c", "a", "b"]


def test_equal_loads_are_told_apart_by_the_hash() -> None:
    equal = by_load({"a": 0.1 + 0.2, "b": 0.3, "c": 0.3})
    assert equal == named(placement.by_hash("hits", nodes("a", "b", "c")))


def by_custom(answer: object, taken: dict[str, int] | None = None) -> list[str]:
    def custom(child_id: str, candidates: object, counts: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    cluster = nodes("a", "b", "c")
    seen = [placement.Candidate(node.node_id) for node in cluster]
    counts = {NodeId(name): count for name, count in (taken or {}).items()}
    return named(placement.by_custom("hits", cluster, custom, seen, counts))


def test_a_strategy_of_the_users_own_is_obeyed_also_where_it_leaves_nodes_out() -> None:
    assert by_custom(["c", "a", "b"]) == ["c", "a", "b"]
    assert by_custom(("b",)) == ["b"]
    assert by_custom([]) == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (ValueError("no idea"), "ValueError: no idea"),
        (None, "answered with a NoneType, not with a list"),
        ("abc", "answered with a str, not with a list"),
        (["a", "z"], "named 'z', which is no candidate"),
        (["a", 7], "named 7, which is no candidate"),
        ([["a"]], "named \\['a'\\], which is no candidate"),
        (["a", "b", "a"], "named a node twice"),
    ],
)
def test_a_strategy_that_raises_or_answers_with_nonsense_is_told_of(
    answer: object, told: str
) -> None:
    with pytest.raises(placement.StrategyFailedError, match=told):
        by_custom(answer)
