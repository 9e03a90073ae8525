"""How many copies of a child are there, how many should there be, and where?

Healing is level-triggered: whenever a child is touched, what counts is compared with what is
wanted. Copies are placed one number after the other, and each placement is recorded before the
copy is started.
"""

from __future__ import annotations

from collections import Counter

from raphub.core.hub_state import HubState, is_led, is_role_taken
from raphub.core.in_sync import is_in_sync
from raphub.core.messages import StartReplica
from raphub.core.model import Node, NodeId, Phase, replica_id
from raphub.core.moves import destination, is_active_outgoing, is_outgoing
from raphub.core.records import Child, ChildGivenUp, Placed, ReplicaPlaced
from raphub.core.roles import retire
from raphub.core.sightings import Sighting
from raphub.core.sites import best_node, crowded_copies

CALLERS_FOLLOW_S = 1.0
"""So long after it has made way, a former active is there to tell its callers so."""


def settle_copies(state: HubState, child: Child, now: float) -> None:
    """Retire what is lost or too many, and start what is missing."""
    if child.is_lost:
        return
    _retire_lost(state, child, now)
    _part_or_trim(state, child, now)
    _place_missing(state, child, now)
    dial_copies(state, child, now)


def is_colocated(counted: list[tuple[Placed, Sighting]]) -> bool:
    """Do two copies share a node?"""
    return len({placed.node_id for placed, _ in counted}) < len(counted)


def count_crash(state: HubState, child: Child, node_id: NodeId, now: float) -> None:
    """A copy of the child died by itself; after too many of those the hub gives the child up."""
    state.avoid(node_id, now)
    crashes = state.crashes_of(child.plan.child_id)
    crashes.add(state.settings, now)
    if crashes.count >= state.settings.crash_limit and child.given_up is None:
        reason = f"{crashes.count} copies died, each soon after the last"
        state.record(ChildGivenUp(child.plan.child_id, reason))
        state.note("given_up", reason, child.plan.child_id)


def start_left(state: HubState, now: float) -> None:
    """Start the copies that were placed in an earlier life of the hub, and not started in this one."""
    for child_id, child in state.ledger.children.items():
        for placed, seen in state.copies(child, now):
            if placed.address is None and not seen.is_starting and not child.is_lost:
                state.begin_starting(seen)
                replica = replica_id(child_id, placed.number)
                state.do(StartReplica(replica, placed.node_id, child.plan))


def _retire_lost(state: HubState, child: Child, now: float) -> None:
    for placed, seen in list(state.copies(child, now)):
        if is_led(child) and placed.number == child.active:
            continue
        if seen.is_gone:
            retire(state, child, placed.number)
        elif _is_overdue(state, seen, now):
            count_crash(state, child, placed.node_id, now)
            retire(state, child, placed.number)
        elif not state.is_counted(placed, seen, now) and _has_other_ready(
            state, child, placed, now
        ):
            state.avoid(placed.node_id, now)
            retire(state, child, placed.number)


def _is_overdue(state: HubState, seen: Sighting, now: float) -> bool:
    """Has the user's constructor run for too long?"""
    began = seen.build_began_at
    return (
        seen.phase is Phase.BUILDING
        and began is not None
        and now - began > state.settings.build_deadline_s
    )


def _has_other_ready(state: HubState, child: Child, placed: Placed, now: float) -> bool:
    """Would a ready copy remain without this one, or was this one never ready? Law 9."""
    seen = state.sighting(replica_id(child.plan.child_id, placed.number), now)
    if not seen.may_be_ready:
        return True
    return any(
        other.number != placed.number
        and is_in_sync(child, other.number)
        and other_seen.is_ready
        and not state.is_silent(other_seen, now)
        for other, other_seen in state.copies(child, now)
    )


