"""What raphub's own tests use, and its users' tests may.

Whole clusters to break, fixtures, and a judge of what clients saw meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raphub.testing.history import (
    EMPTY_DIGEST,
    History,
    Operation,
    OperationKind,
    Outcome,
    Recording,
    Seen,
    Violation,
    ViolationKind,
    check,
    next_digest,
)

if TYPE_CHECKING:
    from raphub.testing.local_cluster import LocalCluster as LocalCluster

__all__ = [
    "EMPTY_DIGEST",
    "History",
    "LocalCluster",
    "Operation",
    "OperationKind",
    "Outcome",
    "Recording",
    "Seen",
    "Violation",
    "ViolationKind",
    "check",
    "next_digest",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute (PEP 562)
    """Import Ray at the first use: pytest loads this package in every run, for its plugin."""
    if name == "LocalCluster":
        from raphub.testing.local_cluster import LocalCluster  # noqa: PLC0415 - as said above

        return LocalCluster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
