"""On which node does a copy of a child belong?

Pure functions of values. Consistent hashing is rendezvous hashing (Thaler and Ravishankar, 1996):
each node's weight for a child is a hash of both, and the heaviest nodes win. A node that joins or
leaves changes only the children that it wins or held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from raphub.core.model import ChildPlan, Node, NodeId

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


def rank(
    plan: ChildPlan,
    nodes: Iterable[Node],
    taken: Mapping[NodeId, int],
    avoided: Callable[[NodeId], bool],
    zone_of: Callable[[NodeId], str | None],
) -> list[Node]:
    """Usable nodes, the best for one further copy first.

    `taken` counts the child's copies on each node. A free node comes before a taken one, one that
    is not avoided before one that is, a zone with fewer copies before one with more, and then the
    heavier. With `zone_label` unset all nodes are of one zone.
    """
    in_zone: dict[str | None, int] = {}
    for node_id, count in taken.items():
        zone = zone_of(node_id)
        in_zone[zone] = in_zone.get(zone, 0) + count
    heaviest = sorted(
        nodes, key=lambda node: (weight(plan.child_id, node.node_id), node.node_id), reverse=True
    )
    return sorted(
        heaviest,
        key=lambda node: (
            taken.get(node.node_id, 0),
            avoided(node.node_id),
            in_zone.get(zone_of(node.node_id), 0) if plan.zone_label else 0,
        ),
    )
