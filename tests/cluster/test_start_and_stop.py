"""Starting, stopping, and their results: scenarios 1 to 16."""

from __future__ import annotations

import asyncio
import threading

import pytest
import ray

import raphub
from raphub import ChildSpec, HubConfig
from raphub.testing import LocalCluster
from tests.cluster.conftest import left_of
from tests.cluster.waiting import actives, nodes, until_ok
from tests.cluster.workloads import Asynchronous, Clerk, Refuser, Streams

TIMEOUT_S = 60


def test_scenario_01_no_specs_is_a_clear_error(hub: raphub.Hub) -> None:
    with pytest.raises(raphub.InvalidSetting, match="no children were given"):
        hub.start_children([])
    assert hub.children() == []


def test_scenario_02_start_without_waiting_returns_at_once(hub: raphub.Hub) -> None:
    future = hub.start_child(ChildSpec(child_id="later", cls=Clerk))
    assert not future.done()
    assert hub.wait_for(lambda h: h.lookup("later") is not None, TIMEOUT_S)
    assert future.result(TIMEOUT_S).ok


def test_scenario_03_17_awaited_start_gives_factor_copies_on_distinct_nodes_one_active(
    hub: raphub.Hub,
) -> None:
    result = hub.start_child(ChildSpec(child_id="hits", cls=Clerk, args=(5,))).result(TIMEOUT_S)
    assert result.status == "ok"
    copies = result.started["hits"]
    assert len({copy.node_id for copy in copies}) == 2
    assert sorted(copy.role for copy in copies) == ["active", "passive"]
    assert hub.get("hits").add.remote(3).result(TIMEOUT_S) == 8
    told = {r: c.result(TIMEOUT_S) for r, c in hub.get("hits").all.told.remote().items()}
    assert sorted(told.values()) == [["active"], ["passive"]]


def test_scenario_04_05_06_ids_that_run_already(hub: raphub.Hub) -> None:
    spec = ChildSpec(child_id="one", cls=Clerk, factor=1)
    other = ChildSpec(child_id="other", cls=Clerk, factor=1)
    twice = [spec, spec]
    first = hub.start_children(twice).result(TIMEOUT_S)
    assert list(first.started) == ["one"]
    assert [error.child_id for error in first.errors] == ["one"]
    with pytest.raises(raphub.ChildAlreadyStarted, match="one"):
        hub.start_children([spec, other]).result(TIMEOUT_S)
    assert hub.lookup("other") is None
    pid = hub.get("one").pid.remote().result(TIMEOUT_S)
    mixed = hub.start_children([spec, other], check_existing=False).result(TIMEOUT_S)
    assert (mixed.status, list(mixed.started)) == ("error", ["other"])
    assert [error.child_id for error in mixed.errors] == ["one"]
    assert hub.get("one").pid.remote().result(TIMEOUT_S) == pid


def test_scenario_07_a_constructor_that_raises_is_reported_and_the_others_start(
    hub: raphub.Hub,
) -> None:
    specs = [ChildSpec(child_id="bad", cls=Refuser), ChildSpec(child_id="good", cls=Clerk)]
    result = hub.start_children(specs).result(TIMEOUT_S)
    assert (result.status, list(result.started)) == ("error", ["good"])
    [error] = result.errors
    assert error.child_id == "bad"
    assert error.node_id in {node.node_id for node in hub.nodes()}
    assert "LookupError: this class refuses to be built" in error.reason
    assert "workloads.py" in error.reason
    assert hub.lookup("bad") is None
    assert not [name for name in left_of(hub.hub_id) if "/bad#" in name]


def test_scenario_08_rollback_stops_what_was_started(hub: raphub.Hub) -> None:
    specs = [ChildSpec(child_id="good", cls=Clerk), ChildSpec(child_id="bad", cls=Refuser)]
    result = hub.start_children(specs, on_failure="rollback").result(TIMEOUT_S)
    assert (result.status, result.rolled_back, result.started) == ("error", True, {})
    assert hub.children() == []
    assert not [name for name in left_of(hub.hub_id) if "#" in name]


def test_scenario_09_a_timeout_says_so_and_the_child_still_comes_up(hub: raphub.Hub) -> None:
    future = hub.start_child(ChildSpec(child_id="slow", cls=Clerk))
    with pytest.raises(raphub.CallTimeout, match="the start of 1 child") as caught:
        future.result(0.001)
    assert caught.value.call.result(TIMEOUT_S).ok
    assert until_ok(hub, "slow").health == "ok"


