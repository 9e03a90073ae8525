"""A simulator that is green proves nothing until it has caught planted bugs.

These are mistakes of the control plane.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from raphub.core import copies, placement, roles
from raphub.core.hub_machine import HubMachine
from raphub.core.hub_state import HubState
from raphub.core.journal import Journal
from raphub.core.messages import (
    FromHub,
    HubAction,
    HubConnected,
    LeaseGranted,
    Roster,
    SendToReplica,
)
from raphub.core.model import ChildId, Role, replica_id
from raphub.core.records import Child, Fact, LeaseReleased, Ledger
from raphub.core.replica_machine import ReplicaMachine
from raphub.core.requests import Requests
from raphub.core.sightings import Leases, Sighting
from tests.simulation.hub_life import HubLife
from tests.simulation.planted import Plant, hunt
from tests.simulation.simulation import Simulation

SEEDS_MAX = 150


def promote_because_ray_calls_the_node_dead(patch: pytest.MonkeyPatch) -> None:
    """Ray's DEAD for a node is suspicion, and is taken for a proof."""
    right = HubMachine._let_nodes_vanish

    def wrong(self: HubMachine, now: float) -> None:
        gone = [n for n, at in self.state.vanished_at.items() if at <= now]
        right(self, now)
        for child_id, child in self.ledger.children.items():
            placed = None if child.active is None else child.replicas[child.active]
            if placed is not None and placed.node_id in gone:
                self.state.record(LeaseReleased(child_id))

    patch.setattr(HubMachine, "_let_nodes_vanish", wrong)


def count_the_lease_from_receipt(patch: pytest.MonkeyPatch) -> None:
    """The lease is counted from when its answer came, not from when it was asked for."""
    right = ReplicaMachine._take_lease

    def wrong(self: ReplicaMachine, epoch: int, sent_at_s: float, now: float) -> list[Any]:
        return right(self, epoch, now, now)

    patch.setattr(ReplicaMachine, "_take_lease", wrong)


def grant_without_authority(patch: pytest.MonkeyPatch) -> None:
    """The hub does not read its term back before it grants."""

    def wrong(self: Journal) -> Generator[Any, Any, None]:
        return
        yield

    patch.setattr(Journal, "check", wrong)
    patch.setattr(HubMachine, "_holds_authority", lambda *_: True)


def obey_any_term(patch: pytest.MonkeyPatch) -> None:
    """A copy obeys hub actors that were superseded."""
    right = ReplicaMachine.handle

    def wrong(self: ReplicaMachine, event: Any, now: float) -> list[Any]:
        if isinstance(event, FromHub | HubConnected):
            self.term = min(self.term, event.term)
        return right(self, event, now)

    patch.setattr(ReplicaMachine, "handle", wrong)


def act_before_the_record(patch: pytest.MonkeyPatch) -> None:
    """A promotion is sent before it is at rest."""
    right = HubLife._rest_then_act

    def wrong(
        self: HubLife, facts: list[Fact], actions: list[HubAction]
    ) -> Generator[float, None, None]:
        self._act(actions)
        yield from right(self, facts, [])

    patch.setattr(HubLife, "_rest_then_act", wrong)


def append_below_the_floor(patch: pytest.MonkeyPatch) -> None:
    """A stale append that lands on a compacted index is taken for a success."""

    def wrong(self: Journal) -> Generator[Any, Any, None]:
        return
        yield

    patch.setattr(Journal, "_refuse_below_floor", wrong)


def ignore_a_taken_index(patch: pytest.MonkeyPatch) -> None:
    """A life that loses an index goes on with the next one."""

    def wrong(self: Journal, facts: tuple[Fact, ...]) -> Generator[Any, Any, None]:
        while (yield from self._put(self._entry(self.term, facts))) is not None:
            self._advance()
        self._advance()

    patch.setattr(Journal, "append", wrong)


def forget_that_older_leases_run(patch: pytest.MonkeyPatch) -> None:
    """A new hub actor believes that no lease was granted before it began."""
    right = HubState.__post_init__

    def wrong(self: HubState) -> None:
        right(self)
        self.leases.unknown_until = self.began_at

    patch.setattr(HubState, "__post_init__", wrong)
    patch.setattr(Sighting, "__init__", _old_sighting(Sighting.__init__))


def _old_sighting(right: Callable[..., None]) -> Callable[..., None]:
    def wrong(self: Sighting, began_at: float, heard_at: float, **rest: Any) -> None:
        right(self, began_at, heard_at - 10, **rest)

    return wrong


def renew_whoever_asks(patch: pytest.MonkeyPatch) -> None:
    """A renewal is granted without a look at who is named in which epoch."""

    def wrong(
        self: HubMachine,
        child: Child,
        number: int,
        seen: Sighting,
        epoch: int,
        sent: float,
        now: float,
    ) -> None:
        replica = replica_id(child.plan.child_id, number)
        self.state.do(SendToReplica(replica, LeaseGranted(epoch, sent)))

    patch.setattr(HubMachine, "_renew", wrong)


def count_a_step_down_for_any_epoch(patch: pytest.MonkeyPatch) -> None:
    """That a copy stepped down once is believed of whoever is active now."""

    def wrong(self: HubMachine, child_id: ChildId, number: int, epoch: int) -> None:
        if child_id in self.ledger.children:
            self.state.record(LeaseReleased(child_id))
            self.state.touch(child_id)

    patch.setattr(HubMachine, "_release", wrong)


