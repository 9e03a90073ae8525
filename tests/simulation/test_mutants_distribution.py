"""A simulator that is green proves nothing until it has caught planted bugs.

These are mistakes of where copies go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from raphub.core import placement, sites
from raphub.core.hub_state import HubState
from raphub.core.model import DistributionKind, Node, NodeId
from raphub.core.records import Child
from tests.simulation.planted import Plant, hunt
from tests.simulation.scenario import distributed
from tests.simulation.simulation import Simulation

SEEDS_MAX = 150


def heal_a_guided_child_anywhere(patch: pytest.MonkeyPatch) -> None:
    """When mapped nodes are away, any other one has to do."""
    right = placement.by_mapping

    def wrong(
        entries: Sequence[str], nodes: Sequence[Node], taken: Mapping[NodeId, int]
    ) -> list[Node]:
        mapped = right(entries, nodes, taken)
        return mapped if len(mapped) == len(entries) else [*mapped, *nodes]

    patch.setattr(placement, "by_mapping", wrong)


def use_a_machine_twice(patch: pytest.MonkeyPatch) -> None:
    """Two nodes of one mapped machine count as two places."""
    patch.setattr(
        placement,
        "by_mapping",
        lambda entries, nodes, _: [
            node for entry in entries for node in nodes if placement.is_named(entry, node)
        ],
    )


def heal_into_a_zone_that_is_held(patch: pytest.MonkeyPatch) -> None:
    """Zones are kept apart at the start only."""
    patch.setattr(sites, "has_strict_zones", lambda _: False)


def believe_what_a_strategy_says(patch: pytest.MonkeyPatch) -> None:
    """A node that a strategy names is taken, whether it was a candidate or not."""
    right = placement.by_custom

    def wrong(child_id: str, _: Any, custom: Any, candidates: Any, taken: Any) -> list[Node]:
        return right(child_id, ALL_NODES, custom, candidates, taken)

    patch.setattr(placement, "by_custom", wrong)
    usable = HubState.usable_nodes

    def look(self: HubState, child: Child) -> list[Node]:
        ALL_NODES[:] = self.nodes.values()
        return usable(self, child)

    patch.setattr(HubState, "usable_nodes", look)


ALL_NODES: list[Node] = []

GUIDED, HASHED = DistributionKind.GUIDED, DistributionKind.CONSISTENT_HASHING
MUTANTS: dict[Plant, tuple[DistributionKind, set[str]]] = {
    heal_a_guided_child_anywhere: (GUIDED, {"guided"}),
    use_a_machine_twice: (GUIDED, {"guided", "11"}),
    heal_into_a_zone_that_is_held: (HASHED, {"zones"}),
    believe_what_a_strategy_says: (DistributionKind.CUSTOM, {"labels", "6"}),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_the_planted_bug_is_caught(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, laws = MUTANTS[plant]
    storms = (
        Simulation(seed, circumstances=distributed(seed, kind=kind)) for seed in range(SEEDS_MAX)
    )
    hunt(plant, laws, storms, monkeypatch, capsys)
