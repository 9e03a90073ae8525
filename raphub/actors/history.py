"""What has happened in the hub lately, for people to read?

A bounded row of lines with wall-clock times; the oldest fall off.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from raphub.core.messages import Note


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `index` counts from 1 over one life of the hub actor, `time_s` is Unix time."""

    index: int
    time_s: float
    note: Note


class History:
    """The last `events_max` lines. Safe for all threads."""

    def __init__(self, events_max: int) -> None:
        """Nothing has happened yet."""
        self._lock = threading.Lock()
        self._lines: deque[Line] = deque(maxlen=events_max)
        self._count = 0

    def add(self, note: Note) -> None:
        """It has happened now."""
        with self._lock:
            self._count += 1
            self._lines.append(Line(self._count, time.time(), note))

    def since(self, index: int) -> list[Line]:
        """All kept lines after the one of this index, oldest first."""
        with self._lock:
            return [line for line in self._lines if line.index > index]
