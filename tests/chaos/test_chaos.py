"""Is what clients see under strikes always what a single list could have answered?

`RAPHUB_CHAOS_SECONDS` says how long each run takes (20), `RAPHUB_CHAOS_SEED` throws its dice (by
chance). `python -m tests.chaos` runs one by hand and prints its figures.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from raphub import ChildSpec, StateNotReplicable
from raphub.status import Health
from raphub.testing import (
    History,
    LocalCluster,
    Operation,
    OperationKind,
    Outcome,
    ViolationKind,
)
from tests.chaos.chaos_run import CPUS_PER_NODE, NODES, Plan, Report, State, run
from tests.chaos.controls import FileBook, ForgetfulFileBook
from tests.chaos.striker import Strike, StrikeKind
from tests.chaos.workload import Book

SECONDS = float(os.environ.get("RAPHUB_CHAOS_SECONDS", "20"))
CONTROL_SECONDS = min(SECONDS, 12)
SEED = int(os.environ.get("RAPHUB_CHAOS_SEED", str(random.randrange(10**6))))
WRITES_A_SECOND_MIN = 10
SECONDS_A_KILL_MAX = 6.0

pytestmark = pytest.mark.timeout(SECONDS + 240)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=NODES, cpus_per_node=CPUS_PER_NODE) as running:
        yield running


def is_built(state: State) -> bool:
    try:
        ChildSpec(child_id="book", cls=Book, state=state)
    except StateNotReplicable:
        return False
    return True


def assert_was_enough(report: Report) -> None:
    """A run that nobody used, or that nothing happened to, proves nothing."""
    assert report.writes >= WRITES_A_SECOND_MIN * report.plan.seconds, str(report)
    assert report.kills >= report.plan.seconds // SECONDS_A_KILL_MAX, str(report)
    assert report.kills_of_active > 0, str(report)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize(
    "state",
    [
        pytest.param(
            state, marks=pytest.mark.skipif(not is_built(state), reason="is not built yet")
        )
        for state in ("snapshot", "log")
    ],
)
def test_nothing_acknowledged_is_lost_and_nothing_is_applied_twice(
    cluster: LocalCluster, state: State, factor: int, tmp_path: Path
) -> None:
    report = run(cluster, Plan(state, factor, SECONDS, seed=SEED), tmp_path)
    print(report)
    assert report.is_good, str(report)
    assert_was_enough(report)


# --- control experiments: these runs can fail, and fail for one reason only --------------------


def control(cluster: LocalCluster, folder: Path, cls: type[Book], *args: str) -> Report:
    plan = Plan("none", 2, CONTROL_SECONDS, seed=SEED, cls=cls, args=args)
    report = run(cluster, plan, folder)
    print(report)
    assert report.troubles == [], str(report)
    assert_was_enough(report)
    return report


def test_copies_that_share_nothing_lose_what_was_acknowledged(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    report = control(cluster, tmp_path, Book)
    assert ViolationKind.LOST_WRITE in {violation.kind for violation in report.violations}


def test_copies_that_share_a_file_are_found_right(cluster: LocalCluster, tmp_path: Path) -> None:
    report = control(cluster, tmp_path, FileBook, str(tmp_path / "book"))
    assert report.violations == [], str(report)


def test_copies_that_share_a_file_and_know_no_retries_apply_calls_twice(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    report = control(cluster, tmp_path, ForgetfulFileBook, str(tmp_path / "book"))
    assert {v.kind for v in report.violations} == {ViolationKind.DOUBLED_WRITE}, str(report)


def test_a_gap_belongs_to_the_first_strike_inside_it_or_to_the_last_before() -> None:
    operations = [
        Operation("x", OperationKind.APPEND, str(end), end - 0.5, end, Outcome.ANSWERED, place)
        for place, end in enumerate([1.0, 2.0, 7.0, 8.0, 11.0], 1)
    ]
    strikes = [
        Strike(kind, at, (), hit_active=True, writing=1, in_flow=True, health=Health.OK, in_sync=())
        for kind, at in [(StrikeKind.ACTIVE, 3.0), (StrikeKind.PASSIVE, 6.0)]
    ]
    items = [operation.item or "" for operation in operations]
    report = Report(
        Plan("none", 2, 12), History(operations), items, strikes, [], [], Counter(), Path()
    )
    assert report.gaps_s() == {StrikeKind.ACTIVE: 5.0, StrikeKind.PASSIVE: 3.0}
