"""Which copies are to go elsewhere, how far is that, and what is said to whoever asked for it?

Nothing here moves anything. A copy that is to go is *outgoing*: another one is placed first
(`copies`), an outgoing active makes way for it once it is in sync (`roles`), and an outgoing
passive is retired when it is not needed any more (`copies`). What was asked for is recorded, so a
hub actor that starts again goes on with it.
"""

from __future__ import annotations

from raphub.core.hub_state import HubState, has_strict_zones, is_led, is_role_taken
from raphub.core.in_sync import is_in_sync
from raphub.core.messages import (
    DrainNear,
    DrainRequested,
    MigrationRequested,
    PauseRequested,
    SendToReplica,
    SwitchoverRequested,
)
from raphub.core.model import ChildId, NodeId, ReplicaId, replica_id, split_replica_id
from raphub.core.records import (
    Child,
    DrainChanged,
    Move,
    MoveAnswer,
    MoveDropped,
    MoveKind,
    MoveWanted,
    OpenRequest,
    PauseChanged,
    Placed,
    SwitchWanted,
    Trouble,
)

MoveRequest = SwitchoverRequested | MigrationRequested | DrainRequested | PauseRequested


def is_outgoing(state: HubState, child: Child, placed: Placed) -> bool:
    """Is the copy to be replaced by one elsewhere?"""
    return placed.number in child.moves or placed.node_id in state.ledger.draining


def is_active_outgoing(state: HubState, child: Child) -> bool:
    """Is the child's active to make way for another copy first? Where all serve, none has to."""
    if child.active is None or not is_led(child):
        return False
    return is_outgoing(state, child, child.replicas[child.active])


def is_move_planned(state: HubState, child: Child) -> bool:
    """Is the active to step down because somebody asked for it, and not for a fault of its own?"""
    return child.heir is not None or is_active_outgoing(state, child)


def destination(state: HubState, child: Child) -> NodeId | None:
    """The node that somebody asked for and that has no copy of the child yet."""
    held = {placed.node_id for placed in child.replicas.values()}
    for node_id in child.moves.values():
        if node_id is None or node_id in held or node_id not in state.nodes:
            continue
        if not _is_too_close(state, child, node_id):
            return node_id
    return None


def _is_too_close(state: HubState, child: Child, node_id: NodeId, but: int | None = None) -> bool:
    """Is a copy that stays in the node's zone, where copies must not share one?

    `but` is the number of a copy that goes.
    """
    if not has_strict_zones(child):
        return False
    zone_of = state.zone_of(child.plan)
    return any(
        zone_of(placed.node_id) == zone_of(node_id)
        for placed in child.replicas.values()
        if placed.number != but and not is_outgoing(state, child, placed)
    )


def settle_moves(state: HubState, child: Child, now: float) -> None:
    """Drop what has become impossible; whoever asked for it is told."""
    child_id = child.plan.child_id
    if child.heir is not None:
        seen = state.sighting(replica_id(child_id, child.heir), now)
        if seen.is_gone or state.is_silent(seen, now):
            drop_switch(state, child, "the copy that was to become the active is gone")
    usable = {node.node_id for node in state.usable_nodes(child)}
    for number, node_id in list(child.moves.items()):
        if node_id is not None and node_id not in usable:
            drop_move(state, child, number, f"node {node_id} is not usable any more")


def drop_switch(state: HubState, child: Child, reason: str) -> None:
    """The active stays."""
    state.record(SwitchWanted(child.plan.child_id, None))
    state.note("move_dropped", f"no switchover: {reason}", child.plan.child_id, child.active)


def drop_move(state: HubState, child: Child, number: int, reason: str) -> None:
    """The copy stays."""
    state.record(MoveDropped(child.plan.child_id, number))
    state.note("move_dropped", f"it stays: {reason}", child.plan.child_id, number)


def fail_destination(state: HubState, child: Child, node_id: NodeId, reason: str) -> None:
    """A copy did not come up on this node: whoever was to move there stays."""
    for number, wanted in list(child.moves.items()):
        if wanted == node_id:
            drop_move(state, child, number, f"no copy comes up on {node_id}: {reason}")


# --- requests ---------------------------------------------------------------------------------


