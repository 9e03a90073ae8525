"""Where copies go on a real cluster: scenarios 39, 40, 42 and 43."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import ray

import raphub
from raphub import ChildSpec, HubConfig
from raphub.testing import LocalCluster
from tests.cluster.conftest import left_of
from tests.cluster.strategies import Backwards, Broken
from tests.cluster.waiting import until, until_event
from tests.cluster.workloads import Clerk

TIMEOUT_S = 60
LABELS = [{"zone": "a", "pool": "x"}, {"zone": "a"}, {"zone": "b", "pool": "x"}]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=3, labels=LABELS) as running:
        yield running


def started(hub_id: str, distribution: Any = None, **settings: Any) -> raphub.Hub:
    """A hub that replicates roles only."""
    return raphub.Hub.start(
        HubConfig(
            hub_id=hub_id,
            redundancy=raphub.Replication(state="none"),
            distribution=distribution or raphub.ConsistentHashing(),
            **settings,
        )
    )


def places(hub: raphub.Hub, *child_ids: str, **options: Any) -> list[list[str]]:
    """Start the children; the nodes of each one's copies, in the order of their numbers."""
    specs = [ChildSpec(child_id=child_id, cls=Clerk, **options) for child_id in child_ids]
    result = hub.start_children(specs).result(TIMEOUT_S)
    assert result.ok, result
    return [
        [copy.node_id for copy in sorted(result.started[c], key=lambda r: r.replica_id)]
        for c in child_ids
    ]


def test_scenario_39_guided_copies_are_exactly_there_and_wait_for_their_node(
    cluster: LocalCluster,
) -> None:
    a, b, c = cluster.node_ids
    lost = cluster.add_node()
    mapping = {
        "fine": [a, b],
        "one": [c, a],
        "other": [a, lost],
        "short": [b],
        "strange": [a, "10.1.2.3"],
        "static": [b, a],
    }
    static = [ChildSpec(child_id="static", cls=Clerk)]
    with started("guided", raphub.Guided(mapping=mapping), child_specs=static) as hub:
        assert places(hub, "one", "other") == [[c, a], [a, lost]]
        status = hub.lookup("static")
        assert status is not None
        assert [copy.node_id for copy in status.replicas] == [b, a]
        for child_id, told in (
            ("short", "names too few nodes, 1 for 2 copies"),
            ("strange", "'10.1.2.3', and no node has that id or address"),
            ("unmapped", "names no nodes for it"),
        ):
            with pytest.raises(raphub.InvalidMapping, match=told) as caught:
                places(hub, "fine", child_id)
            assert caught.value.child_id == child_id
        assert {child.child_id for child in hub.children()} == {"one", "other", "static"}
        cluster.kill_node(lost)
        waiting = until(hub, "other", lambda s: s.health == "degraded" and s.active is not None)
        assert "waits for the nodes that its mapping names" in (waiting.reason or "")
        until_event(hub, "node_left")
        assert {copy.node_id for copy in waiting.replicas if copy.phase == "ready"} == {a}
    assert left_of("guided") == []
    with pytest.raises(raphub.InvalidMapping, match="no node has that id"):
        started("unguided", raphub.Guided(mapping={"static": ["n1", "n2"]}), child_specs=static)
    assert left_of("unguided") == []


def test_scenario_40_a_join_moves_no_active_and_consistent_hashing_is_what_it_was(
    cluster: LocalCluster,
) -> None:
    names = [f"h{number}" for number in range(6)]
    with started("hashed") as hub:
        before = dict(zip(names, places(hub, *names), strict=True))
        actives = {c.child_id: c.active.replica_id for c in hub.children() if c.active}
        joined = cluster.add_node()
        assert hub.wait_for(lambda h: joined in {n.node_id for n in h.nodes()}, TIMEOUT_S)
        for child in hub.children():
            assert child.active is not None
            assert child.active.replica_id == actives[child.child_id]
            on = {copy.node_id for copy in child.replicas}
            assert on <= {*before[child.child_id], joined}
        cluster.kill_node(joined)
    with started("hashed") as again:
        assert [set(on) for on in places(again, *names)] == [set(before[n]) for n in names]


def test_scenario_42_a_node_that_the_hub_does_not_select_gets_nothing(
    cluster: LocalCluster,
) -> None:
    a, b, c = cluster.node_ids[:3]
    with started("labelled", label_selector={"pool": "x"}) as hub:
        names = [f"l{number}" for number in range(4)]
        assert {node for on in places(hub, *names) for node in on} == {a, c}
        assert places(hub, "all", factor="cluster_size") != []
        assert {n.node_id for n in hub.nodes() if n.usable} == {a, c}
        assert b in {n.node_id for n in hub.nodes()}


def test_strict_zones_are_kept_apart_or_refused(cluster: LocalCluster) -> None:
    a, b, c = cluster.node_ids[:3]
    strict = {"spread": "strict", "zone_label": "zone"}
    with started("zoned") as hub:
        for on in places(hub, "z1", "z2", "z3", **strict):
            assert c in on
            assert len({a, b} & set(on)) == 1
        with pytest.raises(raphub.NotEnoughNodes, match=r"3 zones .* are needed, there are 2"):
            places(hub, "z4", factor=3, **strict)


def test_least_loaded_spreads_a_burst_evenly_and_goes_by_what_is_reserved(
    cluster: LocalCluster,
) -> None:
    a, b, c = cluster.node_ids[:3]
    with started("loaded", raphub.LeastLoaded()) as hub:
        burst = Counter(on[0] for on in places(hub, *"uvwxyz", factor=1))
        assert burst == {a: 2, b: 2, c: 2}
        [[full]] = places(hub, "greedy", factor=1, num_cpus=3)
        others = Counter(on[0] for on in places(hub, *"mnop", factor=1))
        assert full not in others


def test_scenario_43_a_custom_strategy_is_used_also_after_the_hub_actor_died(
    cluster: LocalCluster,
) -> None:
    a, b, c = cluster.node_ids[:3]
    first, second = sorted((a, b), reverse=True)
    with started("custom", Backwards(zone="a")) as hub:
        assert places(hub, "one", factor=3) == [[first, second, c]]
        assert raphub.Hub.connect("custom").config.distribution == raphub.CustomDistribution(
            cls="tests.cluster.strategies:Backwards", settings={"zone": "a"}
        )

        actor = ray.get_actor("custom", namespace="raphub")
        term = hub.status().term
        cluster.kill_process(ray.get(actor.describe.remote(), timeout=TIMEOUT_S).pid)
        assert hub.wait_for(lambda h: h.status().term > term, TIMEOUT_S)
        assert places(hub, "two") == [[first, second]]
        assert not [event for event in hub.events() if event.kind == "strategy_failed"]


def test_a_custom_strategy_that_fails_is_told_and_one_that_cannot_be_imported_is_refused(
    cluster: LocalCluster,
) -> None:
    with started("broken", Broken()) as hub:
        [on] = places(hub, "one")
        assert len(set(on)) == 2
        assert "LookupError: there is no place for one" in until_event(hub, "strategy_failed").text
    with pytest.raises(raphub.InvalidSetting, match="cannot import the strategy") as caught:
        started("absent", raphub.CustomDistribution(cls="no.such.module:Strategy"))
    assert caught.value.field == "distribution"
    assert left_of("absent") == []