def _part_or_trim(state: HubState, child: Child, now: float) -> None:
    """Retire passives that are too many, those too close to another first; never an active."""
    counted = state.counted(child, now)
    settled = [
        (placed, seen)
        for placed, seen in counted
        if seen.is_ready and is_role_taken(child, placed, seen) and is_in_sync(child, placed.number)
    ]
    surplus = len(settled) - max(1, state.wanted(child)) - is_active_outgoing(state, child)
    if surplus <= 0 or not any(placed.number == child.active for placed, _ in settled):
        return
    in_doubt = [state.vanished_at[p.node_id] for p, _ in counted if p.node_id in state.vanished_at]
    if in_doubt:
        # Without the nodes that seem to be missing, fewer copies are wanted than there may be room.
        state.wake_at(child.plan.child_id, max(in_doubt))
        return
    for _ in range(surplus):
        on_node = Counter(placed.node_id for placed, _ in settled)
        crowded = crowded_copies(state, child, settled)
        victims = [
            copy
            for copy in settled
            if copy[0].number != child.active
            or (not is_led(child) and is_outgoing(state, child, copy[0]))
        ]
        lately = [copy for copy in victims if now - copy[1].made_way_at < CALLERS_FOLLOW_S]
        if lately:
            state.wake_at(child.plan.child_id, lately[0][1].made_way_at + CALLERS_FOLLOW_S)
            return
        victim = max(
            (placed for placed, _ in victims),
            key=lambda p: (
                is_outgoing(state, child, p),
                on_node[p.node_id] > 1,
                p.number in crowded,
                p.number,
            ),
        )
        settled = [copy for copy in settled if copy[0] is not victim]
        retire(state, child, victim.number)


def _place_missing(state: HubState, child: Child, now: float) -> None:
    child_id = child.plan.child_id
    counted = state.counted(child, now)
    staying = [copy for copy in counted if not is_outgoing(state, child, copy[0])]
    missing = state.wanted(child) - len(staying)
    is_too_close = is_colocated(staying) or bool(crowded_copies(state, child, staying))
    is_parting = missing == 0 and is_too_close and all(seen.is_ready for _, seen in staying)
    if missing > 0 or is_too_close or _is_below_factor(child, counted):
        state.short.add(child_id)
    else:
        state.short.discard(child_id)
    if child.given_up is not None:
        return
    count = max(missing, 1 if is_parting else 0)
    if state.ledger.is_paused:
        count = min(missing, _asked_for(state, child, counted))
    for _ in range(count):
        retry_at = state.crashes_of(child_id).retry_at if child_id in state.crashes else now
        if now < retry_at:
            state.wake_at(child_id, retry_at)
            return
        if state.starting_count >= state.settings.replicas_starting_max:
            state.queued[child_id] = None
            return
        node = _goal(state, child, now, needs_free=is_parting)
        if node is None:
            return
        _place(state, child, node, now)


def _asked_for(state: HubState, child: Child, counted: list[tuple[Placed, Sighting]]) -> int:
    """How many copies somebody waits for: those of a start, or for those that are to go."""
    were_placed = child.number - child.born_number
    going = sum(is_outgoing(state, child, placed) for placed, _ in counted)
    return max(state.wanted(child) - were_placed, going)


def _is_below_factor(child: Child, counted: list[tuple[Placed, Sighting]]) -> bool:
    """Would a further node get a copy?"""
    return child.plan.factor is None or len(counted) < child.plan.factor


def _goal(state: HubState, child: Child, now: float, *, needs_free: bool) -> Node | None:
    """The node for one further copy: the one that was asked for, else where it belongs."""
    asked = destination(state, child)
    if asked is not None:
        return state.nodes[asked]
    leaving = {p.node_id for p in child.replicas.values() if is_outgoing(state, child, p)}
    return best_node(state, child, now, needs_free=needs_free, shunned=leaving)


def _place(state: HubState, child: Child, node: Node, now: float) -> None:
    child_id = child.plan.child_id
    number = child.number + 1
    replica = replica_id(child_id, number)
    state.record(ReplicaPlaced(child_id, number, node.node_id))
    state.place_copy(replica, node.node_id, child.plan)
    state.begin_starting(state.sighting(replica, now))
    state.do(StartReplica(replica, node.node_id, child.plan))


def dial_copies(state: HubState, child: Child, now: float) -> None:
    """Keep a connection to every copy that listens."""
    for placed, seen in state.copies(child, now):
        if placed.address is None or seen.is_wired or seen.is_dialing or seen.is_gone:
            continue
        if now >= seen.dial_at:
            state.dial(replica_id(child.plan.child_id, placed.number), seen, placed.address)
        else:
            state.wake_at(child.plan.child_id, seen.dial_at)