def begin(state: HubState, event: MoveRequest, now: float) -> tuple[Move | None, list[Trouble]]:
    """Record what is asked for. What it waits for, if anything, and why it cannot be."""
    if not state.goes_on and not _is_harmless(event):
        return None, [
            Trouble(ChildId(""), "no_quorum", state.standstill or "the nodes are not known yet")
        ]
    match event:
        case SwitchoverRequested():
            return _begin_switchover(state, event, now)
        case MigrationRequested():
            return _begin_migration(state, event)
        case DrainRequested():
            return _begin_drain(state, event)
        case PauseRequested(_, is_paused):
            if state.ledger.is_paused != is_paused:
                state.record(PauseChanged(is_paused))
                state.note("paused" if is_paused else "resumed", "automatic moves and healing")
                _touch_all(state)
            return None, []


def _is_harmless(event: MoveRequest) -> bool:
    """May a hub that stands still take this in: does nothing begin by it?"""
    return isinstance(event, PauseRequested) or (
        isinstance(event, DrainRequested) and event.is_undone
    )


def _begin_switchover(
    state: HubState, event: SwitchoverRequested, now: float
) -> tuple[Move | None, list[Trouble]]:
    child_id = event.child_id
    child = state.ledger.children.get(child_id)
    if child is None:
        return None, [Trouble(child_id, "not_found", f"there is no child {child_id!r}")]
    if not is_led(child):
        reason = "all its copies serve (active_active): there is no active to change"
        return None, [Trouble(child_id, "cannot_move", reason)]
    if child.active is not None and child.replicas[child.active].node_id == event.node_id:
        return None, []
    if child.heir is not None:
        reason = f"copy {child.heir} is about to become the active"
        return None, [Trouble(child_id, "busy", reason)]
    heirs = [
        placed
        for placed, seen in state.counted(child, now)
        if placed.number != child.active
        and seen.is_ready
        and is_in_sync(child, placed.number)
        and event.node_id in (None, placed.node_id)
        and placed.node_id not in state.ledger.draining
    ]
    if not heirs:
        where = "" if event.node_id is None else f" on node {event.node_id}"
        reason = f"no passive{where} is in sync"
        return None, [Trouble(child_id, "no_heir", reason, event.node_id)]
    heir = heirs[0]
    state.record(SwitchWanted(child_id, heir.number))
    state.note("switchover", "is to become the active", child_id, heir.number, heir.node_id)
    state.touch(child_id)
    return Move(MoveKind.SWITCHOVER, child_id, heir.number), []


def _begin_migration(
    state: HubState, event: MigrationRequested
) -> tuple[Move | None, list[Trouble]]:
    child_id, number = split_replica_id(event.replica)
    child = state.ledger.children.get(child_id)
    placed = state.ledger.placed(child_id, number)
    if child is None or placed is None:
        return None, [Trouble(child_id, "not_found", f"there is no copy {event.replica!r}")]
    if number in child.moves:
        reason = f"{event.replica} is on its way already"
        return None, [Trouble(child_id, "busy", reason)]
    node_id = event.node_id
    held = {other.node_id: other.number for other in child.replicas.values()}
    usable = {node.node_id for node in state.usable_nodes(child)}
    if node_id is not None and node_id in held:
        reason = f"node {node_id} holds {replica_id(child_id, held[node_id])} already"
        return None, [Trouble(child_id, "cannot_move", reason, node_id)]
    if node_id is not None and node_id not in usable:
        known = "has no room for it" if node_id in state.nodes else "is not in the cluster"
        return None, [Trouble(child_id, "no_room", f"node {node_id} {known}", node_id)]
    if node_id is not None and _is_too_close(state, child, node_id, but=number):
        reason = f"node {node_id} is in a zone that holds a copy already"
        return None, [Trouble(child_id, "cannot_move", reason, node_id)]
    if not usable - set(held):
        return None, [Trouble(child_id, "no_room", "every usable node holds a copy already")]
    state.record(MoveWanted(child_id, number, node_id))
    state.note("migration", f"is to move to {node_id or 'another node'}", child_id, number)
    state.touch(child_id)
    return Move(MoveKind.MIGRATION, child_id, number), []


