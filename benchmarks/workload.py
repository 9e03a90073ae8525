"""The class that the benchmarks call, replicated and as a plain Ray actor."""

from __future__ import annotations

import os


class Counter:
    """Counts, and says which process it lives in."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def pid(self) -> int:
        return os.getpid()
