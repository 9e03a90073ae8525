"""One cluster a module, one hub a test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.experimental.internal_kv import _internal_kv_list

import raphub
from raphub.testing import LocalCluster

_hubs = itertools.count(1)


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """Three nodes, or as many as the module's NODES says."""
    with LocalCluster(nodes=getattr(request.module, "NODES", 3)) as running:
        yield running


@pytest.fixture
def hub(cluster: LocalCluster) -> Iterator[raphub.Hub]:
    """A hub of the test's own, which replicates roles only; nothing of it is left behind."""
    config = raphub.HubConfig(
        hub_id=f"hub-{next(_hubs)}", redundancy=raphub.Replication(state="none")
    )
    with raphub.Hub.start(config) as started:
        yield started
    assert left_of(started.hub_id) == []


def left_of(hub_id: str) -> list[str]:
    """What of the hub is left in the cluster: actors, placement groups, keys."""
    named = ray.util.list_named_actors(all_namespaces=True)
    names = [actor["name"] for actor in named if actor["name"].split("/")[0] == hub_id]
    groups: list[dict[str, Any]] = list(ray.util.placement_group_table().values())
    names += [
        g["name"] for g in groups if g["name"].startswith(f"{hub_id}/") and g["state"] != "REMOVED"
    ]
    return names + [str(key) for key in keys_of(hub_id)]


def keys_of(hub_id: str) -> list[bytes]:
    """The hub's keys in the GCS key-value store."""
    found: list[bytes] = _internal_kv_list(b"", namespace=b"raphub")
    return [key for key in found if hub_id.encode() in key.split(b"/")]
