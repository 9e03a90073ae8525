"""What happens when processes and nodes die, hang and join: scenarios 18, 21 to 30 and 33 to 35.

The tests share one cluster and replace the nodes that they kill.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import ray
from ray.exceptions import RayError

import raphub
from raphub import ChildSpec, HubConfig
from raphub.actors import calling
from raphub.status import ChildStatus
from raphub.testing import LocalCluster
from tests.cluster.conftest import left_of
from tests.cluster.waiting import (
    LIMIT_S,
    actives,
    nodes,
    until,
    until_event,
    until_ok,
    until_replaced,
)
from tests.cluster.workloads import Clerk, Sensitive, Stubborn

NODES = 4
ROLES = raphub.Replication(state="none")


@pytest.fixture(autouse=True)
def whole_cluster(cluster: LocalCluster) -> None:
    """Every test begins with as many nodes as the first."""
    while len(cluster.node_ids) < NODES:
        cluster.add_node()


def start(hub: raphub.Hub, child_id: str, **options: object) -> ChildStatus:
    """Start a clerk and wait until it is whole."""
    spec = ChildSpec(child_id=child_id, cls=Clerk, **options)  # type: ignore[arg-type]
    assert hub.start_child(spec).result(LIMIT_S).ok
    return until_ok(hub, child_id)


def active_node(status: ChildStatus) -> str:
    assert status.active is not None
    return status.active.node_id


def passive_of(status: ChildStatus) -> str:
    [passive] = [r.replica_id for r in status.replicas if r.role == "passive"]
    return passive


def pid_of(status: ChildStatus, replica_id: str) -> int:
    [pid] = [r.pid for r in status.replicas if r.replica_id == replica_id]
    assert pid is not None
    return pid


def told(hub: raphub.Hub, child_id: str) -> dict[str, list[str]]:
    calls = hub.get(child_id).all.told.remote()
    return {replica: call.result(LIMIT_S) for replica, call in calls.items()}


def test_scenario_18_one_copy_a_node_and_one_active(hub: raphub.Hub) -> None:
    status = start(hub, "wide", factor=4)
    assert len(nodes(status)) == 4
    assert len(actives(status)) == 1


def test_scenario_23_the_actives_node_is_killed_and_the_warm_copy_takes_over(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    before = start(hub, "c")
    warm, old = passive_of(before), before.active
    assert old is not None
    warm_pid = pid_of(before, warm)
    cluster.kill_node(active_node(before))
    assert hub.get("c").pid.remote().result(LIMIT_S) == warm_pid
    after = until_replaced(hub, "c", old.replica_id)
    assert after.active is not None
    assert (after.active.replica_id, after.epoch) == (warm, before.epoch + 1)
    assert told(hub, "c") == {warm: ["passive", "active"], passive_of(after): ["passive"]}


def test_scenario_24_the_passives_node_is_killed_and_the_active_hears_nothing(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    before = start(hub, "c")
    assert before.active is not None
    lost = passive_of(before)
    [node_id] = [r.node_id for r in before.replicas if r.replica_id == lost]
    cluster.kill_node(node_id)
    after = until_replaced(hub, "c", lost)
    assert (after.epoch, after.active) == (before.epoch, before.active)
    assert told(hub, "c")[before.active.replica_id] == ["active"]


def whole_without(node_id: str) -> Callable[[ChildStatus], bool]:
    """The condition that a child has all its copies, and none on this node."""
    return lambda s: s.health == "ok" and node_id not in {r.node_id for r in s.replicas}


def until_node(hub: raphub.Hub, node_id: str) -> None:
    """Wait until the hub counts the node."""
    assert hub.wait_for(lambda h: node_id in {n.node_id for n in h.nodes()}, LIMIT_S)


def test_scenario_25_26_27_many_children_survive_a_node_and_stay_put_when_one_joins(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    ids = [f"c{n}" for n in range(8)]
    specs = [ChildSpec(child_id=child_id, cls=Clerk) for child_id in ids]
    assert hub.start_children(specs).result(LIMIT_S * 2).ok
    for _ in range(2):
        victim = active_node(until_ok(hub, "c0"))
        cluster.kill_node(victim)
        for child_id in ids:
            status = until(hub, child_id, whole_without(victim))
            assert len(actives(status)) == 1
            assert len(nodes(status)) == 2
        settled = {c.child_id: (c.epoch, actives(c)) for c in hub.children()}
        joined = cluster.add_node()
        until_node(hub, joined)
        assert {c.child_id: (c.epoch, actives(c)) for c in hub.children()} == settled


def test_scenario_28_29_a_process_dies_and_exactly_that_copy_is_replaced(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    before = start(hub, "c")
    assert before.active is not None
    cluster.kill_process(pid_of(before, before.active.replica_id))
    second = until_replaced(hub, "c", before.active.replica_id)
    assert actives(second) == [passive_of(before)]
    assert second.epoch == before.epoch + 1
    lost = passive_of(second)
    cluster.kill_process(pid_of(second, lost))
    third = until_replaced(hub, "c", lost)
    assert (third.epoch, actives(third)) == (second.epoch, actives(second))
    assert told(hub, "c")[passive_of(third)] == ["passive"]


def test_scenario_30_a_child_that_keeps_crashing_is_given_up_and_others_are_unharmed(
    cluster: LocalCluster,
) -> None:
    config = HubConfig(hub_id="crashing", redundancy=ROLES, crash_limit=4, crash_backoff_s=0.1)
    with raphub.Hub.start(config) as hub:
        start(hub, "well")
        start(hub, "ill")
        while hub.lookup("ill").health != "stopped":  # type: ignore[union-attr]
            with contextlib.suppress(raphub.RaphubError):
                hub.get("ill").crash.remote().result(LIMIT_S)
        status = hub.lookup("ill")
        assert status is not None
        assert status.reason is not None
        assert "copies died" in status.reason
        with pytest.raises(raphub.NoActiveReplica, match="given up"):
            hub.get("ill").add.remote(1).result(LIMIT_S)
        well = hub.lookup("well")
        assert well is not None
        assert (well.health, well.epoch) == ("ok", 1)
    assert left_of("crashing") == []


def test_a_call_that_kills_its_copy_twice_is_not_run_again(hub: raphub.Hub) -> None:
    start(hub, "c")
    with pytest.raises(raphub.CallKilledReplica):
        hub.get("c").crash.remote().result(LIMIT_S)
    assert until_ok(hub, "c").epoch == 3


def test_without_retry_an_unknown_outcome_is_said_to_be_unknown(hub: raphub.Hub) -> None:
    start(hub, "c")
    with pytest.raises(raphub.CallOutcomeUnknown, match=r"c\.crash may have run"):
        hub.get("c").crash.options(retry=False).remote().result(LIMIT_S)


def test_scenario_33_a_hung_active_is_replaced_after_its_lease_and_refuses_when_it_wakes(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    before = start(hub, "c")
    old = before.active
    assert old is not None
    pid = pid_of(before, old.replica_id)
    cluster.pause_process(pid)
    header, _ = calling.Header("test", 1, before.epoch, "add").packed_with((1,), {})
    late = old.handle.serve.remote(header)
    assert hub.get("c").add.remote(1).result(LIMIT_S) == 1
    after = until(hub, "c", lambda s: s.epoch > before.epoch)
    assert actives(after) == [passive_of(before)]
    with contextlib.suppress(ProcessLookupError):
        cluster.resume_process(pid)
    try:
        answer = ray.get(late, timeout=LIMIT_S)
    except RayError:
        return
    assert isinstance(answer, calling.Refused | calling.Withheld)


def test_scenario_33_a_hung_node_is_replaced_and_fenced(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    before = start(hub, "c")
    node_id = active_node(before)
    cluster.pause_node(node_id)
    try:
        assert hub.get("c").add.remote(1).result(LIMIT_S) == 1
        after = until(
            hub, "c", lambda s: s.health == "ok" and node_id not in {r.node_id for r in s.replicas}
        )
        assert actives(after) == [passive_of(before)]
    finally:
        cluster.resume_node(node_id)
    assert hub.get("c").add.remote(1).result(LIMIT_S) == 2


def test_scenario_34_the_hub_actor_is_killed_and_calls_go_on(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    before = start(hub, "c")
    clerk = hub.get("c")
    term = hub.status().term
    cluster.kill_process(hub_pid(hub))
    answers = [clerk.add.remote(1).result(LIMIT_S)]
    while hub.status().term == term:
        answers.append(clerk.add.remote(1).result(LIMIT_S))
    assert answers == list(range(1, len(answers) + 1))
    assert until_ok(hub, "c").epoch == before.epoch


def test_scenario_34_the_hub_actor_and_the_active_die_together(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    before = start(hub, "c")
    assert before.active is not None
    cluster.kill_process(hub_pid(hub))
    cluster.kill_process(pid_of(before, before.active.replica_id))
    assert hub.get("c").add.remote(1).result(LIMIT_S) == 1
    after = until_replaced(hub, "c", before.active.replica_id)
    assert actives(after) == [passive_of(before)]


def test_scenario_34_the_hub_actor_is_killed_in_the_middle_of_a_start_and_finishes_it(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    specs = [ChildSpec(child_id=f"c{n}", cls=Clerk) for n in range(4)]
    request = hub.start_children(specs)
    assert hub.wait_for(lambda h: len(h.children()) == 4, LIMIT_S)
    cluster.kill_process(hub_pid(hub))
    result = request.result(LIMIT_S)
    assert (result.ok, sorted(result.started)) == (True, ["c0", "c1", "c2", "c3"])
    named = ray.util.list_named_actors(all_namespaces=True)
    assert len([a for a in named if a["name"].startswith(f"{hub.hub_id}/")]) == 8


def test_scenario_34_a_hub_actor_that_stands_still_is_replaced_by_its_guardian(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    before = start(hub, "c")
    term = hub.status().term
    cluster.pause_process(hub_pid(hub))
    assert hub.wait_for(lambda h: h.status().term > term, LIMIT_S)
    assert until_ok(hub, "c").epoch == before.epoch


def test_scenario_35_the_driver_that_started_the_hub_exits_and_everything_goes_on(
    cluster: LocalCluster,
) -> None:
    script = """
