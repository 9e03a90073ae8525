"""On which node does a copy of a child belong?

Pure functions of values. A strategy puts the nodes that may hold a copy in its order; `rank` then
puts first what keeps the child's copies apart. Consistent hashing is rendezvous hashing (Thaler and
Ravishankar, 1996): each node's weight for a child is a hash of both, and the heaviest nodes win. A
node that joins or leaves changes only the children that it wins or held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from raphub.core.model import ChildPlan, Distribution, Node, NodeId

CPU_SHARE_MIN = 0.001
"""A bundle must not be empty: a copy that asks for no CPU reserves this much."""


def weight(child_id: str, node_id: str) -> bytes:
    """How much the child is drawn to the node; the same in every process, for ever."""
    return hashlib.blake2b(f"{child_id}\0{node_id}".encode(), digest_size=8).digest()


def is_label_match(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Do a node's labels meet a selector of Ray's form?

    A value is `x`, `!x`, `in(x,y)` or `!in(x,y)`; all keys must match.
    """
    return all(_is_value_match(wanted, labels.get(key)) for key, wanted in selector.items())


def _is_value_match(wanted: str, value: str | None) -> bool:
    negated = wanted.startswith("!")
    term = wanted[1:] if negated else wanted
    if term.startswith("in(") and term.endswith(")"):
        allowed = {part.strip() for part in term[3:-1].split(",")}
    else:
        allowed = {term}
    return (value in allowed) != negated


def is_usable(plan: ChildPlan, node: Node, hub_selector: Mapping[str, str]) -> bool:
    """May a copy of the child run on the node at all? Free capacity is not looked at."""
    wanted = {"CPU": CPU_SHARE_MIN, **{k: v for k, v in plan.resources.items() if v}}
    return (
        is_label_match(hub_selector, node.labels)
        and is_label_match(plan.label_selector, node.labels)
        and all(node.resources.get(name, 0.0) >= amount for name, amount in wanted.items())
    )


def is_named(entry: str, node: Node) -> bool:
    """Does an entry of a mapping, a node id or an address, mean this node?"""
    return entry in (node.node_id, node.address)


# --- the strategies' orders -------------------------------------------------------------------


def by_hash(child_id: str, nodes: Iterable[Node]) -> list[Node]:
    """Consistent hashing: the heaviest node for the child first."""
    return sorted(
        nodes, key=lambda node: (weight(child_id, node.node_id), node.node_id), reverse=True
    )


def by_mapping(
    entries: Sequence[str], nodes: Sequence[Node], taken: Mapping[NodeId, int]
) -> list[Node]:
    """Guided: all and only the nodes that the mapping means, one for each entry, in its order.

    An address may be that of several nodes, when a machine's Ray was started again and the old node
    is still in the table: then the one that holds a copy counts, else the one whose id is lowest.
    """
    chosen: list[Node] = []
    for entry in entries:
        meant = [node for node in nodes if is_named(entry, node) and node not in chosen]
        if meant:
            chosen.append(min(meant, key=lambda n: (not taken.get(n.node_id), n.node_id)))
    return chosen


def by_load(
    child_id: str,
    nodes: Iterable[Node],
    load_of: Callable[[Node], float],
    has_room: Callable[[Node], bool],
) -> list[Node]:
    """Least loaded: nodes with free capacity first, then those with less load, then the heavier."""
    return sorted(
        by_hash(child_id, nodes),
        # Loads are sums of fractions: equal ones may differ in the last bits.
        key=lambda node: (not has_room(node), round(load_of(node), 6)),
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may hold the next copy, as a custom strategy is shown it.

    `resources` is what the node has, `free` what Ray last called free of it (empty if nothing is
    known yet), both under Ray's names; `copies` counts this hub's copies there.
    """

    node_id: str
    address: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    resources: dict[str, float] = field(default_factory=dict)
    free: dict[str, float] = field(default_factory=dict)
    copies: int = 0


Custom = Callable[[str, Sequence[Candidate], Mapping[str, int]], object]
"""A custom strategy: the child's id, the candidates, and how many copies each node has of it."""


class StrategyFailedError(Exception):
    """A custom strategy gave no answer that can be used."""


def by_custom(
    child_id: str,
    nodes: Sequence[Node],
    custom: Custom,
    candidates: Sequence[Candidate],
    taken: Mapping[NodeId, int],
) -> list[Node]:
    """What a user's strategy says, best first; a node that it leaves out gets no copy.

    Raises `StrategyFailedError` if it raises, or names what is no candidate, or one twice.
    """
    by_id: dict[object, Node] = {node.node_id: node for node in nodes}
    try:
        answer = custom(child_id, candidates, {str(n): count for n, count in taken.items()})
    except Exception as error:
        raise StrategyFailedError(f"{type(error).__name__}: {error}") from error
    if not isinstance(answer, list | tuple):
        raise StrategyFailedError(f"it answered with a {type(answer).__name__}, not with a list")
    named = [by_id.get(item) if isinstance(item, str) else None for item in answer]
    ordered = [node for node in named if node is not None]
    if len(ordered) < len(named):
        raise StrategyFailedError(f"it named {answer[named.index(None)]!r}, which is no candidate")
    if len({node.node_id for node in ordered}) < len(ordered):
        raise StrategyFailedError("it named a node twice")
    return ordered


# --- one further copy -------------------------------------------------------------------------


def rank(
    plan: ChildPlan,
    nodes: Iterable[Node],
    taken: Mapping[NodeId, int],
    avoided: Callable[[NodeId], bool],
    zone_of: Callable[[NodeId], str | None],
) -> list[Node]:
    """Usable nodes, in the order of a strategy, the best for one further copy first.

    `taken` counts the child's copies on each node. A free node comes before a taken one, one that
    is not avoided before one that is, a zone with fewer copies before one with more, and then the
    strategy's order counts. With `zone_label` unset all nodes are of one zone.
    """
    in_zone: dict[str | None, int] = {}
    for node_id, count in taken.items():
        zone = zone_of(node_id)
        in_zone[zone] = in_zone.get(zone, 0) + count
    return sorted(
        nodes,
        key=lambda node: (
            taken.get(node.node_id, 0),
            avoided(node.node_id),
            in_zone.get(zone_of(node.node_id), 0) if plan.zone_label else 0,
        ),
    )


def mapping_trouble(
    distribution: Distribution,
    plan: ChildPlan,
    nodes: Sequence[Node],
    hub_selector: Mapping[str, str],
) -> str:
    """Why a guided child cannot start as its mapping says; empty if it can."""
    entries = distribution.mapping.get(plan.child_id, ())
    if not entries:
        return "the mapping names no nodes for it; add it to `Guided(mapping=...)`"
    for entry in entries:
        meant = [node for node in nodes if is_named(entry, node)]
        if not meant:
            return f"the mapping names {entry!r}, and no node has that id or address"
        if not any(is_usable(plan, node, hub_selector) for node in meant):
            return (
                f"the node {entry!r} of the mapping may not hold it; look at the node's resources "
                "and labels, and at the label_selector of hub and child"
            )
    usable = [node for node in nodes if is_usable(plan, node, hub_selector)]
    mapped = by_mapping(entries, usable, {})
    if len(mapped) < len(entries):
        return "the mapping names one node twice; name each node once, by id or by address"
    if plan.factor is not None and len(mapped) < plan.factor:
        return f"the mapping names too few nodes, {len(mapped)} for {plan.factor} copies"
    return ""
