"""Does state survive on real nodes: both ways of replicating it, and every way of losing a copy?"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import ray

import raphub
from raphub import ChildSpec
from raphub.handle import ChildHandle
from raphub.status import ChildStatus
from raphub.testing import LocalCluster
from tests.cluster.keepers import Caller, Dice, Keeper, Large, Locked, OwnState, Roled, Slow
from tests.cluster.waiting import LIMIT_S, until, until_event, until_ok

NODES = 4
BOTH = pytest.mark.parametrize("state", ["snapshot", "log"])


@pytest.fixture(autouse=True)
def whole_cluster(cluster: LocalCluster) -> None:
    """Every test begins with as many nodes as the first."""
    while len(cluster.node_ids) < NODES:
        cluster.add_node()


def start(
    hub: raphub.Hub, cls: type, *args: Any, state: str = "snapshot", **options: Any
) -> ChildHandle[Any]:
    """Start a child and wait until all its copies are in sync."""
    spec = ChildSpec(child_id="child", cls=cls, args=args, state=state, **options)
    result = hub.start_child(spec).result(LIMIT_S)
    assert result.ok, result
    until_in_sync(hub)
    return hub.get("child")


def until_in_sync(hub: raphub.Hub) -> ChildStatus:
    return until(hub, "child", lambda s: s.health == "ok" and len(s.in_sync) == s.factor)


def kill_active(handle: ChildHandle[Any]) -> str:
    """SIGKILL of the process that serves."""
    active = handle.status().active
    assert active is not None
    assert active.pid is not None
    os.kill(active.pid, signal.SIGKILL)
    return active.replica_id


# --- what survives ----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("factor", [2, 3])
def test_state_survives_the_process_again_and_again(
    hub: raphub.Hub, state: str, factor: int
) -> None:
    keeper = start(hub, Keeper, 5, state=state, factor=factor)
    expected = 5
    for _ in range(3):
        for _ in range(20):
            expected += 1
            assert keeper.add.remote(1).result(LIMIT_S) == expected
        keeper.keep.remote(["x"]).result(LIMIT_S)
        kill_active(keeper)
        assert keeper.get.remote().result(LIMIT_S) == expected
        until_in_sync(hub)
    assert keeper.kept.remote().result(LIMIT_S) == [["x"]] * 3
    copies = {r: c.result(LIMIT_S) for r, c in keeper.all.kept.remote().items()}
    assert len(copies) == factor


@BOTH
def test_state_survives_the_node(hub: raphub.Hub, cluster: LocalCluster, state: str) -> None:
    keeper = start(hub, Keeper, state=state)
    assert keeper.add.remote(7).result(LIMIT_S) == 7
    active = keeper.status().active
    assert active is not None
    cluster.kill_node(active.node_id)
    assert keeper.add.remote(1).result(LIMIT_S) == 8


def test_scenario_32_all_copies_die_at_once(hub: raphub.Hub) -> None:
    keeper = start(hub, Keeper, 1)
    keeper.add.remote(1).result(LIMIT_S)
    for copy in keeper.status().replicas:
        assert copy.pid is not None
        os.kill(copy.pid, signal.SIGKILL)
    until(hub, "child", lambda s: s.health == "lost")
    until_event(hub, "data_lost", "child")
    with pytest.raises(raphub.DataLost):
        keeper.get.remote().result(LIMIT_S)


def test_scenario_32_a_child_that_may_begin_anew_says_that_it_did(hub: raphub.Hub) -> None:
    keeper = start(hub, Keeper, 1, on_data_loss="restart_empty")
    keeper.add.remote(1).result(LIMIT_S)
    for copy in keeper.status().replicas:
        assert copy.pid is not None
        os.kill(copy.pid, signal.SIGKILL)
    until_event(hub, "data_lost", "child")
    until_in_sync(hub)
    assert keeper.get.remote().result(LIMIT_S) == 1


def test_what_attributes_share_they_share_on_the_next_copy(hub: raphub.Hub) -> None:
    keeper = start(hub, Keeper)
    keeper.keep.remote("a").result(LIMIT_S)
    kill_active(keeper)
    assert keeper.is_shared.remote().result(LIMIT_S)
    keeper.keep.remote("b").result(LIMIT_S)
    until_in_sync(hub)
    kill_active(keeper)
    assert keeper.is_shared.remote().result(LIMIT_S)
    assert keeper.kept.remote().result(LIMIT_S) == ["a", "b"]


def test_a_class_may_say_itself_what_its_state_is(hub: raphub.Hub) -> None:
    own = start(hub, OwnState)
    assert own.add.remote(4).result(LIMIT_S) == 4
    kill_active(own)
    assert own.get.remote().result(LIMIT_S) == 4


@BOTH
def test_local_attributes_stay_with_their_copy(hub: raphub.Hub, state: str) -> None:
    roled = start(hub, Roled, state=state)
    roled.add.remote(3).result(LIMIT_S)
    told = {r: c.result(LIMIT_S) for r, c in roled.all.told.remote().items()}
    assert sorted(told.values()) == [("active", True), ("passive", True)]
    kill_active(roled)
    assert roled.told.remote().result(LIMIT_S) == ("active", True)
    assert roled.get.remote().result(LIMIT_S) == 3


# --- exactly once -----------------------------------------------------------------------------


@BOTH
def test_calls_under_way_are_applied_once_and_in_order(hub: raphub.Hub, state: str) -> None:
    keeper = start(hub, Keeper, state=state, factor=3)
    calls = [keeper.keep.remote(number) for number in range(300)]
    kill_active(keeper)
    calls += [keeper.keep.remote(number) for number in range(300, 400)]
    assert [call.result(LIMIT_S) for call in calls] == list(range(1, 401))
    assert keeper.kept.remote().result(LIMIT_S) == list(range(400))


def test_calls_that_nobody_waits_for_are_sent_again(hub: raphub.Hub) -> None:
    keeper = start(hub, Keeper)
    for number in range(100):
        keeper.keep.remote(number)
    kill_active(keeper)
    until_in_sync(hub)
    assert keeper.keep.remote("last").result(LIMIT_S) == 101
    assert keeper.kept.remote().result(LIMIT_S) == [*range(100), "last"]


def test_a_call_that_kills_every_copy_runs_twice_and_no_more(
    hub: raphub.Hub, tmp_path: Path
) -> None:
    keeper = start(hub, Keeper, factor=3)
    keeper.add.remote(1).result(LIMIT_S)
    with pytest.raises(raphub.CallKilledReplica):
        keeper.kill.remote(str(tmp_path)).result(LIMIT_S)
    assert len((tmp_path / "runs").read_text().split()) == 2
    assert keeper.add.remote(1).result(LIMIT_S) == 2


def test_a_call_in_which_its_copy_died_waits_for_another_copy(
    hub: raphub.Hub, tmp_path: Path
) -> None:
    keeper = start(hub, Keeper, factor=2)
    assert keeper.kill_once.remote(str(tmp_path)).result(LIMIT_S) == 1
    assert len(keeper.status().replicas) == 2


@BOTH
def test_a_call_has_the_same_id_on_every_run(hub: raphub.Hub, state: str) -> None:
    keeper = start(hub, Keeper, state=state)
    ids = [keeper.call_id.remote().result(LIMIT_S) for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(ids)


def test_calls_to_other_children_are_applied_once_too(hub: raphub.Hub, tmp_path: Path) -> None:
    other = ChildSpec(child_id="other", cls=Keeper, state="snapshot")
    assert hub.start_child(other).result(LIMIT_S).ok
    until(hub, "other", lambda s: len(s.in_sync) == 2)
    caller = start(hub, Caller, hub.get("other"))
    assert caller.pass_on.remote(str(tmp_path)).result(LIMIT_S) == 1
    assert hub.get("other").get.remote().result(LIMIT_S) == 1


# --- reads, batches, streams ------------------------------------------------------------------


def test_reads_may_go_to_a_passive(hub: raphub.Hub) -> None:
    keeper = start(hub, Keeper)
    keeper.add.remote(1).result(LIMIT_S)
    active = keeper.status().active
    assert active is not None
    asked = keeper.where.options(read_from="passive", max_lag_writes=0)
    # It answers once it has heard what the active holds.
    assert any(asked.remote().result(LIMIT_S)[0] != active.replica_id for _ in range(5000))
    assert keeper.get.options(read_from="any").remote().result(LIMIT_S) == 1


@BOTH
def test_a_map_keeps_the_order_and_survives_a_kill(hub: raphub.Hub, state: str) -> None:
    keeper = start(hub, Keeper, state=state)
    results = keeper.keep.map(range(2000), batch_size=100)
    seen = [next(results) for _ in range(150)]
    kill_active(keeper)
    seen += list(results)
    assert seen == list(range(1, 2001))
    assert keeper.kept.remote().result(LIMIT_S) == list(range(2000))


def test_generators_that_only_read_can_be_streamed(hub: raphub.Hub) -> None:
    keeper = start(hub, Keeper)
    assert list(keeper.count_to.options(stream=True).remote(5)) == [0, 1, 2, 3, 4]
    assert list(keeper.count_slowly.options(stream=True).remote(3)) == [0, 1, 2]


@BOTH
def test_coroutine_methods_are_writes_in_order(hub: raphub.Hub, state: str) -> None:
    keeper = start(hub, Keeper, state=state)
    calls = [keeper.add_later.remote(1) for _ in range(20)]
    assert [call.result(LIMIT_S) for call in calls] == list(range(1, 21))
    kill_active(keeper)
    assert keeper.get.remote().result(LIMIT_S) == 20


# --- what goes wrong --------------------------------------------------------------------------


@BOTH
def test_a_method_that_raises_midway_leaves_the_same_on_every_copy(
    hub: raphub.Hub, state: str
) -> None:
    keeper = start(hub, Keeper, state=state)
    with pytest.raises(KeyError, match="midway"):
        keeper.fail_midway.remote().result(LIMIT_S)
    assert keeper.get.remote().result(LIMIT_S) == 1000
    kill_active(keeper)
    assert keeper.get.remote().result(LIMIT_S) == 1000


def test_state_that_cannot_travel_is_refused_when_the_child_starts(hub: raphub.Hub) -> None:
    result = hub.start_child(ChildSpec(child_id="child", cls=Locked, state="snapshot")).result(
        LIMIT_S
    )
    assert not result.ok
    assert "door" in result.errors[0].reason
    assert "Local" in result.errors[0].reason


def test_state_that_becomes_unable_to_travel_is_given_up_for_the_last_that_could(
    hub: raphub.Hub,
) -> None:
    keeper = start(hub, Keeper)
    keeper.add.remote(2).result(LIMIT_S)
    with pytest.raises(raphub.StateNotReplicable, match="lock"):
        keeper.spoil.remote().result(LIMIT_S)
    assert keeper.add.remote(1).result(LIMIT_S) == 3
    until_in_sync(hub)


def test_an_answer_that_cannot_travel_is_an_error_and_the_state_goes_on(hub: raphub.Hub) -> None:
    keeper = start(hub, Keeper)
    with pytest.raises(raphub.StateNotReplicable, match="odd_answer"):
        keeper.odd_answer.remote().result(LIMIT_S)
    kill_active(keeper)
    assert keeper.get.remote().result(LIMIT_S) == 1


def test_an_object_ref_has_no_place_in_the_state(hub: raphub.Hub) -> None:
    keeper = start(hub, Keeper)
    with pytest.raises(raphub.StateNotReplicable):
        keeper.keep.remote([ray.put("mine")]).result(LIMIT_S)
    assert keeper.kept.remote().result(LIMIT_S) == []


@pytest.mark.parametrize("method", ["throw", "quiet_throw"])
def test_a_copy_that_diverges_is_found_and_replaced(hub: raphub.Hub, method: str) -> None:
    dice = start(hub, Dice, state="log")
    for _ in range(1 if method == "throw" else 300):
        getattr(dice, method).remote().result(LIMIT_S)
    until_event(hub, "diverged", "child")


def test_too_few_copies_in_sync_refuse_writes_and_go_on_reading(
    hub: raphub.Hub, tmp_path: Path
) -> None:
    keeper = start(hub, Slow, str(tmp_path), 5.0, min_in_sync=2)
    assert keeper.add.remote(1).result(LIMIT_S) == 1
    [passive] = [r for r in keeper.status().replicas if r.role == "passive"]
    assert passive.pid is not None
    os.kill(passive.pid, signal.SIGKILL)
    until_event(hub, "replica_retired", "child")
    # What the hub told the active on the same way is there before the last of these.
    assert [keeper.get.remote().result(LIMIT_S) for _ in range(50)] == [1] * 50
    with pytest.raises(raphub.NotEnoughInSync):
        keeper.add.remote(1).result(LIMIT_S)
    assert keeper.get.remote().result(LIMIT_S) == 1
    until_in_sync(hub)
    assert keeper.add.remote(1).result(LIMIT_S) == 2


def test_the_first_write_waits_for_a_second_copy_but_not_for_ever(
    hub: raphub.Hub, tmp_path: Path
) -> None:
    spec = ChildSpec(
        child_id="child", cls=Slow, args=(str(tmp_path), 8.0), state="snapshot", start_grace_s=2
    )
    start = hub.start_child(spec)
    slow = hub.get("child") if hub.lookup("child") else None
    until(hub, "child", lambda s: s.active is not None)
    slow = slow or hub.get("child")
    began = time.monotonic()
    assert slow.add.remote(1).result(LIMIT_S) == 1
    assert time.monotonic() - began > 1
    until_event(hub, "opened_degraded", "child")
    assert start.result(LIMIT_S).ok
    until_in_sync(hub)


def test_a_large_state_is_copied_in_pieces_and_writes_go_on(hub: raphub.Hub) -> None:
    large = start(hub, Large, 40)
    assert large.add.remote().result(LIMIT_S) == 1
    kill_active(large)
    assert large.add.remote().result(LIMIT_S) == 2
    until_in_sync(hub)
    assert large.change_all.remote().result(LIMIT_S) == 3
    kill_active(large)
    assert large.size.remote().result(LIMIT_S) == 40 * 1024 * 1024
    assert large.add.remote().result(LIMIT_S) == 4
    until_ok(hub, "child")
