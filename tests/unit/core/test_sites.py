"""Where a hub's copies go and stay, told as short stories of one hub whose copies obey at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from raphub.core.messages import (
    FromReplica,
    LoadsSeen,
    NodesSeen,
    Report,
)
from raphub.core.misplacement import Relocation
from raphub.core.model import (
    ChildId,
    ChildPlan,
    Distribution,
    DistributionKind,
    Health,
    Model,
    Node,
    NodeId,
    Phase,
    Role,
    Spread,
    replica_id,
)
from raphub.core.placement import Candidate, Custom
from raphub.core.sites import move_wanted
from tests.unit.core.obedient_hub import CHILD, Hub, nodes


def move(hub: Hub) -> Relocation | None:
    return move_wanted(hub.machine.state, hub.machine.ledger.children[CHILD], hub.now)


def guided(*entries: str) -> Distribution:
    return Distribution(DistributionKind.GUIDED, {CHILD: entries})


PAIR = ChildPlan(CHILD, factor=2)
LOADED = Distribution(DistributionKind.LEAST_LOADED)
CUSTOM = Distribution(DistributionKind.CUSTOM)

# --- guided: scenario 39 ----------------------------------------------------------------------


def test_scenario_39_guided_copies_are_exactly_where_the_mapping_says_and_in_its_order() -> None:
    hub = Hub(nodes("a", "b", "c", "d"), guided("d", "ip-b"))
    hub.start(PAIR)
    assert hub.on() == ["d", "b"]
    assert hub.health() == (Health.OK, "")


@pytest.mark.parametrize("entries", [(), ("a", "z"), ("a",)])
def test_scenario_39_a_mapping_that_does_not_fit_starts_nothing_of_the_request(
    entries: tuple[str, ...],
) -> None:
    mapping = {ChildId("good"): ("a", "b"), **({CHILD: entries} if entries else {})}
    hub = Hub(nodes("a", "b", "c"), Distribution(DistributionKind.GUIDED, mapping))
    answer = hub.start(ChildPlan(ChildId("good")), PAIR, check_existing=False)
    assert answer is not None
    assert answer.started == {}
    [trouble] = answer.troubles
    assert (trouble.kind, trouble.child_id) == ("invalid_mapping", CHILD)
    assert hub.machine.ledger.children == {}


def test_a_guided_copy_waits_degraded_until_its_node_is_back_and_goes_nowhere_else() -> None:
    hub = Hub(nodes("a", "b", "c"), guided("a", "b"))
    hub.start(PAIR)
    hub.see(*nodes("a", "c"))
    assert hub.on() == ["a"]
    assert hub.health() == (
        Health.DEGRADED,
        "1 of 2 copies: waits for the nodes that its mapping names",
    )
    hub.see(*nodes("a", "c", "d"))
    assert hub.on() == ["a"]
    hub.see(*nodes("a", "b", "c", "d"))
    assert hub.on() == ["a", "b"]
    assert hub.health()[0] is Health.OK


def test_a_machine_that_comes_back_under_another_node_id_is_known_by_its_address() -> None:
    hub = Hub(nodes("a", "b", "c"), guided("ip-a", "ip-b"))
    hub.start(PAIR)
    hub.see(*nodes("a", "c"))
    again = Node(NodeId("b2"), "ip-b", {}, {"CPU": 4.0})
    hub.see(*nodes("a", "c"), again)
    assert hub.on() == ["a", "b2"]


def test_a_guided_copy_takes_a_spare_and_belongs_back_when_its_node_returns() -> None:
    hub = Hub(nodes("a", "b", "c", "d"), guided("a", "b", "c"))
    hub.start(PAIR)
    hub.see(*nodes("a", "c", "d"))
    assert hub.on() == ["a", "c"]
    assert move(hub) is None
    hub.see(*nodes("a", "b", "c", "d"))
    assert move(hub) == Relocation(3, NodeId("b"))


def test_a_guided_child_of_cluster_size_has_one_copy_on_each_mapped_node() -> None:
    hub = Hub(nodes("a", "b", "c"), guided("a", "c"))
    hub.start(replace(PAIR, factor=None))
    assert hub.on() == ["a", "c"]


# --- labels and zones: scenario 42 ------------------------------------------------------------


@pytest.mark.parametrize("kind", [DistributionKind.CONSISTENT_HASHING, LOADED.kind, CUSTOM.kind])
def test_scenario_42_a_node_that_the_hub_does_not_select_gets_nothing(
    kind: DistributionKind,
) -> None:
    cluster = [*nodes("a", "b", pool="work"), *nodes("c", "d")]
    hub = Hub(cluster, Distribution(kind), {"pool": "work"}, lambda _c, _n, _t: ["c"])
    for number in range(20):
        hub.start(ChildPlan(ChildId(f"c{number}"), factor=3))
        assert set(hub.on(ChildId(f"c{number}"))) == {"a", "b"}
    hub.start(replace(PAIR, factor=None))
    assert sorted(hub.on()) == ["a", "b"]


def zoned(**zones: str) -> list[Node]:
    return [node for name, zone in zones.items() for node in nodes(name, zone=zone)]


STRICT = ChildPlan(CHILD, factor=2, spread=Spread.STRICT, zone_label="zone")


@pytest.mark.parametrize("distribution", [Distribution(), LOADED, CUSTOM, guided("a", "b", "c")])
def test_strict_zones_never_have_two_copies_whatever_the_strategy(
    distribution: Distribution,
) -> None:
    for number in range(20):
        child_id = ChildId(f"c{number}")
        mapping: dict[ChildId, tuple[str, ...]] = {child_id: ("a", "b", "c")}
        hub = Hub(
            zoned(a="x", b="x", c="y"),
            replace(distribution, mapping=mapping),
            custom=lambda _c, candidates, _t: [c.node_id for c in candidates],
        )
        hub.start(replace(STRICT, child_id=child_id))
        assert sorted(hub.on(child_id))[1] == "c"


def test_a_strict_child_is_refused_where_there_are_fewer_zones_than_copies() -> None:
    hub = Hub(zoned(a="x", b="x"))
    answer = hub.start(STRICT)
    assert answer is not None
    [trouble] = answer.troubles
    assert trouble.kind == "not_enough_nodes"
    assert trouble.reason == "2 zones (label 'zone') are needed, there are 1"


def test_a_lost_zone_leaves_a_strict_child_degraded_and_a_preferred_one_together() -> None:
    hub = Hub(zoned(a="x", b="x", c="y"))
    hub.start(STRICT)
    hub.see(*zoned(a="x", b="x"))
    assert len(hub.on()) == 1
    assert hub.health() == (Health.DEGRADED, "1 of 2 copies: too few zones (label 'zone')")
    hub.see(*zoned(a="x", b="x", d="y"))
    assert sorted(hub.on())[1] == "d"
    soft = Hub(zoned(a="x", b="x", c="y"))
    soft.start(replace(STRICT, spread=Spread.PREFERRED))
    soft.see(*zoned(a="x", b="x"))
    assert sorted(soft.on()) == ["a", "b"]
    assert soft.health() == (Health.OK, "")
    soft.see(*zoned(a="x", b="x", d="y"))
    found = move(soft)
    assert found is not None
    assert found.node_id == "d"


def test_a_node_without_the_label_gets_no_copy_of_a_strict_child() -> None:
    hub = Hub([*zoned(a="x", b="y"), *nodes("c", "d")])
    hub.start(replace(STRICT, factor=None))
    assert sorted(hub.on()) == ["a", "b"]


def test_strict_copies_that_find_themselves_in_one_zone_part_and_the_active_stays() -> None:
    hub = Hub(zoned(a="x", b="y"))
    hub.start(STRICT)
    active = hub.machine.ledger.children[CHILD].active
    moved = zoned(a="x", b="x", c="y")  # The label of `b` was wrong.
    hub.nodes = moved
    hub.tell(NodesSeen(tuple(moved)))
    hub.wait(5.0)
    assert len(hub.on()) == 2
    assert sorted(hub.on())[1] == "c"
    assert hub.machine.ledger.children[CHILD].active == active
    assert hub.health() == (Health.OK, "")


# --- least loaded -----------------------------------------------------------------------------


def burst(hub: Hub, count: int, resources: dict[str, float] | None = None) -> Counter[str]:
    plans = [
        ChildPlan(ChildId(f"m{number}"), factor=1, resources=resources or {})
        for number in range(count)
    ]
    hub.start(*plans)
    return Counter(hub.on(plan.child_id)[0] for plan in plans)


def test_fifty_children_at_once_are_spread_evenly_before_ray_shows_one_of_them() -> None:
    hub = Hub(nodes("a", "b", "c", "d", "e"), LOADED)
    hub.tell(LoadsSeen({node.node_id: {"CPU": 4.0} for node in hub.nodes}))
    assert set(burst(hub, 50).values()) == {10}


def test_children_that_reserve_cpus_fill_what_is_free_first() -> None:
    hub = Hub(nodes("a", "b", "c"), LOADED)
    hub.tell(LoadsSeen({NodeId("a"): {"CPU": 4.0}, NodeId("b"): {"CPU": 2.0}, NodeId("c"): {}}))
    assert burst(hub, 6, {"CPU": 1.0}) == {"a": 4, "b": 2}


def test_a_busy_node_gets_fewer_copies() -> None:
    hub = Hub(nodes("a", "b"), LOADED)
    hub.tell(LoadsSeen({NodeId("a"): {"CPU": 4.0}, NodeId("b"): {"CPU": 3.5}}))
    assert burst(hub, 15) == {"a": 10, "b": 5}


def test_a_passive_leaves_a_node_that_others_have_filled() -> None:
    hub = Hub(nodes("a", "b", "c"), LOADED)
    hub.start(PAIR)
    passive = next(n for n in (1, 2) if n != hub.machine.ledger.children[CHILD].active)
    on = hub.on()[passive - 1]
    free = next(node for node in hub.nodes if node.node_id not in hub.on())
    figures = {node.node_id: {"CPU": 4.0} for node in hub.nodes}
    hub.tell(LoadsSeen(figures))
    assert move(hub) is None
    hub.tell(LoadsSeen({**figures, NodeId(on): {"CPU": 2.0}}))
    assert move(hub) == Relocation(passive, free.node_id)


# --- a strategy of the user's own: scenario 43 ------------------------------------------------


def test_scenario_43_a_custom_strategy_is_asked_with_what_the_hub_knows_and_obeyed() -> None:
    asked: list[tuple[str, list[Candidate], dict[str, int]]] = []

    def last_first(
        child_id: str, candidates: Sequence[Candidate], taken: Mapping[str, int]
    ) -> object:
        asked.append((child_id, list(candidates), dict(taken)))
        return sorted((c.node_id for c in candidates), reverse=True)

    hub = Hub(nodes("a", "b", "c", rack="1"), CUSTOM, custom=last_first)
    hub.tell(LoadsSeen({NodeId("a"): {"CPU": 3.0}}))
    hub.start(PAIR)
    assert hub.on() == ["c", "b"]
    assert asked[0] == (
        "c",
        [
            Candidate("a", "ip-a", {"rack": "1"}, {"CPU": 4.0}, {"CPU": 3.0}),
            Candidate("b", "ip-b", {"rack": "1"}, {"CPU": 4.0}),
            Candidate("c", "ip-c", {"rack": "1"}, {"CPU": 4.0}),
        ],
        {},
    )
    assert [c.node_id for c in asked[1][1]] == ["a", "b"]
    assert asked[1][2] == {"c": 1}


def test_a_custom_strategy_that_leaves_all_nodes_out_gets_no_copy_until_it_is_asked_again() -> None:
    hub = Hub(nodes("a", "b"), CUSTOM, custom=lambda _c, _n, _t: [])
    assert hub.start(PAIR) is None
    assert hub.on() == []
    hub.machine.state.custom = lambda _c, n, _t: [c.node_id for c in n]
    hub.see(*nodes("a", "b", "d"))
    assert len(hub.on()) == 2


def raises(_child: str, _nodes: object, _taken: object) -> object:
    raise ZeroDivisionError("no nodes to divide by")


@pytest.mark.parametrize("wrong", [raises, lambda _c, _n, _t: ["moon"], lambda _c, _n, _t: 7])
def test_where_a_custom_strategy_fails_hashing_decides_and_it_is_told_once(wrong: Custom) -> None:
    hub, plain = Hub(nodes("a", "b", "c"), CUSTOM, custom=wrong), Hub(nodes("a", "b", "c"))
    hub.start(PAIR)
    plain.start(PAIR)
    assert hub.on() == plain.on()
    assert [note.kind for note in hub.notes].count("strategy_failed") == 1


def test_a_custom_strategy_that_could_not_be_loaded_is_replaced_by_hashing() -> None:
    hub, plain = Hub(nodes("a", "b", "c"), CUSTOM), Hub(nodes("a", "b", "c"))
    hub.start(PAIR)
    plain.start(PAIR)
    assert hub.on() == plain.on()


# --- what belongs elsewhere -------------------------------------------------------------------


def test_nothing_moves_while_a_copy_is_not_ready() -> None:
    hub = Hub(zoned(a="x", b="x"))
    hub.start(ChildPlan(CHILD, factor=2, zone_label="zone"))
    hub.see(*zoned(a="x", b="x", c="y"))
    assert move(hub) is not None
    passive = next(n for n in (1, 2) if n != hub.machine.ledger.children[CHILD].active)
    hub.tell(FromReplica(replica_id(CHILD, passive), Report(Phase.STOPPING, Role.PASSIVE, 1, 7)))
    assert move(hub) is None


def test_nothing_moves_where_all_copies_serve() -> None:
    hub = Hub(zoned(a="x", b="x"))
    hub.start(ChildPlan(CHILD, factor=2, zone_label="zone", model=Model.ACTIVE_ACTIVE))
    hub.see(*zoned(a="x", b="x", c="y"))
    assert len(hub.on()) == 2
    assert move(hub) is None


def test_no_passive_belongs_on_a_node_where_a_copy_was_just_lost() -> None:
    hub = Hub(zoned(a="x", b="x"))
    hub.start(ChildPlan(CHILD, factor=2, zone_label="zone"))
    hub.nodes = zoned(a="x", b="x", c="y")
    hub.tell(NodesSeen(tuple(hub.nodes)))
    hub.machine.state.avoid(NodeId("c"), hub.now)
    assert move(hub) is None
    hub.wait(31.0)
    assert move(hub) is not None


@pytest.mark.parametrize("distribution", [Distribution(), guided("a", "c")])
def test_while_most_nodes_seem_to_be_gone_nothing_is_too_many_and_nothing_is_placed(
    distribution: Distribution,
) -> None:
    hub = Hub(zoned(a="x", b="x", c="y", d="y"), distribution)
    hub.start(STRICT)
    before = hub.on()
    rest = [node for node in hub.nodes if node.node_id not in before][:1]
    hub.tell(NodesSeen(tuple(rest)))
    hub.wait(2.0)
    assert hub.on() == before
    hub.tell(NodesSeen(tuple(hub.nodes)))
    hub.wait(10.0)
    assert hub.on() == before
    assert hub.health() == (Health.OK, "")
