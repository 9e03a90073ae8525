"""Which fixtures does pytest find by itself where raphub is installed?

Importing this module imports neither Ray nor the rest of raphub: a test run that does not use the
fixtures does not pay for them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from raphub.hub import Hub
    from raphub.testing.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def raphub_cluster() -> Iterator[LocalCluster]:
    """A cluster of three nodes and a head, one for all tests of a module; they may break it."""
    from raphub.testing.local_cluster import LocalCluster  # noqa: PLC0415 - only who uses it pays

    with LocalCluster(nodes=3) as cluster:
        yield cluster


@pytest.fixture
def raphub_hub(raphub_cluster: LocalCluster) -> Iterator[Hub]:
    """A hub of the test's own on `raphub_cluster`, stopped with its children after the test."""
    from raphub.hub import Hub  # noqa: PLC0415 - as above
    from raphub.hub_config import HubConfig  # noqa: PLC0415 - as above

    assert raphub_cluster.address
    with Hub.start(HubConfig(hub_id=f"test-{uuid.uuid4().hex[:8]}")) as hub:
        yield hub
