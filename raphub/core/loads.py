"""How loaded is each node, by Ray's figures and by what is not in them yet?

Ray's figures are a few seconds old, and a copy shows in them only once it runs. Until then what it
reserves is counted here, so that many copies placed at once do not all find the same node empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raphub.core.model import ChildPlan, Node, NodeId, ReplicaId
from raphub.core.sightings import NOT_YET

COPY_CPUS_MIN = 0.1
"""A copy counts as this many CPUs at least: one that reserves none still does some work."""

FIGURES_LAG_S = 1.0
"""How long after a copy has come up Ray's figures may still lack it."""

ALWAYS_LOOKED_AT = ("CPU", "memory")
"""The resources that make a node loaded for every child; others only for those that ask for them."""


@dataclass(slots=True)
class Pending:
    """A copy that Ray's figures do not show: what it reserves, and from when on they do."""

    reserves: Mapping[str, float]
    shown_from: float = NOT_YET


@dataclass(slots=True)
class Loads:
    """What each node bears. `free` is what Ray last called free."""

    free: dict[NodeId, dict[str, float]] = field(default_factory=dict)
    copies: dict[NodeId, dict[ReplicaId, float]] = field(default_factory=dict)
    pending: dict[NodeId, dict[ReplicaId, Pending]] = field(default_factory=dict)
    unreserved: dict[NodeId, float] = field(default_factory=dict)

    def place(self, replica: ReplicaId, node_id: NodeId, plan: ChildPlan, *, is_up: bool) -> None:
        """A copy stands, or is to stand, on the node."""
        self.forget(replica, node_id)
        unreserved = max(0.0, COPY_CPUS_MIN - plan.resources.get("CPU", 0.0))
        self.copies.setdefault(node_id, {})[replica] = unreserved
        self.unreserved[node_id] = self.unreserved.get(node_id, 0.0) + unreserved
        if not is_up:
            self.pending.setdefault(node_id, {})[replica] = Pending(plan.resources)

    def come_up(self, replica: ReplicaId, node_id: NodeId, now: float) -> None:
        """The copy's process runs, so its reservation is about to show in Ray's figures."""
        pending = self.pending.get(node_id, {}).get(replica)
        if pending is not None and pending.shown_from == NOT_YET:
            pending.shown_from = now + FIGURES_LAG_S

    def forget(self, replica: ReplicaId, node_id: NodeId) -> None:
        """The copy does not count any more."""
        held = self.copies.get(node_id, {})
        if replica not in held:
            return
        self.unreserved[node_id] -= held.pop(replica)
        self._drop_pending(replica, node_id)
        if not held:
            del self.copies[node_id], self.unreserved[node_id]

    def see(self, free: Mapping[NodeId, dict[str, float]], now: float) -> None:
        """Take in Ray's figures; what they show is not counted twice."""
        self.free = dict(free)
        for node_id, held in list(self.pending.items()):
            for replica in [r for r, pending in held.items() if pending.shown_from <= now]:
                self._drop_pending(replica, node_id)

    def _drop_pending(self, replica: ReplicaId, node_id: NodeId) -> None:
        held = self.pending.get(node_id, {})
        held.pop(replica, None)
        if not held:
            self.pending.pop(node_id, None)

    def count(self, node_id: NodeId) -> int:
        """How many copies of this hub the node has."""
        return len(self.copies.get(node_id, ()))

    def left(self, node: Node, name: str) -> float:
        """How much of a resource is left, by what is known."""
        free = self.free.get(node.node_id, node.resources).get(name, 0.0)
        pending = self.pending.get(node.node_id, {}).values()
        return free - sum(one.reserves.get(name, 0.0) for one in pending)

    def has_room(self, node: Node, plan: ChildPlan) -> bool:
        """Would a copy of the child find what it reserves?"""
        return all(self.left(node, name) >= asked for name, asked in plan.resources.items())

    def load(self, node: Node, plan: ChildPlan, more: int = 0) -> float:
        """Which share of the node is in use, with `more` copies of the child on it.

        The resource of which the largest share is used counts, of those that matter to the child.
        It may be above 1.
        """
        shares = [0.0]
        for name in {*ALWAYS_LOOKED_AT, *plan.resources}:
            total = node.resources.get(name, 0.0)
            if total > 0:
                asked = plan.resources.get(name, 0.0)
                used = total - self.left(node, name)
                if name == "CPU":
                    asked = max(asked, COPY_CPUS_MIN)
                    used += self.unreserved.get(node.node_id, 0.0)
                shares.append((used + more * asked) / total)
        return max(shares)
