"""Who is the active of a child, and when may another one become it?

Promotion needs a proof that the old active serves no more (law 4): it stepped down, its process is
gone, or its lease has certainly run out. The first two are recorded as `LeaseReleased`; the last
is a matter of time and of trust in silence. An active that works is never moved (law 7).
"""

from __future__ import annotations

from raphub.core.hub_state import HubState, is_led, is_role_taken, role_of
from raphub.core.in_sync import (
    is_elected,
    is_replicated,
    may_inherit,
    roster,
    set_after_promotion,
)
from raphub.core.messages import SendToReplica, StepDown, StopReplica, TakeRole
from raphub.core.model import Role, replica_id
from raphub.core.moves import is_move_planned, is_outgoing
from raphub.core.records import Child, Placed, ReplicaPromoted, ReplicaRetired
from raphub.core.sightings import NEVER, NOT_YET, Sighting

ASK_AGAIN_S = 1.0
"""A message that was not answered for so long is sent again."""


def settle_roles(state: HubState, child: Child, now: float) -> None:
    """Give the child an active if it needs and may have one, and tell every copy its role."""
    if child.is_lost:
        return
    if is_led(child):
        _settle_active(state, child, now)
    else:
        _settle_nominal(state, child, now)
    for placed, seen in state.copies(child, now):
        _tell_role(state, child, placed, seen, now)


def may_promote(state: HubState, child: Child, now: float) -> bool:
    """Is it proved that nobody serves in the child's epoch any more?"""
    return child.holder is None or state.leases.has_run_out(child.plan.child_id, now)


def is_out(state: HubState, child: Child, seen: Sighting, now: float) -> bool:
    """Has the child's active, of which `seen` is the sighting, ceased to be one?

    One that can be asked to step down is given the time to say so, even after its lease (law 10).
    That it says nothing is silence, which is not always to be believed (law 14).
    """
    if seen.is_gone or child.holder is None:
        return True
    if not state.leases.has_run_out(child.plan.child_id, now):
        return False
    had_its_time = seen.leaving and now - seen.leave_asked_at >= ASK_AGAIN_S
    return (had_its_time or state.is_silent(seen, now)) and state.may_believe_silence(now)


def retire(state: HubState, child: Child, number: int) -> None:
    """Take the copy out for good and have it stopped."""
    child_id = child.plan.child_id
    replica = replica_id(child_id, number)
    node_id = child.replicas[number].node_id
    state.record(ReplicaRetired(child_id, number))
    state.forget_copy(replica, node_id)
    state.do(StopReplica(replica))
    state.note("replica_retired", f"{replica} is out", child_id, number, node_id)


def _settle_active(state: HubState, child: Child, now: float) -> None:
    child_id = child.plan.child_id
    active_seen = None
    if child.active is not None:
        active_seen = state.sighting(replica_id(child_id, child.active), now)
        if not is_out(state, child, active_seen, now):
            state.elections.pop(child_id, None)
            _consider_leaving(state, child, active_seen, now)
            return
    heir = _choose_heir(state, child, now)
    if heir is None:
        if active_seen is not None and active_seen.is_gone and child.active is not None:
            retire(state, child, child.active)
        return
    if not may_promote(state, child, now):
        state.wake_at(child_id, state.leases.ends_at(child_id))
        return
    if is_elected(state, child, may_inherit(state, child, now), now):
        _promote(state, child, heir, now)


def _choose_heir(state: HubState, child: Child, now: float) -> Placed | None:
    """The copy to promote: ready, on a node that Ray sees, told before others, oldest first.

    An active that has stepped down with nobody to follow it is the last choice. Where state is
    replicated, the heir holds it, and of several the most advanced one is taken.
    """
    candidates = may_inherit(state, child, now)
    if not candidates:
        return None
    heir, _ = min(
        candidates,
        key=lambda copy: (
            copy[0].number == child.active,
            child.heir not in (None, copy[0].number),
            is_outgoing(state, child, copy[0]),
            copy[0].node_id not in state.nodes,
            not copy[1].is_ready,
            -copy[1].tail.epoch,
            -copy[1].tail.seq,
            copy[1].role is None,
            copy[0].number,
        ),
    )
    return heir


def _promote(state: HubState, child: Child, heir: Placed, now: float) -> None:
    child_id = child.plan.child_id
    old = child.active
    if old is not None and old != heir.number:
        if _stays_on(state, child, old, now):
            _let_follow(state, child, old, now)
        else:
            state.avoid(child.replicas[old].node_id, now)
            retire(state, child, old)
    epoch = child.epoch + 1
    in_sync = tuple(
        n for n in set_after_promotion(child, heir.number) if n != old or n == heir.number
    )
    state.record(ReplicaPromoted(child_id, heir.number, epoch, in_sync))
    seen = state.sighting(replica_id(child_id, heir.number), now)
    seen.leaving = seen.is_overdue = False
    seen.leave_asked_at = NOT_YET
    state.note(
        "promoted",
        f"{replica_id(child_id, heir.number)} is the active of epoch {epoch}",
        child_id,
        heir.number,
        heir.node_id,
    )


