"""A hub that has too few nodes stands still, and goes on when they are back: scenarios 44 to 46.

A loss of three nodes of ten is too much for this machine: scenario 46 is told with four nodes here,
and with its own figures in `tests/unit/core/test_quorum.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import raphub
from raphub import ChildSpec, DynamicQuorum, HubConfig, MajorityQuorum, StaticQuorum
from raphub.call import Call
from raphub.testing import LocalCluster
from tests.cluster.conftest import left_of
from tests.cluster.waiting import LIMIT_S, until, until_event, until_ok
from tests.cluster.workloads import Clerk

PATIENCE_S = 2.0


def grow(cluster: LocalCluster, nodes: int) -> None:
    """Have so many nodes run, beside the head, which takes no copies."""
    while len(cluster.node_ids) < nodes:
        cluster.add_node()


@contextmanager
def running(
    hub_id: str, rule: StaticQuorum | DynamicQuorum | MajorityQuorum, nodes: int
) -> Iterator[raphub.Hub]:
    """A hub with this rule that knows of so many usable nodes; nothing of it is left behind."""
    with raphub.Hub.start(HubConfig(hub_id=hub_id, partition_tolerance=rule)) as hub:
        until_usable(hub, nodes)
        yield hub
    assert left_of(hub_id) == []


def until_usable(hub: raphub.Hub, nodes: int) -> None:
    def seen(asked: raphub.Hub) -> bool:
        return sum(node.usable for node in asked.nodes()) == nodes

    assert hub.wait_for(seen, LIMIT_S), hub.status().as_text()


def until_partitioned(hub: raphub.Hub, is_partitioned: bool) -> None:
    assert hub.wait_for(lambda h: h.is_partitioned() is is_partitioned, LIMIT_S), hub.status()
    assert hub.status().is_partitioned is is_partitioned


def calls_until_it_waits(handle: raphub.ChildHandle[Clerk]) -> list[Call[int]]:
    """Call until the last lease has run out and a call waits; it is the last one in the list."""
    gives_up_at, calls = time.monotonic() + LIMIT_S, []
    while time.monotonic() < gives_up_at:
        calls.append(handle.add.remote(1))
        try:
            calls[-1].result(PATIENCE_S)
        except raphub.CallTimeout:
            return calls
    raise AssertionError(f"{handle.child_id} was never stopped")


def test_scenario_44_static_3_of_3___2_stop_with_their_state___3_go_on(
    cluster: LocalCluster,
) -> None:
    grow(cluster, 3)
    with running("static", StaticQuorum(size=3), 3) as hub:
        specs = [
            ChildSpec(child_id="keeper", cls=Clerk),
            ChildSpec(child_id="each", cls=Clerk, model="active_active", state="none"),
        ]
        assert hub.start_children(specs).result(LIMIT_S).ok
        before = until_ok(hub, "keeper")
        keeper, each = hub.get("keeper"), hub.get("each")
        pid = keeper.pid.remote().result(LIMIT_S)
        [passive] = [r for r in before.replicas if r.role == "passive"]

        cluster.kill_node(passive.node_id)
        until_partitioned(hub, is_partitioned=True)
        until_event(hub, "partitioned")
        for child_id in ("keeper", "each"):
            until(hub, child_id, lambda s: s.reason == "partitioned: 2 of 3 nodes")
            assert hub.get(child_id).status().health == "no_active"
        calls = calls_until_it_waits(keeper)
        waits = calls_until_it_waits(each)[-1]
        with pytest.raises(raphub.NoQuorum, match="2 of 3 nodes"):
            hub.start_child(ChildSpec(child_id="new", cls=Clerk)).result(LIMIT_S)
        with pytest.raises(raphub.NoQuorum, match="keeper"):
            hub.stop_child("keeper").result(LIMIT_S)
        with pytest.raises(raphub.InvalidSetting, match="StaticQuorum"):
            hub.reset_cluster_size(2)

        cluster.add_node()
        until_partitioned(hub, is_partitioned=False)
        until_event(hub, "quorum_regained")
        assert [call.result(LIMIT_S) for call in calls] == list(range(1, len(calls) + 1))
        assert waits.result(LIMIT_S) > 0
        after = until_ok(hub, "keeper")
        assert (after.epoch, after.active and after.active.pid) == (before.epoch, pid)
        until_ok(hub, "each")


def test_scenario_46_dynamic_60_percent_of_4___2_lost_at_once_stop___one_by_one_run(
    cluster: LocalCluster,
) -> None:
    window_s = 5.0
    grow(cluster, 4)
    rule = DynamicQuorum(percent=60, threshold_time_s=window_s)
    with running("dynamic", rule, 4) as hub:
        assert hub.start_child(ChildSpec(child_id="keeper", cls=Clerk)).result(LIMIT_S).ok
        keeper = hub.get("keeper")
        keep = {r.node_id for r in until_ok(hub, "keeper").replicas}
        for node_id in [n for n in cluster.node_ids if n not in keep]:
            cluster.remove_node(node_id)
        until_event(hub, "partitioned")
        # The losses are old after a while; the two nodes that are left are the cluster then.
        until_event(hub, "quorum_regained")
        assert keeper.add.remote(5).result(LIMIT_S) == 5

        grow(cluster, 4)
        until_usable(hub, 4)
        since = hub.events()[-1].index
        for _ in range(2):
            keep = {r.node_id for r in until_ok(hub, "keeper").replicas}
            cluster.remove_node(next(n for n in cluster.node_ids if n not in keep))
            until_usable(hub, len(cluster.node_ids))
            lost_at = time.monotonic()
            assert hub.wait_for(lambda _, at=lost_at: time.monotonic() > at + window_s + 1, LIMIT_S)
        assert "partitioned" not in [event.kind for event in hub.events(since=since)]
        assert keeper.add.remote(1).result(LIMIT_S) == 6


def test_scenario_45_majority_grown_to_5___3_run_2_stop___reset_to_3_and_2_suffice(
    cluster: LocalCluster,
) -> None:
    grow(cluster, 3)
    with running("majority", MajorityQuorum(), 3) as hub:
        grow(cluster, 5)
        until_usable(hub, 5)
        assert hub.start_child(ChildSpec(child_id="keeper", cls=Clerk)).result(LIMIT_S).ok
        keeper = hub.get("keeper")
        for nodes in (4, 3):
            keep = {r.node_id for r in until_ok(hub, "keeper").replicas}
            cluster.remove_node(next(n for n in cluster.node_ids if n not in keep))
            until_usable(hub, nodes)
        assert not hub.is_partitioned()
        assert keeper.add.remote(3).result(LIMIT_S) == 3
        before = until_ok(hub, "keeper")

        keep = {r.node_id for r in before.replicas}
        cluster.remove_node(next(n for n in cluster.node_ids if n not in keep))
        until_partitioned(hub, is_partitioned=True)
        calls = calls_until_it_waits(keeper)
        assert until(hub, "keeper", lambda s: s.reason == "partitioned: 2 of 5 nodes")

        hub.reset_cluster_size(3)
        until_partitioned(hub, is_partitioned=False)
        assert calls[-1].result(LIMIT_S) == 3 + len(calls)
        assert until_ok(hub, "keeper").epoch == before.epoch