def test_scenario_10_11_stop_leaves_nothing_and_unknown_ids_are_errors_at_once(
    hub: raphub.Hub,
) -> None:
    hub.start_child(ChildSpec(child_id="brief", cls=Clerk)).result(TIMEOUT_S)
    assert hub.stop_child("brief").result(TIMEOUT_S).stopped == ["brief"]
    assert hub.lookup("brief") is None
    assert not [name for name in left_of(hub.hub_id) if "#" in name]
    with pytest.raises(raphub.ChildNotFound, match="brief"):
        hub.stop_child("brief")


def test_a_child_that_is_started_again_goes_on_above_its_last_epoch(hub: raphub.Hub) -> None:
    spec = ChildSpec(child_id="again", cls=Clerk)
    first = hub.start_child(spec).result(TIMEOUT_S).started["again"]
    stopped = hub.stop_child("again")
    second = hub.start_child(spec).result(TIMEOUT_S).started["again"]
    assert stopped.result(TIMEOUT_S).ok
    assert max(r.epoch for r in second) > max(r.epoch for r in first)
    assert {r.replica_id for r in first}.isdisjoint(r.replica_id for r in second)


def test_scenario_12_static_children_run_when_start_returns(cluster: LocalCluster) -> None:
    config = HubConfig(hub_id="static", child_specs=[ChildSpec(child_id="fixed", cls=Clerk)])
    with raphub.Hub.start(config) as hub:
        assert hub.get("fixed").add.remote(1).result(TIMEOUT_S) == 1
        again = raphub.Hub.start(config)
        assert again.lookup("fixed") is not None
        with pytest.raises(raphub.HubConfigConflict, match="lease_duration_s"):
            raphub.Hub.start(config.model_copy(update={"lease_duration_s": 5.0}))
    assert left_of("static") == []
    refused = HubConfig(hub_id="static", child_specs=[ChildSpec(child_id="bad", cls=Refuser)])
    with pytest.raises(raphub.ChildStartFailed, match="refuses to be built"):
        raphub.Hub.start(refused)
    assert left_of("static") == []


def test_scenario_13_14_15_lookups_are_local_and_unknown_ids_never_hang(hub: raphub.Hub) -> None:
    specs = [ChildSpec(child_id=f"c{n}", cls=Clerk, factor=1) for n in range(3)]
    hub.start_children(specs[:2], metadata={"tag": "a"}).result(TIMEOUT_S)
    hub.start_children(specs[2:], metadata={"tag": "b"}).result(TIMEOUT_S)
    assert [child.child_id for child in hub.children(tag="a")] == ["c0", "c1"]
    assert hub.children(tag="nobody") == []
    found = hub.lookup("c0")
    assert found is not None
    assert found.spec is not None
    assert found.spec.cls == "tests.cluster.workloads:Clerk"
    assert len(found.replicas) == 1
    assert hub.lookup("unknown") is None
    with pytest.raises(raphub.ChildNotFound, match="unknown"):
        hub.get("unknown")


def test_scenario_16_every_process_has_the_same_registry(hub: raphub.Hub) -> None:
    specs = [ChildSpec(child_id=f"many-{n}", cls=Clerk, factor=1) for n in range(20)]
    assert hub.start_children(specs).result(TIMEOUT_S * 2).ok

    @ray.remote(num_cpus=0)
    def seen_elsewhere(hub_id: str) -> list[str]:
        return [str(child) for child in raphub.Hub.connect(hub_id).children()]

    elsewhere = ray.get(seen_elsewhere.remote(hub.hub_id), timeout=TIMEOUT_S)
    assert elsewhere == [str(child) for child in hub.children()]
    assert len(elsewhere) == 20


def test_bad_input_is_refused_at_once_and_leaves_nothing(hub: raphub.Hub) -> None:
    lock = threading.Lock()
    with pytest.raises(raphub.InvalidSetting, match="argument 1 cannot be pickled"):
        hub.start_child(ChildSpec(child_id="locked", cls=Clerk, args=(lock,)))
    strict = ChildSpec(child_id="strict", cls=Clerk, factor=4, spread="strict")
    with pytest.raises(raphub.NotEnoughNodes, match="4 usable nodes are needed, there are 3"):
        hub.start_child(strict).result(TIMEOUT_S)
    greedy = ChildSpec(child_id="greedy", cls=Clerk, num_gpus=1)
    with pytest.raises(raphub.NotEnoughNodes):
        hub.start_child(greedy).result(TIMEOUT_S)
    with pytest.raises(raphub.InvalidSetting, match="active_active"):
        ChildSpec(child_id="stateful", cls=Clerk, state="snapshot", model="active_active")
    with pytest.raises(raphub.StateNotReplicable, match="rows"):
        hub.start_child(ChildSpec(child_id="streams", cls=Streams, state="snapshot"))
    with pytest.raises(raphub.HubNotFound, match="elsewhere"):
        raphub.Hub.connect("elsewhere")
    assert hub.children() == []
    assert not [name for name in left_of(hub.hub_id) if "#" in name]


