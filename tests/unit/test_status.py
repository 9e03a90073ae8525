"""Do snapshots say what they hold, whatever they hold?"""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from raphub import render
from raphub.core.model import Health, Phase, Role
from raphub.snapshot import Snapshot
from raphub.spec import ChildSpec, HubConfig, ReplicatedOptions, StartedSpec, plan_child
from raphub.status import (
    ChildStatus,
    Event,
    HubStatus,
    NodeStatus,
    ReplicaStatus,
    StartError,
    StartResult,
    StopError,
    StopResult,
    children_table,
    events_table,
    nodes_table,
    short_id,
)

NODE = "3f2a9c01" + "ab" * 24


def replica(number: int = 1, role: Role = Role.PASSIVE, **fields: Any) -> ReplicaStatus:
    values: dict[str, Any] = {
        "replica_id": f"hits#{number}",
        "node_id": NODE,
        "role": role,
        "phase": Phase.READY,
        "epoch": 1,
        "pid": 42,
        **fields,
    }
    return ReplicaStatus(**values)


def started_spec() -> StartedSpec:
    spec = ChildSpec(child_id="hits", cls="shop:Counter", metadata={"tag": "a"})
    return StartedSpec.of(
        plan_child(spec, HubConfig(), class_options=ReplicatedOptions(), job_id=None, payload=b"")
    )


def child(**fields: Any) -> ChildStatus:
    copies = [replica(1, Role.ACTIVE), replica(2)]
    values: dict[str, Any] = {
        "child_id": "hits",
        "health": Health.OK,
        "active": copies[0],
        "replicas": copies,
        "epoch": 1,
        "factor": 2,
        "in_sync": ["hits#1", "hits#2"],
        "metadata": {"tag": "a"},
        "spec": started_spec(),
        **fields,
    }
    return ChildStatus(**values)


NODES = [
    NodeStatus(node_id=NODE, address="10.0.0.7", replicas=["hits#1"], labels={"zone": "a"}),
    NodeStatus(node_id="head", is_head=True, usable=False),
]


# --- What they say ----------------------------------------------------------------------------


def test_each_prints_as_one_line() -> None:
    moment = 1_764_000_000.1234
    told: list[tuple[Snapshot, str]] = [
        (replica(1, Role.ACTIVE), "<ReplicaStatus hits#1 active, ready on 3f2a9c01, epoch 1>"),
        (
            replica(2, phase="building"),
            "<ReplicaStatus hits#2 passive, building on 3f2a9c01, epoch 1>",
        ),
        (child(), "<ChildStatus hits ok: hits#1 active on 3f2a9c01, 2 of 2 copies, epoch 1>"),
        (
            child(health="no_active", active=None, reason="waits for proof", factor=1),
            "<ChildStatus hits no_active: no active, 2 of 1 copy, epoch 1 (waits for proof)>",
        ),
        (NODES[0], "<NodeStatus 3f2a9c01 at 10.0.0.7, usable, 1 copy>"),
        (NODES[1], "<NodeStatus head, the head, not usable, 0 copies>"),
        (
            HubStatus(hub_id="shop", nodes=NODES, children=[child(), child(health="lost")]),
            "<HubStatus shop: 1 usable node, 2 children (1 lost, 1 ok)>",
        ),
        (
            HubStatus(hub_id="shop", is_partitioned=True),
            "<HubStatus shop: 0 usable nodes, 0 children, partitioned>",
        ),
        (
            StartResult(status="ok", started={"hits": [replica(1), replica(2)]}),
            "<StartResult ok: 1 child on 1 node>",
        ),
        (
            StartResult(status="error", errors=[StartError("a", None, "boom")], rolled_back=True),
            "<StartResult error: 0 children on 0 nodes, 1 error, all rolled back>",
        ),
        (StopResult(status="ok", stopped=["a", "b"]), "<StopResult ok: 2 children stopped>"),
        (
            Event(index=1, time_s=moment, kind="promoted", replica_id="a#2", text="a#1 is gone"),
            "<Event 2025-11-24 16:00:00.123Z promoted a#2: a#1 is gone>",
        ),
        (
            Event(index=1, time_s=moment, kind="node_left", node_id=NODE),
            "<Event 2025-11-24 16:00:00.123Z node_left 3f2a9c01>",
        ),
    ]
    for shown, line in told:
        assert str(shown) == repr(shown) == line


