"""The classes that the benchmarks call, replicated and as plain Ray actors."""

from __future__ import annotations

import os
from typing import Any

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


class Relay(Counter):
    """Replicates the obvious way: asks each follower through Ray, and answers when all have."""

    def __init__(self, followers: list[Any]) -> None:
        super().__init__()
        self.followers = followers

    def add(self, amount: int = 1) -> int:
        answer = super().add(amount)
        ray.get([follower.apply.remote(answer) for follower in self.followers])
        return answer


class Follower:
    """What `Relay` asks: takes over the state."""

    def __init__(self) -> None:
        self.value = 0

    def apply(self, value: int) -> None:
        self.value = value


class Ballast(Counter):
    """Counts beside one attribute that is as large as is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ballast: object = None

    def load(self, kind: str, size: int) -> None:
        """Carry so many bytes: as `bytes`, as a `bytearray` or pickled from a `list` of numbers."""
        match kind:
            case "bytes":
                self.ballast = bytes(size)
            case "bytearray":
                self.ballast = bytearray(size)
            case "list":
                self.ballast = [number % 100 for number in range(size // 2)]

    def change(self, amount: int = 1) -> int:
        """Count, and change one place of a ballast that can change."""
        assert isinstance(self.ballast, bytearray | list)
        self.value += amount
        self.ballast[self.value % len(self.ballast)] ^= 1
        return self.value


class Ledger:
    """Knows for each client which of its writes 1, 2, 3... were applied, and how often."""

    def __init__(self) -> None:
        self.highest: dict[str, int] = {}
        self.missing: dict[str, set[int]] = {}
        self.twice = 0

    def note(self, client: str, number: int) -> int:
        """Take in one write; the answer is the process that did."""
        highest, missing = self.highest.get(client, 0), self.missing.setdefault(client, set())
        if number > highest:
            missing.update(range(highest + 1, number))
            self.highest[client] = number
        elif number in missing:
            missing.remove(number)
        else:
            self.twice += 1
        return os.getpid()

    def applied(self) -> dict[str, tuple[int, set[int]]]:
        """For each client the highest number, and which below it are missing."""
        return {one: (highest, self.missing[one]) for one, highest in self.highest.items()}

    def applied_twice(self) -> int:
        return self.twice