def promote_with_a_lease(patch: pytest.MonkeyPatch) -> None:
    """A promotion carries a lease, which the hub knows nothing of."""
    right = ReplicaMachine._take_role

    def wrong(
        self: ReplicaMachine, role: Role, epoch: int, roster: Roster | None, now: float
    ) -> list[Any]:
        actions = right(self, role, epoch, roster, now)
        if role is Role.ACTIVE and self.epoch == epoch:
            self.lease_until = max(self.lease_until, now + self.lease_duration_s)
        return actions

    patch.setattr(ReplicaMachine, "_take_role", wrong)


def begin_again_at_epoch_one(patch: pytest.MonkeyPatch) -> None:
    """A child that is stopped and started again reuses epochs and numbers."""
    patch.setattr(Ledger, "beginning", lambda *_: (0, 0))


def believe_silence_after_a_pause(patch: pytest.MonkeyPatch) -> None:
    """The hub's own pause is taken for the silence of everybody else."""
    patch.setattr(HubState, "silence_believed_at", lambda self: self.leases.unknown_until)


def move_the_active_to_a_joined_node(patch: pytest.MonkeyPatch) -> None:
    """A node that joins and ranks higher takes the active over."""
    right = roles._consider_leaving

    def wrong(state: HubState, child: Child, seen: Sighting, now: float) -> None:
        seen.is_overdue = seen.is_overdue or len(state.nodes) > 4
        right(state, child, seen, now)

    patch.setattr(roles, "_consider_leaving", wrong)


def run_a_retried_request_again(patch: pytest.MonkeyPatch) -> None:
    """A request that is sent again is run again."""

    def wrong(self: Requests, event: Any, now: float) -> None:
        self._run(event, now)

    patch.setattr(Requests, "receive", wrong)


def retire_the_last_ready_copy(patch: pytest.MonkeyPatch) -> None:
    """A copy whose node Ray calls dead is retired, even if no other one is ready."""
    patch.setattr(copies, "_has_other_ready", lambda *_: True)


def place_copies_together(patch: pytest.MonkeyPatch) -> None:
    """Placement forgets where the child's copies stand already."""
    right = placement.rank

    def wrong(plan: Any, nodes: Any, taken: Any, avoided: Any, zone_of: Any) -> Any:
        return right(plan, nodes, {}, avoided, zone_of)

    patch.setattr(placement, "rank", wrong)


def lapse_too_early(patch: pytest.MonkeyPatch) -> None:
    """The hub believes that leases run out sooner than their holders do."""
    patch.setattr(
        Leases,
        "grant",
        lambda self, child_id, now: self.until.update({child_id: now + 1.0}),
    )
    patch.setattr(HubState, "silent_at", lambda self, seen: seen.heard_at + 1.0)


def tell_a_passive_its_role_again(patch: pytest.MonkeyPatch) -> None:
    """Every time a role is asked for, the user's object is told."""
    right = ReplicaMachine._take_role

    def wrong(
        self: ReplicaMachine, role: Role, epoch: int, roster: Roster | None, now: float
    ) -> list[Any]:
        if self.callback is None:
            self.told = None
            self.is_taken = False
            self.role = None if self.role is role else self.role
        return right(self, role, epoch, roster, now)

    patch.setattr(ReplicaMachine, "_take_role", wrong)


def forget_to_ask_again(patch: pytest.MonkeyPatch) -> None:
    """A role that was asked for once is never asked for again."""
    right = roles._tell_role

    def wrong(state: HubState, child: Child, placed: Any, seen: Sighting, now: float) -> None:
        if seen.asked_role is None:
            right(state, child, placed, seen, now)

    patch.setattr(roles, "_tell_role", wrong)


MUTANTS: dict[Plant, set[str]] = {
    promote_because_ray_calls_the_node_dead: {"4", "1"},
    count_the_lease_from_receipt: {"4", "1", "5"},
    grant_without_authority: {"13"},
    obey_any_term: {"13"},
    act_before_the_record: {"1", "4", "5", "9"},
    append_below_the_floor: {"13", "1", "3", "4", "5", "9", "journal"},
    ignore_a_taken_index: {"13", "journal", "1"},
    forget_that_older_leases_run: {"4", "1", "7"},
    renew_whoever_asks: {"1", "4", "5", "11", "13", "quorum"},
    count_a_step_down_for_any_epoch: {"4", "5", "1", "7"},
    promote_with_a_lease: {"4", "5", "1"},
    begin_again_at_epoch_one: {"1", "numbers", "5"},
    believe_silence_after_a_pause: {"7", "9", "10"},
    move_the_active_to_a_joined_node: {"7", "11"},
    run_a_retried_request_again: {"3", "11", "numbers", "9"},
    retire_the_last_ready_copy: {"9"},
    place_copies_together: {"6"},
    lapse_too_early: {"4", "1", "7"},
    tell_a_passive_its_role_again: {"10"},
    forget_to_ask_again: {"11"},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_the_planted_bug_is_caught(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storms = (Simulation(seed) for seed in range(SEEDS_MAX))
    hunt(plant, MUTANTS[plant], storms, monkeypatch, capsys)
