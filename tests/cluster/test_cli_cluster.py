"""The command line on a running cluster, as a shell on one of its nodes would use it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

import raphub
from raphub import ChildSpec
from raphub.testing import LocalCluster
from tests.cluster.conftest import left_of
from tests.cluster.waiting import LIMIT_S, until_ok
from tests.cluster.workloads import Clerk

COMMAND = "from raphub.cli import main; main()"

STATUS = """\
hub {hub}: 3 usable nodes, 1 child (1 ok)
child  health  copies  active  node      epoch  why
hits   ok      2/2     N       NODE      1

nodes
node      address  usable  head  copies  labels
"""


def command(cluster: LocalCluster, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments, "--address", cluster.address],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def hits(hub: raphub.Hub) -> raphub.Hub:
    assert hub.start_child(ChildSpec(child_id="hits", cls=Clerk)).result(LIMIT_S).ok
    until_ok(hub, "hits")
    return hub


def test_without_a_hub_status_is_a_sentence_with_the_next_step(cluster: LocalCluster) -> None:
    sentence = "No hub runs in this cluster: start one with raphub.Hub.start(...).\n"
    assert command(cluster, "status") == (0, sentence, "")
    code, stdout, stderr = command(cluster, "status", "--json")
    assert (code, json.loads(stdout), stderr) == (0, [], "")


def test_status_shows_the_children_and_the_nodes(cluster: LocalCluster, hits: raphub.Hub) -> None:
    code, stdout, stderr = command(cluster, "status", hits.hub_id)
    assert (code, stderr) == (0, "")
    lines = [re.sub(r"\b[0-9a-f]{8}\b", "NODE    ", line).rstrip() for line in stdout.splitlines()]
    lines[2] = re.sub(r"(2/2 +)\d", r"\1N", lines[2])
    lines[5] = re.sub(r"address +", "address  ", lines[5])
    assert "\n".join(lines[:6]) + "\n" == STATUS.format(hub=hits.hub_id)
    assert len(lines) == 6 + 4
    assert all(len(line) <= 80 for line in lines)


def test_status_of_all_hubs_is_the_same_when_there_is_one(
    cluster: LocalCluster, hits: raphub.Hub
) -> None:
    assert command(cluster, "status") == command(cluster, "status", hits.hub_id)


def test_status_as_json_is_the_status(cluster: LocalCluster, hits: raphub.Hub) -> None:
    code, stdout, stderr = command(cluster, "status", hits.hub_id, "--json")
    assert (code, stderr) == (0, "")
    assert json.loads(stdout) == hits.status().model_dump(mode="json")
    code, stdout, _ = command(cluster, "status", "--json")
    assert json.loads(stdout) == [hits.status().model_dump(mode="json")]


def test_an_unknown_hub_is_an_error_that_names_the_others(
    cluster: LocalCluster, hub: raphub.Hub
) -> None:
    expected = (
        1,
        "",
        f"Error: no hub 'shop' runs in this cluster.\nHint: These run: {hub.hub_id}.\n",
    )
    assert command(cluster, "status", "shop") == expected
    assert command(cluster, "stop", "shop") == expected


def test_stop_leaves_nothing_of_the_hub(cluster: LocalCluster, hits: raphub.Hub) -> None:
    told = f"The hub {hits.hub_id!r} is stopped, and with it 1 child.\n"
    assert command(cluster, "stop", hits.hub_id) == (0, "", told)
    assert left_of(hits.hub_id) == []
    assert hits.hub_id not in raphub.hubs()
