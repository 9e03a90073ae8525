"""Are copies moved on purpose without a failed call, and is what cannot be done refused?"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import raphub
from raphub import ChildSpec
from raphub.handle import ChildHandle
from raphub.testing import LocalCluster
from tests.cluster.keepers import Keeper, Warned
from tests.cluster.test_failures import hub_pid
from tests.cluster.waiting import LIMIT_S, until, until_event

NODES = 4


@pytest.fixture(autouse=True)
def whole_cluster(cluster: LocalCluster) -> None:
    """Every test begins with as many nodes as the first."""
    while len(cluster.node_ids) < NODES:
        cluster.add_node()


def start(hub: raphub.Hub, **options: Any) -> ChildHandle[Any]:
    """Start a child and wait until it is whole."""
    given = {"cls": Keeper, "state": "snapshot", "factor": 2, **options}
    spec = ChildSpec(child_id="child", **given)
    assert hub.start_child(spec).result(LIMIT_S).ok
    until(hub, "child", lambda s: s.health == "ok" and len(s.in_sync) == s.factor)
    return hub.get("child")


def active_of(handle: ChildHandle[Any]) -> raphub.ReplicaStatus:
    active = handle.status().active
    assert active is not None
    return active


def passive_of(handle: ChildHandle[Any]) -> raphub.ReplicaStatus:
    return next(r for r in handle.replicas() if r.role == "passive")


def free_node(hub: raphub.Hub) -> str:
    return next(n.node_id for n in hub.nodes() if n.usable and not n.replicas)


@contextmanager
def under_load(handle: ChildHandle[Any]) -> Generator[list[int]]:
    """Others write all the time; at the end each of their writes was applied once."""
    answers: list[int] = []
    errors: list[BaseException] = []
    is_over = threading.Event()

    def write() -> None:
        while not is_over.is_set():
            try:
                answers.append(handle.add.remote(1).result(LIMIT_S))
            except BaseException as error:  # noqa: BLE001 - told below
                errors.append(error)
                return

    threads = [threading.Thread(target=write) for _ in range(3)]
    before = handle.get.remote().result(LIMIT_S)
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        for thread in threads:
            thread.join(LIMIT_S)
    assert errors == []
    assert handle.get.remote().result(LIMIT_S) - before == len(answers)


BOTH = pytest.mark.parametrize("state", ["snapshot", "log"])


@BOTH
def test_switchover_under_load___no_failed_call_and_the_old_active_stays(
    hub: raphub.Hub, state: str
) -> None:
    child = start(hub, state=state)
    old, heir = active_of(child), passive_of(child)
    with under_load(child) as answers:
        for _ in range(4):
            goes_to = passive_of(child).node_id
            seen = len(answers)
            assert hub.switchover("child", to=goes_to).result(LIMIT_S).ok
            assert active_of(child).node_id == goes_to
            until(hub, "child", lambda s: len(s.in_sync) == 2)
            while len(answers) == seen:
                time.sleep(0.01)
    assert {r.replica_id for r in child.replicas()} == {old.replica_id, heir.replica_id}
    assert active_of(child).epoch == old.epoch + 4


def test_switchover_to_where_the_active_is___done_and_nothing_changes(hub: raphub.Hub) -> None:
    child = start(hub)
    before = child.status()
    assert child.switchover(to=active_of(child).node_id).result(LIMIT_S).ok
    assert child.status().epoch == before.epoch


def test_a_call_that_runs_ends_before_the_switchover(hub: raphub.Hub) -> None:
    child = start(hub, state="none")
    old = active_of(child)
    call = child.add_slowly.remote(1, 1.0)
    time.sleep(0.3)
    child.switchover().result(LIMIT_S)
    assert call.result(LIMIT_S) == 1
    assert active_of(child).replica_id != old.replica_id


@pytest.mark.parametrize("moved", ["active", "passive"])
def test_migration_under_load___a_new_copy_first(hub: raphub.Hub, moved: str) -> None:
    child = start(hub)
    chosen = active_of(child) if moved == "active" else passive_of(child)
    other = passive_of(child) if moved == "active" else active_of(child)
    there = free_node(hub)
    with under_load(child):
        assert child.migrate(chosen.replica_id, to=there[:8]).result(LIMIT_S).ok
    status = until(hub, "child", lambda s: s.health == "ok" and len(s.in_sync) == 2)
    assert {r.node_id for r in status.replicas} == {other.node_id, there}
    if moved == "passive":
        assert status.active is not None
        assert (status.active.replica_id, status.epoch) == (other.replica_id, other.epoch)


def test_drain_under_load___the_node_is_empty_and_stays_so(hub: raphub.Hub) -> None:
    child = start(hub)
    node_id = active_of(child).node_id
    with under_load(child):
        assert hub.drain(node_id, deadline_s=LIMIT_S).result(LIMIT_S).status == "done"
    assert node_id not in {r.node_id for r in child.replicas()}
    assert hub.undrain(node_id).result(LIMIT_S).ok


def test_scenario_31_ray_takes_the_actives_node_away___the_child_is_elsewhere_first(
    hub: raphub.Hub, cluster: LocalCluster, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    child = start(hub, cls=Warned, args=(str(told),))
    node_id = active_of(child).node_id
    with under_load(child):
        cluster.preempt_node(node_id, deadline_s=60)
        until(
            hub,
            "child",
            lambda s: s.health == "ok" and node_id not in {r.node_id for r in s.replicas},
        )
        cluster.kill_node(node_id)
    # Later tests count nodes, and Ray takes its time to see that one is gone.
    assert hub.wait_for(lambda h: node_id not in {n.node_id for n in h.nodes()}, LIMIT_S)
    # Whatever role it has by then: it may have made way before it is told.
    assert told.read_text().split() in (["active", "True"], ["passive", "True"])
    assert "replica_died" not in {event.kind for event in hub.events(child_id="child")}


def test_drain_without_room___waits_and_goes_on_when_a_node_joins(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    child = start(hub, factor=NODES, spread="strict")
    node_id = passive_of(child).node_id
    result = hub.drain(node_id, deadline_s=1).result(LIMIT_S)
    assert result.status == "waiting"
    assert len(result.left) == 1
    assert "no usable node has room" in result.errors[0].reason
    assert child.add.remote(1).result(LIMIT_S) == 1
    added = cluster.add_node()
    status = until(
        hub,
        "child",
        lambda s: node_id not in {r.node_id for r in s.replicas} and s.health == "ok",
    )
    assert added in {r.node_id for r in status.replicas}
    assert hub.undrain(node_id).result(LIMIT_S).ok


def test_what_cannot_be_moved_is_refused_and_the_child_serves(hub: raphub.Hub) -> None:
    child = start(hub)
    active, passive = active_of(child), passive_of(child)
    with pytest.raises(raphub.InvalidSetting, match="holds"):
        child.migrate(passive.replica_id, to=active.node_id).result(LIMIT_S)
    with pytest.raises(raphub.InvalidSetting, match="no node of this cluster is called 'moon'"):
        child.migrate(passive.replica_id, to="moon")
    with pytest.raises(raphub.InvalidSetting, match="names no copy"):
        child.migrate("child")
    with pytest.raises(raphub.ChildNotFound):
        hub.switchover("other")
    with pytest.raises(raphub.NotEnoughInSync, match="no passive on node"):
        child.switchover(to=free_node(hub)).result(LIMIT_S)
    with pytest.raises(raphub.InvalidSetting):
        hub.drain("moon")
    assert child.add.remote(1).result(LIMIT_S) == 1
    assert child.status().epoch == active.epoch


def test_conflicting_moves_of_one_copy___the_second_is_refused(hub: raphub.Hub) -> None:
    child = start(hub)
    copy = passive_of(child).replica_id
    first, second = child.migrate(copy), child.migrate(copy)
    with pytest.raises(raphub.HubBusy, match="on its way already"):
        second.result(LIMIT_S)
    assert first.result(LIMIT_S).ok


def test_paused___failover_goes_on_and_healing_does_not(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    child = start(hub)
    hub.pause()
    until_event(hub, "paused")
    old = active_of(child)
    assert old.pid is not None
    cluster.kill_process(old.pid)
    assert child.add.remote(1).result(LIMIT_S) == 1
    until_event(hub, "replica_retired", "child")
    assert len(child.replicas()) == 1
    hub.resume()
    until(hub, "child", lambda s: s.health == "ok" and len(s.replicas) == 2)


def test_a_move_goes_on_when_the_hub_actor_is_killed(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    child = start(hub)
    chosen = active_of(child)
    with under_load(child):
        asked = child.migrate(chosen.replica_id)
        until_event(hub, "migration", "child")
        cluster.kill_process(hub_pid(hub))
        until(
            hub,
            "child",
            lambda s: (
                chosen.replica_id not in {r.replica_id for r in s.replicas} and s.health == "ok"
            ),
        )
    del asked
