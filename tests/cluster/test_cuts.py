"""A node whose link is cut lives on, and must not serve: scenario 33 over a real cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import raphub
from raphub.testing import LocalCluster, netns
from tests.cluster.keepers import Keeper
from tests.cluster.waiting import LIMIT_S, actives, until, until_ok, until_replaced


@pytest.fixture(scope="module")
def cuttable() -> Iterator[LocalCluster]:
    """Three nodes, each with a network of its own."""
    reason = netns.why_not()
    if reason is not None:
        pytest.skip(reason)
    with LocalCluster(nodes=3, isolation="netns") as running:
        yield running


@pytest.mark.timeout(300)
def test_an_active_that_is_cut_off_is_replaced_after_its_lease_and_never_serves_again(
    cuttable: LocalCluster,
) -> None:
    with raphub.Hub.start(raphub.HubConfig(hub_id="cut")) as hub:
        assert hub.start_child(raphub.ChildSpec(child_id="c", cls=Keeper)).result(LIMIT_S).ok
        before = until_ok(hub, "c")
        old = before.active
        assert old is not None
        assert hub.get("c").add.remote(1).result(LIMIT_S) == 1
        cuttable.cut(old.node_id)
        after = until(hub, "c", lambda s: s.epoch > before.epoch)
        assert hub.get("c").add.remote(1).result(LIMIT_S) == 2
        assert actives(after) != [old.replica_id]
        whole = until_replaced(hub, "c", old.replica_id)
        assert old.node_id not in {r.node_id for r in whole.replicas}
        cuttable.heal(old.node_id)
        assert hub.get("c").add.remote(1).result(LIMIT_S) == 3
        assert actives(until_ok(hub, "c")) == actives(after)
