"""What is the key-value store of the simulated cluster?

Put-if-absent, get, delete, list; one of each at a time, as in Ray's GCS. What is put can be
watched: the journal is the truth that the checkers go by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from raphub.core.journal import Delete, Entry, Get, Keys, Operation, PutIfAbsent, index_of
from raphub.core.records import Fact, Ledger


@dataclass
class Store:
    """The keys, and whoever wants to see what comes to rest."""

    keys: dict[str, Entry] = field(default_factory=dict)
    watchers: list[Callable[[str, Entry], None]] = field(default_factory=list)

    def perform(self, operation: Operation) -> Any:
        """Do it, at once and atomically."""
        match operation:
            case Get(key):
                return self.keys.get(key)
            case PutIfAbsent(key, entry):
                if key in self.keys:
                    return False
                self.keys[key] = entry
                for watch in self.watchers:
                    watch(key, entry)
                return True
            case Delete(key):
                self.keys.pop(key, None)
                return None
            case Keys(prefix):
                return [key for key in self.keys if key.startswith(prefix)]

    def floor(self) -> int:
        """The highest snapshot."""
        return max((index_of(key) for key in self.keys if key.startswith("snap/")), default=0)

    def facts(self) -> list[Fact]:
        """All that counts, in order."""
        floor = self.floor()
        snapshot = [self.keys[key] for key in self.keys if key == f"snap/{floor:012d}"]
        entries = sorted(k for k in self.keys if k.startswith("log/") and index_of(k) >= floor)
        return [
            fact for entry in (*snapshot, *(self.keys[k] for k in entries)) for fact in entry.facts
        ]

    def ledger(self) -> Ledger:
        """What a new life of the hub would begin with."""
        ledger = Ledger()
        for fact in self.facts():
            ledger.apply(fact)
        return ledger
