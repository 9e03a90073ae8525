"""Planted bugs of partition tolerance, and the laws that catch them."""

from __future__ import annotations

from typing import Any

import pytest

from raphub.core import partition
from raphub.core.hub_machine import HubMachine
from raphub.core.hub_state import HubState
from raphub.core.replica_machine import ReplicaMachine
from raphub.core.roles import retire
from tests.simulation.planted import Plant, hunt
from tests.simulation.scenario import short_of_nodes
from tests.simulation.simulation import Simulation

SEEDS_MAX = 150


def renew_while_partitioned(patch: pytest.MonkeyPatch) -> None:
    """A partitioned hub promotes nothing, and goes on granting leases."""
    right = HubMachine._renew

    def wrong(self: HubMachine, *asked: Any) -> None:
        held, self.state.standstill = self.state.standstill, ""
        right(self, *asked)
        self.state.standstill = held

    patch.setattr(HubMachine, "_renew", wrong)


def let_copies_that_all_serve_go_on(patch: pytest.MonkeyPatch) -> None:
    """Where all copies serve there is no lease, so nothing stops them."""
    patch.setattr(ReplicaMachine, "_needs_lease", property(lambda self: self.is_led))


def heal_while_partitioned(patch: pytest.MonkeyPatch) -> None:
    """Leases are withheld, and children are settled as ever."""
    right = HubMachine._settle

    def wrong(self: HubMachine, child_id: Any, now: float) -> None:
        held, self.state.standstill = self.state.standstill, ""
        right(self, child_id, now)
        self.state.standstill = held

    patch.setattr(HubMachine, "_settle", wrong)


def forget_the_size_of_the_cluster(patch: pytest.MonkeyPatch) -> None:
    """How many nodes there were is known to one life of the hub actor only."""
    right = HubMachine._recover

    def wrong(self: HubMachine, now: float) -> None:
        self.ledger.cluster_size = 0
        right(self, now)

    patch.setattr(HubMachine, "_recover", wrong)


def begin_anew_after_a_partition(patch: pytest.MonkeyPatch) -> None:
    """The copies of a partitioned hub are stopped, and others are started later."""
    right = partition._change

    def wrong(state: HubState, standstill: str, now: float) -> None:
        if standstill and state.standstill == "":
            for child in state.ledger.children.values():
                for number in list(child.replicas):
                    retire(state, child, number)
        right(state, standstill, now)

    patch.setattr(partition, "_change", wrong)


MUTANTS: dict[Plant, set[str]] = {
    renew_while_partitioned: {"quorum"},
    let_copies_that_all_serve_go_on: {"quorum"},
    heal_while_partitioned: {"quorum"},
    forget_the_size_of_the_cluster: {"quorum"},
    begin_anew_after_a_partition: {"2", "9", "room"},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_the_planted_bug_is_caught(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storms = (Simulation(seed, circumstances=short_of_nodes(seed)) for seed in range(SEEDS_MAX))
    hunt(plant, MUTANTS[plant], storms, monkeypatch, capsys)