def _begin_drain(state: HubState, event: DrainRequested) -> tuple[Move | None, list[Trouble]]:
    node_id = event.node_id
    if node_id not in state.nodes and node_id not in state.on_node:
        reason = f"there is no node {node_id!r}"
        return None, [Trouble(ChildId(""), "not_found", reason, node_id)]
    if event.is_undone:
        if node_id in state.ledger.draining:
            state.record(DrainChanged(node_id, is_draining=False))
            state.note("drain_undone", "holds copies again", node_id=node_id)
            _touch_all(state)
        return None, []
    drain(state, node_id, event.deadline_s, "is being emptied")
    return Move(MoveKind.DRAIN, node_id=node_id, deadline_s=event.deadline_s), []


def drain(state: HubState, node_id: NodeId, deadline_s: float, words: str) -> None:
    """Empty the node from now on, and tell the copies there that it is near."""
    if node_id in state.ledger.draining:
        return
    state.record(DrainChanged(node_id, is_draining=True))
    state.note("drain", words, node_id=node_id)
    for replica in sorted(state.on_node.get(node_id, ())):
        state.do(SendToReplica(replica, DrainNear(deadline_s)))
        state.touch(split_replica_id(replica)[0])


def forget_drain(state: HubState, node_id: NodeId) -> None:
    """The node has left: there is nothing to empty any more."""
    if node_id in state.ledger.draining:
        state.record(DrainChanged(node_id, is_draining=False))


def _touch_all(state: HubState) -> None:
    for child_id in state.ledger.children:
        state.touch(child_id)


def answer(state: HubState, opened: OpenRequest, began_at: float, now: float) -> MoveAnswer | None:
    """What to say to whoever asked for a move; None while it is under way."""
    move = opened.move
    if move is None or opened.troubles:
        return MoveAnswer(troubles=tuple(opened.troubles))
    if move.kind is MoveKind.DRAIN:
        return _drain_answer(state, move, began_at, now)
    assert move.child_id is not None
    child = state.ledger.children.get(move.child_id)
    if child is None:
        return _failed(move.child_id, "the child was stopped")
    if child.is_lost or child.given_up is not None:
        return _failed(move.child_id, child.given_up or "the child has lost its state")
    if move.kind is MoveKind.MIGRATION:
        if move.number not in child.replicas:
            return MoveAnswer()
        if move.number in child.moves:
            return None
        reason = "there was no way to move it; see the hub's events"
        return _failed(move.child_id, reason, replica_id(move.child_id, move.number))
    if child.active == move.number:
        placed = child.replicas[move.number]
        seen = state.sighting(replica_id(move.child_id, move.number), now)
        return MoveAnswer() if is_role_taken(child, placed, seen) else None
    if child.heir == move.number or child.active is None:
        return None
    return _failed(move.child_id, "the copy that was to become the active is gone")


def _failed(child_id: ChildId, reason: str, *left: ReplicaId) -> MoveAnswer:
    return MoveAnswer(left, (Trouble(child_id, "move_failed", reason),))


def _drain_answer(state: HubState, move: Move, began_at: float, now: float) -> MoveAnswer | None:
    """Done when nothing is left; after the deadline, what is left and why."""
    assert move.node_id is not None
    left = sorted(state.on_node.get(move.node_id, ()))
    if not left:
        return MoveAnswer()
    if now < began_at + move.deadline_s and move.node_id in state.ledger.draining:
        return None
    return MoveAnswer(tuple(left), tuple(_why_left(state, r, move.node_id) for r in left))


def _why_left(state: HubState, replica: ReplicaId, node_id: NodeId) -> Trouble:
    child_id = split_replica_id(replica)[0]
    if node_id not in state.ledger.draining:
        return Trouble(child_id, "move_failed", "the drain was undone", node_id)
    child = state.ledger.children[child_id]
    taken = {placed.node_id for placed in child.replicas.values()}
    if not any(node.node_id not in taken for node in state.usable_nodes(child)):
        reason = f"no usable node has room for another copy of {child_id!r}"
        return Trouble(child_id, "no_room", reason, node_id)
    return Trouble(child_id, "move_failed", "its replacement is not in sync yet", node_id)
