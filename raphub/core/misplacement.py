"""Which passive of a whole child belongs on another node now?

Pure functions of values. Roles are sticky, so an active never moves (law 7), and whatever moves is
a passive. At most one move is named at a time; when it is done, the question is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from raphub.core.model import ChildPlan, DistributionKind, Node, NodeId, Spread

MOVE_WORTH = 0.1
"""By which share of a node a move has to even out the load, at least, to be worth it."""


@dataclass(frozen=True, slots=True)
class Relocation:
    """The copy of this number belongs on this node."""

    number: int
    node_id: NodeId


@dataclass(frozen=True, slots=True)
class Standing:
    """How a child stands: the node of each copy, which copy is the active, and the zones.

    `nodes` are all and only the usable ones, in the order of the strategy; `zone_of` gives every
    node the same zone if the child is not spread over a label.
    """

    plan: ChildPlan
    copies: Mapping[int, NodeId]
    active: int
    nodes: Sequence[Node]
    zone_of: Callable[[NodeId], str | None]

    @property
    def passives(self) -> dict[int, NodeId]:
        """The copies that may move."""
        return {number: node for number, node in self.copies.items() if number != self.active}

    def free(self) -> Iterator[NodeId]:
        """The usable nodes without a copy of the child, in the order of the strategy."""
        held = set(self.copies.values())
        return (node.node_id for node in self.nodes if node.node_id not in held)

    def in_zones(self, *, without: int | None = None) -> dict[str | None, int]:
        """How many copies each zone has, one of them perhaps left out."""
        counts: dict[str | None, int] = {}
        for number, node_id in self.copies.items():
            if number != without:
                zone = self.zone_of(node_id)
                counts[zone] = counts.get(zone, 0) + 1
        return counts

    def may_go(self, number: int, node_id: NodeId) -> bool:
        """Would the copies be spread as well as now if this one stood there?"""
        if not self.plan.zone_label:
            return True
        others = self.in_zones(without=number)
        there = others.get(self.zone_of(node_id), 0)
        if self.plan.spread is Spread.STRICT:
            return there == 0
        return there <= others.get(self.zone_of(self.copies[number]), 0)


def misplaced(
    standing: Standing,
    kind: DistributionKind,
    load_of: Callable[[NodeId, int], float] = lambda _node_id, _more: 0.0,
) -> Relocation | None:
    """The passive that belongs elsewhere, and where; None if all are where they belong.

    Ask only while the child has all wanted copies: healing goes first. `load_of(node, more)` is the
    load of a node with so many more copies of the child. A custom strategy says where copies are
    placed and moves none, except to spread them over zones.
    """
    if len(set(standing.copies.values())) < len(standing.copies):
        return None  # They part by healing.
    if standing.plan.zone_label and kind is not DistributionKind.GUIDED:
        move = _to_emptier_zone(standing)
        if move is not None:
            return move
    match kind:
        case DistributionKind.CONSISTENT_HASHING:
            return _into(standing, _hash_targets(standing))
        case DistributionKind.GUIDED:
            mapped = [node.node_id for node in standing.nodes]
            return _into(standing, mapped[: standing.plan.factor])
        case DistributionKind.LEAST_LOADED:
            return _to_less_load(standing, load_of)
        case DistributionKind.CUSTOM:
            return None


def _to_emptier_zone(standing: Standing) -> Relocation | None:
    """A passive of a crowded zone, and a free node of one that has two copies less."""
    counts = standing.in_zones()
    crowded_first = sorted(
        standing.passives.items(), key=lambda c: (-counts[standing.zone_of(c[1])], -c[0])
    )
    goals = sorted(standing.free(), key=lambda n: counts.get(standing.zone_of(n), 0))
    for number, node_id in crowded_first[:1]:
        for goal in goals[:1]:
            gap = counts[standing.zone_of(node_id)] - counts.get(standing.zone_of(goal), 0)
            if gap > 1 and standing.may_go(number, goal):
                return Relocation(number, goal)
    return None


def _into(standing: Standing, targets: Sequence[NodeId]) -> Relocation | None:
    """A passive outside of the targets, the one on the worst node first, and a free one of them."""
    held = set(standing.copies.values())
    place = {node.node_id: index for index, node in enumerate(standing.nodes)}
    outside = [(n, node) for n, node in standing.passives.items() if node not in targets]
    worst_first = sorted(outside, key=lambda c: (-place.get(c[1], len(place)), c[0]))
    for number, _ in worst_first:
        for goal in targets:
            if goal not in held and standing.may_go(number, goal):
                return Relocation(number, goal)
    return None


def _hash_targets(standing: Standing) -> list[NodeId]:
    """Where the passives belong by consistent hashing, while the active stays where it is.

    The active may stand below its place: whatever joins right above it would take over from it, and
    is left free, for roles are sticky. So a node that joins wins one passive of n, as if there were
    only passives, and nothing moves between nodes that were there before.
    """
    active_on = standing.copies[standing.active]
    active_zone = standing.zone_of(active_on)
    held = set(standing.copies.values())
    ordered = [node.node_id for node in standing.nodes]
    if active_on in ordered:
        above = ordered[: ordered.index(active_on)]
        kept_free = set(_run_above(above, held, lambda n: standing.zone_of(n) == active_zone))
        ordered = [n for n in ordered if n not in kept_free and n != active_on]
    counts: dict[str | None, int] = {active_zone: 1}
    targets: list[NodeId] = []
    for _ in standing.passives:
        left = [node_id for node_id in ordered if node_id not in targets]
        if not left:
            break
        best = min(left, key=lambda n: counts.get(standing.zone_of(n), 0))
        targets.append(best)
        counts[standing.zone_of(best)] = counts.get(standing.zone_of(best), 0) + 1
    return targets


def _run_above(
    above: Sequence[NodeId], held: set[NodeId], is_of_zone: Callable[[NodeId], bool]
) -> Iterable[NodeId]:
    """The free nodes of the zone directly above the active's, up to the first that is held."""
    for node_id in reversed(above):
        if is_of_zone(node_id):
            if node_id in held:
                return
            yield node_id


def _to_less_load(standing: Standing, load_of: Callable[[NodeId, int], float]) -> Relocation | None:
    """The passive on the most loaded node, if another node would still be clearly less loaded."""
    free = list(standing.free())
    by_load = sorted(standing.passives.items(), key=lambda c: (-load_of(c[1], 0), c[0]))
    for number, node_id in by_load:
        goals = [goal for goal in free if standing.may_go(number, goal)]
        best = min(goals, key=lambda goal: round(load_of(goal, 1), 6), default=None)
        if best is not None and load_of(best, 1) + MOVE_WORTH <= load_of(node_id, 0):
            return Relocation(number, best)
    return None
