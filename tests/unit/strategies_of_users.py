"""Distribution strategies as users write them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import raphub

HELD = threading.Event()


class ByLabel(raphub.DistributionStrategy):
    """Nodes with the label first, then those with fewer copies."""

    label: str
    value: str = "yes"

    def rank(
        self, child_id: str, nodes: Sequence[raphub.Candidate], taken: Mapping[str, int]
    ) -> Sequence[str]:
        ordered = sorted(nodes, key=lambda n: (n.labels.get(self.label) != self.value, n.copies))
        return [node.node_id for node in ordered]


class Waits(raphub.DistributionStrategy):
    """Does not answer before it is let go."""

    def rank(
        self, child_id: str, nodes: Sequence[raphub.Candidate], taken: Mapping[str, int]
    ) -> Sequence[str]:
        HELD.wait(20)
        return [node.node_id for node in nodes]


class NoStrategy:
    """Has nothing to do with it."""