def _stays_on(state: HubState, child: Child, old: int, now: float) -> bool:
    """Has the old active made way as it was asked to, and nothing else? Then it is a passive now.

    Everybody else who ceases to be the active is stopped (law 5).
    """
    seen = state.sighting(replica_id(child.plan.child_id, old), now)
    is_well = not (seen.is_gone or seen.is_overdue or state.is_silent(seen, now))
    is_there = child.replicas[old].node_id in state.nodes
    return is_move_planned(state, child) and child.holder is None and is_well and is_there


def _let_follow(state: HubState, child: Child, old: int, now: float) -> None:
    """Have it told its new role."""
    seen = state.sighting(replica_id(child.plan.child_id, old), now)
    seen.leaving, seen.asked_role = False, None
    seen.asked_at, seen.leave_asked_at, seen.made_way_at = NEVER, NOT_YET, now


def _settle_nominal(state: HubState, child: Child, now: float) -> None:
    """Where all copies serve, one of them is still named the active, for whoever asks for one."""
    child_id = child.plan.child_id
    active = child.active
    if active is not None and state.sighting(replica_id(child_id, active), now).is_gone:
        retire(state, child, active)
    if child.active is None:
        heir = _choose_heir(state, child, now)
        if heir is not None:
            state.record(ReplicaPromoted(child_id, heir.number, child.epoch + 1))


def _consider_leaving(state: HubState, child: Child, seen: Sighting, now: float) -> None:
    """Ask a working active to step down, if it must go and a ready copy can follow it.

    It must go when Ray calls its node dead (its callers cannot reach it any more, though it
    works), when its role callback has passed its deadline, or when a move was asked for. Then the
    copy that follows it is one that stays, and it is given the time to end the calls that run.
    """
    active = child.active
    if active is None:
        return
    is_unfit = child.replicas[active].node_id not in state.nodes or seen.is_overdue
    must_go = is_unfit or is_move_planned(state, child)
    heir = _choose_heir(state, child, now) if must_go and not seen.leaving else None
    if heir is not None and heir.number != active and heir.node_id in state.nodes:
        if not is_unfit and not _may_follow(state, child, heir, now):
            return
        seen.leaving, seen.asked_at = True, NEVER
        state.note("stepping_down", "asked to step down", child.plan.child_id, active)
        if seen.is_overdue:
            state.crashes_of(child.plan.child_id).add(state.settings, now)
    if seen.leaving and seen.is_wired and now - seen.asked_at >= ASK_AGAIN_S:
        seen.asked_at = now
        seen.leave_asked_at = min(seen.leave_asked_at, now)
        drain_s = 0.0 if is_unfit else state.settings.lease_duration_s
        order = StepDown(child.epoch, drain_s)
        state.do(SendToReplica(replica_id(child.plan.child_id, active), order))
    if seen.leaving:
        state.wake_at(child.plan.child_id, now + ASK_AGAIN_S)


def _may_follow(state: HubState, child: Child, heir: Placed, now: float) -> bool:
    """Is this copy the one that was asked for, or one that stays, and is it as good as the active?"""
    seen = state.sighting(replica_id(child.plan.child_id, heir.number), now)
    is_meant = heir.number == child.heir or (
        child.heir is None and not is_outgoing(state, child, heir)
    )
    return is_meant and seen.is_ready and is_role_taken(child, heir, seen)


def _tell_role(state: HubState, child: Child, placed: Placed, seen: Sighting, now: float) -> None:
    """Ask the copy to take its role, and ask again until it says that it has.

    A passive hears nothing before the child's first active is known, so that the copy which
    becomes it is never told passive first.
    """
    role = role_of(child, placed.number)
    is_first = role is Role.ACTIVE and is_replicated(child) and seen.is_built and seen.is_wired
    if not (seen.is_ready or is_first) or seen.leaving or is_role_taken(child, placed, seen):
        return
    if role is Role.PASSIVE and child.active is None:
        return
    asked = (role, child.epoch)
    if seen.asked_role != asked:
        seen.asked_role, seen.role_asked_at = asked, now
    elif now - seen.asked_at < ASK_AGAIN_S:
        state.wake_at(child.plan.child_id, seen.asked_at + ASK_AGAIN_S)
        return
    seen.asked_at = now
    known = None
    if role is Role.ACTIVE and is_replicated(child):
        known = seen.told_roster = roster(child)
    order = TakeRole(role, child.epoch, known)
    state.do(SendToReplica(replica_id(child.plan.child_id, placed.number), order))
    state.wake_at(child.plan.child_id, now + ASK_AGAIN_S)