def test_a_child_as_a_table() -> None:
    shown = child(health="degraded", factor=3, reason="2 of 3 copies", colocated=True)
    assert shown.as_text().splitlines() == [
        "hits: degraded, 2 of 3 copies, epoch 1",
        "replica  role     phase  node      epoch  lag  pid",
        "hits#1   active   ready  3f2a9c01  1      0    42",
        "hits#2   passive  ready  3f2a9c01  1      0    42",
        "Why: 2 of 3 copies",
        "Copies share a node; they part when a node joins.",
        "Metadata: tag=a",
    ]


def test_a_hub_as_tables() -> None:
    shown = HubStatus(hub_id="shop", nodes=NODES, children=[child(), child(active=None)])
    assert shown.as_text().splitlines() == [
        "hub shop: 1 usable node, 2 children (2 ok)",
        "child  health  copies  active  node      epoch  why",
        "hits   ok      2/2     1       3f2a9c01  1",
        "hits   ok      2/2     none              1",
        "",
        "nodes",
        "node      address   usable  head  copies  labels",
        "3f2a9c01  10.0.0.7  yes           1       zone=a",
        "head                no      yes   0",
    ]


def test_an_empty_hub_says_what_to_do_next() -> None:
    told = HubStatus(hub_id="shop").as_text()
    assert "start one with" in told
    assert "is Ray running" in told


def test_a_traceback_is_told_by_its_last_line() -> None:
    reason = "Traceback (most recent call last):\n  File x\nValueError: no seats\n\n"
    shown = StartResult(status="error", errors=[StartError("hits", NODE, reason)])
    assert "ValueError: no seats" in shown.as_text()
    assert "Traceback" not in shown.as_text()
    assert shown.errors[0].reason == reason


def test_rays_own_labels_are_left_out() -> None:
    node = NodeStatus(node_id="a", labels={"ray.io/node-id": "x", "zone": "b"})
    assert nodes_table([node]).rows[0][-1] == "zone=b"


def test_a_short_id_keeps_a_short_name_whole() -> None:
    assert short_id(NODE) == "3f2a9c01"
    assert short_id("node-1") == "node-1"


# --- Results ----------------------------------------------------------------------------------


def test_a_start_result_answers_the_usual_questions() -> None:
    first, second = [replica(1), replica(2, node_id="n2")], [replica(3)]
    result = StartResult(status="ok", started={"a": first, "b": second})
    assert result.ok
    assert result.ids == ["a", "b"]
    assert result.first == ("a", first)
    assert result.nodes() == [NODE, "n2"]


def test_a_start_result_with_nothing_started() -> None:
    result = StartResult(status="error", errors=[StartError("a", None, "runs already")])
    assert not result.ok
    assert (result.ids, result.first, result.nodes()) == ([], None, [])
    [(child_id, node_id, reason)] = result.errors
    assert (child_id, node_id, reason) == ("a", None, "runs already")


def test_a_stop_result_answers_the_usual_questions() -> None:
    result = StopResult(status="ok", stopped=["a", "b"])
    assert (result.ok, result.ids, result.first) == (True, ["a", "b"], "a")
    failed = StopResult(status="error", errors=[StopError("c", None, "there is no child 'c'")])
    assert (failed.ok, failed.ids, failed.first) == (False, [], None)
    assert "there is no child 'c'" in failed.as_text()


# --- Values -----------------------------------------------------------------------------------


def test_a_child_counts_only_copies_that_are_up_as_ready() -> None:
    copies = [replica(1), replica(2, phase=Phase.BUILDING), replica(3, phase=Phase.STOPPING)]
    assert child(replicas=copies).ready == copies[:1]


def test_words_and_enumerations_are_the_same() -> None:
    assert child(health="degraded").health is Health.DEGRADED
    assert str(child(health=Health.DEGRADED).health) == "degraded"


