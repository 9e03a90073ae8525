"""Do the fixtures that raphub offers to its users' tests work, and cost nothing where unused?

The fixtures are imported here, so that these tests use them also where raphub is not installed.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import raphub
from raphub.testing import LocalCluster
from raphub.testing.plugin import raphub_cluster as raphub_cluster  # noqa: PLC0414 - a fixture
from raphub.testing.plugin import raphub_hub as raphub_hub  # noqa: PLC0414 - a fixture
from tests.cluster.conftest import left_of
from tests.cluster.workloads import Clerk

ROOT = Path(__file__).parents[2]
_hubs: list[str] = []


def test_a_hub_is_there_and_runs_children(
    raphub_hub: raphub.Hub, raphub_cluster: LocalCluster
) -> None:
    _hubs.append(raphub_hub.hub_id)
    assert len(raphub_cluster.node_ids) == 3
    started = raphub_hub.start_child(raphub.ChildSpec(child_id="clerk", cls=Clerk))
    assert started.result(60).ok
    assert raphub_hub.get("clerk").add.remote(2).result(60) == 2


def test_the_next_test_has_a_hub_of_its_own_and_nothing_is_left_of_the_first(
    raphub_hub: raphub.Hub,
) -> None:
    [first] = _hubs
    assert raphub_hub.hub_id != first
    assert raphub_hub.lookup("clerk") is None
    assert left_of(first) == []


def test_pytest_finds_the_plugin_by_its_entry_point_and_loads_no_ray_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module = project["entry-points"]["pytest11"]["raphub"]
    script = f"import sys, {module}; sys.exit('ray' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
