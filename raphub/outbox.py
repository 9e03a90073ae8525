"""What could not be sent yet, because nobody is there to send it to?"""

from __future__ import annotations

import threading
from collections import deque
from typing import Protocol


class Sendable(Protocol):
    """Something that can be sent once its child has an active."""

    child_id: str

    def try_send(self) -> bool:
        """Send it; False while there is nobody to send it to."""


class Outbox:
    """What could not be sent yet because its child has no active, in order."""

    def __init__(self) -> None:
        """Nothing waits."""
        self._lock = threading.RLock()
        self._waiting: dict[str, deque[Sendable]] = {}

    def holds(self, child_id: str) -> bool:
        """Does something wait for this child, so that what comes now has to stand behind it?"""
        return child_id in self._waiting

    def add(self, item: Sendable) -> None:
        """Send it as soon as there is somebody to send it to."""
        with self._lock:
            self._waiting.setdefault(item.child_id, deque()).append(item)
        self.flush()

    def flush(self) -> bool:
        """Send what can be sent; was there anything?"""
        was_sent = False
        with self._lock:
            for child_id in list(self._waiting):
                queue = self._waiting[child_id]
                while queue and queue[0].try_send():
                    queue.popleft()
                    was_sent = True
                if not queue:
                    del self._waiting[child_id]
        return was_sent