def test_exceptions_reach_the_caller_unchanged_with_the_remote_traceback(hub: raphub.Hub) -> None:
    hub.start_child(ChildSpec(child_id="failing", cls=Clerk, factor=1)).result(TIMEOUT_S)
    with pytest.raises(KeyError) as caught:
        hub.get("failing").fail.remote("lost key").result(TIMEOUT_S)
    assert type(caught.value) is KeyError
    assert caught.value.args == ("lost key",)
    assert "workloads.py" in caught.value.__notes__[0]
    with pytest.raises(AttributeError, match="no_such_method"):
        hub.get("failing").no_such_method.remote().result(TIMEOUT_S)


def test_calls_take_object_refs_calls_and_travel_themselves(hub: raphub.Hub) -> None:
    hub.start_child(ChildSpec(child_id="adder", cls=Clerk, factor=1)).result(TIMEOUT_S)
    adder = hub.get("adder")
    assert adder.add.remote(ray.put(4)).result(TIMEOUT_S) == 4
    assert adder.add.remote(adder.add.remote(1)).result(TIMEOUT_S) == 10
    assert ray.get(adder.add.remote(1).to_object_ref(), timeout=TIMEOUT_S) == 11

    @ray.remote(num_cpus=0)
    def add_from_afar(handle: raphub.ChildHandle[Clerk]) -> int:
        return handle.call(Clerk.add, 1).result(TIMEOUT_S)

    assert ray.get(add_from_afar.remote(adder), timeout=TIMEOUT_S) == 12
    assert raphub.results([adder.add.remote(1) for _ in range(5)], TIMEOUT_S) == [
        13,
        14,
        15,
        16,
        17,
    ]
    done, others = raphub.wait([adder.add.remote(1) for _ in range(3)], 3, TIMEOUT_S)
    assert (len(done), others) == (3, [])


def test_coroutine_methods_and_awaiting(hub: raphub.Hub) -> None:
    async def ask() -> list[int]:
        started = await hub.start_child(ChildSpec(child_id="co", cls=Asynchronous, factor=1))
        assert started.ok
        handle = hub.get("co")
        return list(await asyncio.gather(*(handle.double.remote(n) for n in range(3))))

    assert asyncio.run(ask()) == [0, 2, 4]


def test_the_decorator_from_the_first_line_on(cluster: LocalCluster) -> None:
    @raphub.replicated(factor=2)
    class Counter(raphub.Replicated):
        def __init__(self, start: int = 0) -> None:
            self.value = start

        def add(self, amount: int = 1) -> int:
            self.value += amount
            return self.value

    assert Counter(5).add(1) == 6
    with raphub.default_hub() as default:
        counter = Counter.remote(start=5)
        assert counter.add.remote(3).result(TIMEOUT_S) == 8
        status = counter.wait_ready(TIMEOUT_S)
        assert len(nodes(status)) == 2
        assert len(actives(status)) == 1
        named = Counter.options(child_id="hits", factor=1).remote(start=1)
        assert named.call(Counter.add, 1).result(TIMEOUT_S) == 2
        same = Counter.options(child_id="hits", get_if_exists=True).remote(start=9)
        assert same == named
        with pytest.raises(raphub.ChildAlreadyStarted):
            Counter.options(child_id="hits").remote()
        assert default.lookup("hits") is not None
    assert left_of("default") == []


def test_scenario_19_active_active_tells_and_serves_with_every_copy(hub: raphub.Hub) -> None:
    spec = ChildSpec(child_id="pool", cls=Clerk, factor=3, model="active_active")
    copies = hub.start_child(spec).result(TIMEOUT_S).started["pool"]
    assert [copy.role for copy in copies] == ["active"] * 3
    pool = hub.get("pool")
    told = [call.result(TIMEOUT_S) for call in pool.all.told.remote().values()]
    assert told == [["active"]] * 3
    served = {pool.pid.remote().result(TIMEOUT_S) for _ in range(9)}
    assert served == {copy.pid for copy in copies}


@pytest.mark.parametrize(
    ("signal", "expected"),
    [("active", [[], ["active"]]), ("passive", [[], ["passive"]]), ("none", [[], []])],
)
def test_scenario_20_only_the_wanted_signals_are_told(
    hub: raphub.Hub, signal: str, expected: list[list[str]]
) -> None:
    spec = ChildSpec(child_id="quiet", cls=Clerk, signal=signal)
    hub.start_child(spec).result(TIMEOUT_S)
    told = [call.result(TIMEOUT_S) for call in hub.get("quiet").all.told.remote().values()]
    assert sorted(told) == expected
