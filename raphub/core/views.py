"""What is a child at this moment, for people and for programs?

A view is a value: every process that uses a hub keeps the last ones it was pushed.
"""

from __future__ import annotations

from dataclasses import dataclass

from raphub.core.copies import is_colocated
from raphub.core.hub_state import HubState, has_strict_zones, is_led, is_role_taken, role_of
from raphub.core.in_sync import is_in_sync
from raphub.core.model import ChildId, ChildPlan, Health, NodeId, Phase, ReplicaId, Role, replica_id
from raphub.core.records import Child, Placed
from raphub.core.roles import is_out
from raphub.core.sightings import Sighting
from raphub.core.sites import crowded_copies


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One copy. `role` is the one that the journal gives it; `is_settled` says that it has it."""

    replica: ReplicaId
    node_id: NodeId
    role: Role
    phase: Phase
    epoch: int
    pid: int
    is_settled: bool
    is_in_sync: bool
    seq: int


@dataclass(frozen=True, slots=True)
class ChildView:
    """One child. `active` is the copy to send calls to, None while there is none."""

    plan: ChildPlan
    health: Health
    reason: str
    active: ReplicaId | None
    epoch: int
    factor: int
    is_colocated: bool
    replicas: tuple[ReplicaView, ...]


def view(state: HubState, child_id: ChildId, now: float) -> ChildView | None:
    """What the child is now; None if there is no such child."""
    child = state.ledger.children.get(child_id)
    if child is None:
        return None
    counted = state.counted(child, now)
    health, reason = _health(state, child, counted, now)
    active = None if child.active is None else replica_id(child_id, child.active)
    return ChildView(
        plan=child.plan,
        health=health,
        reason=reason,
        active=active,
        epoch=child.epoch,
        factor=state.wanted(child) if child.plan.factor is None else child.plan.factor,
        is_colocated=is_colocated(counted),
        replicas=tuple(
            _replica_view(child, placed, seen) for placed, seen in state.copies(child, now)
        ),
    )


def is_complete(state: HubState, child: Child, now: float) -> bool:
    """Are all wanted copies up, each with its role, or were writes let in without them?"""
    if child.is_lost or (child.is_open and len(child.in_sync) < state.wanted(child)):
        return True
    settled = [
        (placed, seen)
        for placed, seen in state.counted(child, now)
        if seen.is_ready and is_role_taken(child, placed, seen) and is_in_sync(child, placed.number)
    ]
    return (
        len(settled) >= state.wanted(child) > 0
        and child.active is not None
        and any(placed.number == child.active for placed, _ in settled)
    )


def _replica_view(child: Child, placed: Placed, seen: Sighting) -> ReplicaView:
    return ReplicaView(
        replica_id(child.plan.child_id, placed.number),
        placed.node_id,
        role_of(child, placed.number),
        seen.phase,
        seen.epoch,
        seen.pid,
        is_role_taken(child, placed, seen),
        is_in_sync(child, placed.number) and seen.is_ready,
        seen.tail.seq,
    )


def _health(
    state: HubState, child: Child, counted: list[tuple[Placed, Sighting]], now: float
) -> tuple[Health, str]:
    serving = False
    if child.active is not None:
        seen = state.sighting(replica_id(child.plan.child_id, child.active), now)
        placed = child.replicas[child.active]
        out = is_led(child) and is_out(state, child, seen, now)
        serving = is_role_taken(child, placed, seen) and not out
    if child.is_lost:
        return Health.LOST, "no copy that held the state is left"
    ready = sum(1 for p, seen in counted if seen.is_ready and is_in_sync(child, p.number))
    if not serving and child.given_up is not None:
        return Health.STOPPED, child.given_up
    if not state.goes_on:
        return Health.NO_ACTIVE, state.standstill or "the nodes are being counted"
    if not serving:
        if child.epoch == child.born_epoch:
            return Health.STARTING, "the first copies are on their way up"
        return Health.NO_ACTIVE, _why_no_active(state, child, now)
    factor = child.plan.factor or state.wanted(child)
    if ready < factor:
        return Health.DEGRADED, _why_short(state, child, ready, factor)
    if crowded_copies(state, child, counted):
        return Health.DEGRADED, "two copies are closer than they may be, and are to part"
    if is_colocated(counted):
        return Health.DEGRADED, "two copies share a node: there are fewer nodes than copies"
    return Health.OK, ""


def _why_no_active(state: HubState, child: Child, now: float) -> str:
    if any(seen.is_ready for _, seen in state.copies(child, now)):
        return "waits for proof that the old active serves no more"
    return "no copy is ready; copies are being rebuilt"


def _why_short(state: HubState, child: Child, ready: int, factor: int) -> str:
    if child.given_up is not None:
        return f"{ready} of {factor} copies; no more are started: {child.given_up}"
    if state.is_guided and state.places(child) < factor:
        return f"{ready} of {factor} copies: waits for the nodes that its mapping names"
    if has_strict_zones(child) and state.places(child) < factor:
        return f"{ready} of {factor} copies: too few zones (label {child.plan.zone_label!r})"
    if len(state.usable_nodes(child)) < factor:
        return f"{ready} of {factor} copies: too few usable nodes"
    return f"{ready} of {factor} copies; the rest is on its way up"
