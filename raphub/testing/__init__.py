"""What raphub's own tests use, and its users' tests may: whole clusters to break, and fixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raphub.testing.local_cluster import LocalCluster as LocalCluster

__all__ = ["LocalCluster"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute (PEP 562)
    """Import Ray at the first use: pytest loads this package in every run, for its plugin."""
    if name == "LocalCluster":
        from raphub.testing.local_cluster import LocalCluster  # noqa: PLC0415 - as said above

        return LocalCluster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
