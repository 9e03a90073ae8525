"""Distribution strategies as a user's module has them; the head node imports them by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import raphub


class Backwards(raphub.DistributionStrategy):
    """The nodes in the opposite order of their ids, but those of one zone first."""

    zone: str

    def rank(
        self, child_id: str, nodes: Sequence[raphub.Candidate], taken: Mapping[str, int]
    ) -> list[str]:
        ordered = sorted(nodes, key=lambda node: node.node_id, reverse=True)
        ordered.sort(key=lambda node: node.labels.get("zone") != self.zone)
        return [node.node_id for node in ordered]


class Broken(raphub.DistributionStrategy):
    """Has no answer."""

    def rank(
        self, child_id: str, nodes: Sequence[raphub.Candidate], taken: Mapping[str, int]
    ) -> list[str]:
        raise LookupError(f"there is no place for {child_id}")
