"""Where does a child's next copy go, and which of its copies belongs elsewhere by now?

Asks the hub's strategy, with what the hub knows. A custom strategy that fails is told of once for
each reason, and consistent hashing decides in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from raphub.core import placement
from raphub.core.hub_state import HubState, has_strict_zones, is_led, is_role_taken
from raphub.core.misplacement import Relocation, Standing, misplaced
from raphub.core.model import DistributionKind, Node, NodeId, Spread
from raphub.core.records import Child, Placed
from raphub.core.sightings import Sighting


def best_node(
    state: HubState,
    child: Child,
    now: float,
    *,
    needs_free: bool,
    shunned: Collection[NodeId] = (),
) -> Node | None:
    """The node for one further copy, none of the `shunned`; None if there is none now."""
    plan = child.plan
    taken: dict[NodeId, int] = Counter(placed.node_id for placed in child.replicas.values())
    nodes = [node for node in state.usable_nodes(child) if node.node_id not in shunned]
    is_apart = state.is_guided or plan.spread is Spread.STRICT or plan.factor is None
    if needs_free or is_apart:
        nodes = [node for node in nodes if not taken.get(node.node_id)]
    zone_of = state.zone_of(plan)
    in_doubt = any(placed.node_id in state.vanished_at for placed in child.replicas.values())
    if in_doubt and (has_strict_zones(child) or state.is_guided):
        return None  # A node in doubt, for a lease at most, may have lost its labels and address.
    if has_strict_zones(child):
        counted = [placed.node_id for placed, _ in state.counted(child, now)]
        held = {zone_of(node_id) for node_id in counted if node_id not in shunned}
        nodes = [node for node in nodes if zone_of(node.node_id) not in held]
    ranked = placement.rank(
        plan,
        in_order(state, child, nodes, taken),
        taken,
        avoided=lambda node_id: state.avoided_until.get(node_id, now) > now,
        # A mapping has said already which node comes first.
        zone_of=(lambda _: None) if state.is_guided else zone_of,
    )
    return ranked[0] if ranked else None


def in_order(
    state: HubState, child: Child, nodes: list[Node], taken: Mapping[NodeId, int]
) -> list[Node]:
    """The nodes in the order of the hub's strategy."""
    child_id, loads = child.plan.child_id, state.loads
    match state.settings.distribution.kind:
        case DistributionKind.GUIDED:
            return nodes
        case DistributionKind.LEAST_LOADED:
            return placement.by_load(
                child_id,
                nodes,
                load_of=lambda node: loads.load(node, child.plan),
                has_room=lambda node: loads.has_room(node, child.plan),
            )
        case DistributionKind.CUSTOM if state.custom is not None and nodes:
            return _by_custom(state, child, nodes, taken, state.custom)
        case _:
            return placement.by_hash(child_id, nodes)


def _by_custom(
    state: HubState,
    child: Child,
    nodes: list[Node],
    taken: Mapping[NodeId, int],
    custom: placement.Custom,
) -> list[Node]:
    """The user's order of the nodes with the fewest copies; no other would be taken (law 6)."""
    fewest = min(taken.get(node.node_id, 0) for node in nodes)
    open_now = [node for node in nodes if taken.get(node.node_id, 0) == fewest]
    candidates = [
        placement.Candidate(
            node.node_id,
            node.address,
            dict(node.labels),
            dict(node.resources),
            dict(state.loads.free.get(node.node_id, {})),
            state.loads.count(node.node_id),
        )
        for node in open_now
    ]
    try:
        return placement.by_custom(child.plan.child_id, open_now, custom, candidates, taken)
    except placement.StrategyFailedError as failure:
        if str(failure) != state.strategy_trouble:
            state.strategy_trouble = str(failure)
            text = f"consistent hashing decides, for the strategy failed: {failure}"
            state.note("strategy_failed", text, child.plan.child_id)
        return placement.by_hash(child.plan.child_id, open_now)


def crowded_copies(
    state: HubState, child: Child, copies: Iterable[tuple[Placed, Sighting]]
) -> set[int]:
    """The numbers of those of the copies that share a zone, or an entry of a mapping.

    Only where they must not.
    """
    on_node = {placed.number: placed.node_id for placed, _ in copies}
    crowded: set[int] = set()
    if has_strict_zones(child):
        zone_of = state.zone_of(child.plan)
        crowded |= _sharing({number: zone_of(node_id) for number, node_id in on_node.items()})
    if state.is_guided:
        entries = state.settings.distribution.mapping.get(child.plan.child_id, ())
        meant = {number: _entry_of(state, entries, node_id) for number, node_id in on_node.items()}
        crowded |= _sharing({number: entry for number, entry in meant.items() if entry})
    return crowded


def _sharing(keys: Mapping[int, str | None]) -> set[int]:
    shared = Counter(keys.values())
    return {number for number, key in keys.items() if shared[key] > 1}


def _entry_of(state: HubState, entries: Sequence[str], node_id: NodeId) -> str | None:
    node = state.nodes.get(node_id)
    meaning = (entry for entry in entries if node is not None and placement.is_named(entry, node))
    return next(meaning, None)


def move_wanted(state: HubState, child: Child, now: float) -> Relocation | None:
    """The passive that belongs elsewhere now, and where; None as long as the child is not whole.

    Healing goes first, and a node where a copy was lately lost is nobody's goal.
    """
    counted = state.counted(child, now)
    is_whole = len(counted) == len(child.replicas) == state.wanted(child) and all(
        seen.is_ready and is_role_taken(child, placed, seen) for placed, seen in counted
    )
    if child.active is None or not is_led(child) or not is_whole:
        return None
    nodes = state.usable_nodes(child)
    by_id = {node.node_id: node for node in nodes}
    kind = state.settings.distribution.kind
    if kind is DistributionKind.CONSISTENT_HASHING:
        nodes = placement.by_hash(child.plan.child_id, nodes)
    elif kind is DistributionKind.LEAST_LOADED:
        nodes = [node for node in nodes if state.loads.has_room(node, child.plan)]
    copies = {placed.number: placed.node_id for placed, _ in counted}
    move = misplaced(
        Standing(child.plan, copies, child.active, nodes, state.zone_of(child.plan)),
        kind,
        lambda node_id, more: (
            state.loads.load(by_id[node_id], child.plan, more) if node_id in by_id else 0.0
        ),
    )
    is_avoided = move is not None and state.avoided_until.get(move.node_id, now) > now
    return None if is_avoided else move
