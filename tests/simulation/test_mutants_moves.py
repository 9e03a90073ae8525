"""Are mistakes in planned moves found by the laws that they break?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from raphub.core import copies, moves, roles
from raphub.core.hub_state import HubState
from raphub.core.model import Node
from raphub.core.records import Child
from tests.simulation.planted import Plant, hunt
from tests.simulation.scenario import scenario
from tests.simulation.simulation import Simulation

SEEDS_MAX = 60


def place_on_a_node_that_is_to_be_empty(patch: pytest.MonkeyPatch) -> None:
    """A draining node is a node like any other."""

    def wrong(self: HubState, child: Child) -> list[Node]:
        return self._fit_nodes(child)

    patch.setattr(HubState, "usable_nodes", wrong)


def let_the_old_copy_go_first(patch: pytest.MonkeyPatch) -> None:
    """An outgoing passive is taken out before its replacement is in sync."""
    right = copies.settle_copies

    def wrong(state: HubState, child: Child, now: float) -> None:
        for placed, _ in list(state.counted(child, now)):
            if moves.is_outgoing(state, child, placed) and placed.number != child.active:
                roles.retire(state, child, placed.number)
        right(state, child, now)

    patch.setattr("raphub.core.hub_machine.settle_copies", wrong)


def forget_what_was_asked_for(patch: pytest.MonkeyPatch) -> None:
    """An outgoing active is never asked to make way."""

    def wrong(state: HubState, child: Child) -> bool:
        return False

    patch.setattr(roles, "is_move_planned", wrong)


MUTANTS: dict[Plant, set[str]] = {
    place_on_a_node_that_is_to_be_empty: {"drain"},
    let_the_old_copy_go_first: {"room"},
    forget_what_was_asked_for: {"11"},
}


@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_the_planted_bug_is_caught(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storms = (
        Simulation(seed, circumstances=replace(scenario(seed), moves=True))
        for seed in range(SEEDS_MAX)
    )
    hunt(plant, MUTANTS[plant], storms, monkeypatch, capsys)