def test_a_snapshot_is_frozen_and_closed() -> None:
    shown: Any = child()
    with pytest.raises(ValidationError):
        shown.health = Health.LOST
    with pytest.raises(ValidationError):
        replica(state="x")


def test_the_handle_is_neither_dumped_nor_compared() -> None:
    handle = object()
    with_handle, without = replica(handle=handle), replica()
    assert with_handle.handle is handle
    assert "handle" not in with_handle.model_dump()
    assert "handle" not in with_handle.model_dump_json()
    assert with_handle == without
    assert hash(with_handle) == hash(without)
    assert with_handle != replica(epoch=2)
    assert with_handle != "hits#1"


def test_the_handle_travels_in_a_pickle() -> None:
    copy = pickle.loads(pickle.dumps(child(replicas=[replica(handle=("a", "handle"))])))
    assert copy.replicas[0].handle == ("a", "handle")


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
replicas = st.builds(
    ReplicaStatus,
    replica_id=words,
    node_id=words,
    role=st.sampled_from(Role),
    phase=st.sampled_from(Phase),
    epoch=st.integers(),
    pid=st.none() | st.integers(),
    handle=st.just(object()),
)
children = st.builds(
    ChildStatus,
    child_id=words,
    health=st.sampled_from(Health),
    active=st.none() | replicas,
    replicas=st.lists(replicas, max_size=3),
    metadata=st.dictionaries(words, words, max_size=2),
    reason=st.none() | words,
    colocated=st.booleans(),
)
nodes = st.builds(
    NodeStatus,
    node_id=words,
    address=words,
    labels=st.dictionaries(words, words, max_size=2),
    replicas=st.lists(words, max_size=2),
)
snapshots = st.one_of(
    replicas,
    children,
    nodes,
    st.builds(
        HubStatus,
        hub_id=words,
        nodes=st.lists(nodes, max_size=2),
        children=st.lists(children, max_size=2),
    ),
    st.builds(
        StartResult,
        status=st.sampled_from(["ok", "error"]),
        started=st.dictionaries(words, st.lists(replicas, max_size=2), max_size=2),
        errors=st.lists(st.builds(StartError, words, st.none() | words, words), max_size=2),
    ),
    st.builds(
        StopResult,
        status=st.sampled_from(["ok", "error"]),
        stopped=st.lists(words, max_size=2),
        errors=st.lists(st.builds(StopError, words, st.none() | words, words), max_size=2),
    ),
    st.builds(
        Event,
        index=st.integers(),
        time_s=st.floats(0, 4e9),
        kind=words,
        child_id=st.none() | words,
        text=words,
    ),
)


@given(snapshots)
def test_whatever_a_snapshot_holds_it_prints_on_one_line(snapshot: Snapshot) -> None:
    line = repr(snapshot)
    assert line.startswith(f"<{type(snapshot).__name__} ")
    assert "cannot be shown" not in line
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


@given(snapshots)
def test_whatever_a_snapshot_holds_its_tables_fit(snapshot: Snapshot) -> None:
    for line in snapshot.as_text().split("\n"):
        assert render.columns(line) <= 80
    page = snapshot._repr_html_()
    assert page is not None
    assert page.count("<td") == sum(len(row) for table in snapshot.tables() for row in table.rows)


@given(snapshots)
def test_a_snapshot_read_back_from_json_is_equal(snapshot: Snapshot) -> None:
    assert type(snapshot).model_validate_json(snapshot.model_dump_json()) == snapshot


def test_a_snapshot_that_cannot_be_shown_says_so_and_does_not_raise() -> None:
    half_made = ChildStatus.model_construct()
    assert repr(half_made) == "<ChildStatus that cannot be shown>"
    assert half_made._repr_html_() is None
    far_off = Event(index=1, time_s=1e30, kind="x")
    assert str(far_off) == "<Event that cannot be shown>"


def test_lists_have_tables_too() -> None:
    event = Event(index=1, time_s=0, kind="lost", child_id="hits", node_id=NODE, text="gone")
    assert events_table([event]).rows == (
        ("1970-01-01 00:00:00.000Z", "lost", "hits", "3f2a9c01", "gone"),
    )
    assert children_table([], title="none").empty
    assert events_table([]).empty