import raphub
from tests.cluster.workloads import Clerk
hub = raphub.Hub.start(raphub.HubConfig(hub_id="orphan"))
hub.start_child(raphub.ChildSpec(child_id="kept", cls=Clerk)).result(60)
Clerk = raphub.replicated(Clerk)
Clerk.options(hub="orphan").remote().wait_ready(60)
assert len(hub.children()) == 2
"""
    done = cluster.run_driver(script)
    assert done.returncode == 0, done.stderr
    with raphub.Hub.connect("orphan") as hub:
        assert hub.get("kept").add.remote(1).result(LIMIT_S) == 1
        assert hub.wait_for(lambda h: len(h.children()) == 1, LIMIT_S), "the job's child ends"
        pid = hub.get("kept").pid.remote().result(LIMIT_S)
        cluster.kill_process(pid)
        assert hub.get("kept").pid.remote().result(LIMIT_S) != pid
        assert until_ok(hub, "kept").epoch == 2
    assert left_of("orphan") == []


def test_scenario_21_cluster_size_gives_every_node_a_copy_and_a_new_one_too(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    before = start(hub, "c", factor="cluster_size")
    assert nodes(before) == set(cluster.node_ids)
    joined = cluster.add_node()
    after = until(hub, "c", lambda s: s.health == "ok" and joined in nodes(s))
    assert nodes(after) == set(cluster.node_ids)
    assert actives(after) == actives(before)
    cluster.kill_node(joined)
    assert nodes(until(hub, "c", lambda s: joined not in nodes(s))) == set(cluster.node_ids)


def test_scenario_22_more_copies_than_nodes_share_one_and_part_when_a_node_joins(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    spec = ChildSpec(child_id="c", cls=Clerk, factor=5)
    assert hub.start_child(spec).result(LIMIT_S).ok
    crowded = until(hub, "c", lambda s: len(s.ready) == 5)
    assert crowded.colocated
    assert crowded.health == "degraded"
    assert len(nodes(crowded)) == 4
    joined = cluster.add_node()
    parted = until(hub, "c", lambda s: s.health == "ok" and not s.colocated)
    assert joined in nodes(parted)
    assert actives(parted) == actives(crowded)
    cluster.kill_node(joined)


def test_scenario_22_strict_copies_never_share_a_node(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    start(hub, "c", factor=4, spread="strict")
    passive = next(r for r in until_ok(hub, "c").replicas if r.role == "passive")
    cluster.kill_node(passive.node_id)
    short = until(hub, "c", lambda s: s.health == "degraded" and passive.node_id not in nodes(s))
    assert len(short.ready) == 3
    assert not short.colocated
    joined = cluster.add_node()
    whole = until_ok(hub, "c")
    assert joined in nodes(whole)
    assert len(nodes(whole)) == 4


def test_a_role_callback_that_raises_is_an_event_and_stops_no_promotion(
    hub: raphub.Hub, cluster: LocalCluster
) -> None:
    spec = ChildSpec(child_id="c", cls=Sensitive)
    assert hub.start_child(spec).result(LIMIT_S).ok
    assert "cannot bear to be" in until_event(hub, "callback_failed", "c").text
    cluster.kill_process(hub.get("c").pid.remote().result(LIMIT_S))
    assert hub.get("c").add.remote(1).result(LIMIT_S) == 1


def test_an_heir_whose_callback_hangs_is_replaced_by_another_copy(cluster: LocalCluster) -> None:
    config = HubConfig(hub_id="stubborn", redundancy=ROLES, role_deadline_s=1.0)
    with raphub.Hub.start(config) as hub:
        spec = ChildSpec(child_id="c", cls=Stubborn, args=("c#2",), factor=3)
        assert hub.start_child(spec).result(LIMIT_S).ok
        before = until_ok(hub, "c")
        if actives(before) == ["c#2"]:
            pytest.skip("the stubborn copy was ready first, so it never became an heir")
        for replica in list(before.replicas):
            if replica.role == "active":
                cluster.kill_process(pid_of(before, replica.replica_id))
        assert hub.get("c").add.remote(1).result(LIMIT_S) == 1
        after = until(hub, "c", lambda s: s.health == "ok")
        assert actives(after) != ["c#2"]


def hub_pid(hub: raphub.Hub) -> int:
    """The process of the hub actor."""
    actor = ray.get_actor(hub.hub_id, namespace="raphub")
    return int(ray.get(actor.describe.remote(), timeout=LIMIT_S).pid)
