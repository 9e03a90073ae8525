"""What is the world that the machines are put into?

Virtual time, one source of chance, and a network that delays, loses, doubles and cuts. Nothing in
here knows what raphub does.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

TRACE_LINES_MAX = 80
HEAD = "head"
CLIENTS = "clients"


@dataclass(slots=True)
class Clock:
    """The clock of one process: off by a constant, and a little fast or slow."""

    offset_s: float
    rate: float

    def own(self, true_s: float) -> float:
        """What the process reads at this true time."""
        return self.offset_s + true_s * self.rate


@dataclass
class World:
    """True time and what is to happen. `chance` is the only source of randomness."""

    seed: int
    drift_max: float
    now: float = 0.0
    chance: random.Random = field(init=False)
    totals: Counter[str] = field(default_factory=Counter)
    trace: deque[str] = field(default_factory=lambda: deque(maxlen=TRACE_LINES_MAX))
    calm: bool = False
    _agenda: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: int = 0
    _cut: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def clock(self) -> Clock:
        """A clock for a new process. All of one world agree within the drift that is allowed."""
        rate = 1 + self.chance.uniform(-self.drift_max, self.drift_max)
        return Clock(self.chance.uniform(0, 1000), rate)

    # --- time ---------------------------------------------------------------------------------

    def at(self, delay_s: float, happens: Callable[[], None]) -> None:
        """Let it happen after so many seconds."""
        self._count += 1
        heapq.heappush(self._agenda, (self.now + delay_s, self._count, happens))

    def run_until(self, end_s: float) -> None:
        """Let everything happen that is due before then."""
        while self._agenda and self._agenda[0][0] <= end_s:
            self.now, _, happens = heapq.heappop(self._agenda)
            happens()
        self.now = end_s

    def note(self, *words: object) -> None:
        """Keep a line for whoever reads the story of a failing seed."""
        self.trace.append(f"{self.now:8.3f} " + " ".join(map(str, words)))

    def likely(self, probability: float) -> bool:
        """Toss a coin; when faults are off it never shows the bad side."""
        return not self.calm and self.chance.random() < probability

    # --- network ------------------------------------------------------------------------------

    def cut(self, here: str, there: str) -> None:
        """Nothing arrives from here to there any more. Cuts count, so each wants its own end."""
        self._cut[here, there] += 1

    def join(self, here: str, there: str) -> None:
        """Take one cut back."""
        self._cut[here, there] = max(0, self._cut[here, there] - 1)

    def join_all(self) -> None:
        """Take all cuts back."""
        self._cut.clear()

    def arrives(self, here: str, there: str) -> bool:
        """Is the way open?"""
        return not self._cut[here, there]

    def delay_s(self) -> float:
        """How long a message takes; now and then, long enough to be overtaken."""
        if self.likely(0.01):
            return self.chance.uniform(0.01, 0.6)
        return self.chance.uniform(0.0001, 0.003)

    def carry(self, here: str, there: str, deliver: Callable[[], None]) -> None:
        """Send a message: once, twice or never. Over a cut it is lost, or comes when least wanted."""
        if not self.arrives(here, there):
            if self.likely(0.3):
                self.at(self.chance.uniform(0.5, 6.0), deliver)
            return
        if self.likely(0.005):
            return
        self.at(self.delay_s(), deliver)
        if self.likely(0.01):
            self.at(self.delay_s() * 3, deliver)
