"""The class that the benchmarks call, replicated and as a plain Ray actor."""

from __future__ import annotations

import os

import ray


class Counter:
    """Counts, and says which process and node it lives in."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def pid(self) -> int:
        return os.getpid()

    def node_id(self) -> str:
        return str(ray.get_runtime_context().get_node_id())
