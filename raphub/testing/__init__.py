"""What raphub's own tests use, and its users' tests may: whole clusters to break, and fixtures."""

from __future__ import annotations

from raphub.testing.local_cluster import LocalCluster

__all__ = ["LocalCluster"]
