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
AGAIN_S = 0.2


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
    copy_delay_max_s: float = 0.003
    now: float = 0.0
    chance: random.Random = field(init=False)
    totals: Counter[str] = field(default_factory=Counter)
    trace: deque[str] = field(default_factory=lambda: deque(maxlen=TRACE_LINES_MAX))
    calm: bool = False
    deaf: int = 0
    deaf_since: float = float("-inf")
    hears_since: float = float("-inf")
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
        self.deafen(-self.deaf)

    def deafen(self, more: int) -> None:
        """Cut the head off from everybody, or take that back. It counts, as cuts do."""
        was_deaf, self.deaf = self.deaf, max(0, self.deaf + more)
        if self.deaf and not was_deaf:
            self.deaf_since, self.hears_since = self.now, float("inf")
        elif was_deaf and not self.deaf:
            self.hears_since = self.now

    def arrives(self, here: str, there: str) -> bool:
        """Is the way open?"""
        return not self._cut[here, there] and not (self.deaf and HEAD in (here, there))

    def delay_s(self) -> float:
        """How long a message takes; now and then, long enough to be overtaken."""
        if self.likely(0.01):
            return self.chance.uniform(0.01, 0.6)
        return self.chance.uniform(0.0001, 0.003)

    def copy_delay_s(self) -> float:
        """The same, for a message from one copy to another."""
        if self.likely(0.01):
            return self.chance.uniform(0.01, 0.6)
        return self.chance.uniform(0.0001, 0.003 if self.calm else self.copy_delay_max_s)

    def carry(self, here: str, there: str, deliver: Callable[[], None]) -> bool:
        """Send a message: once, twice or never. Over a cut it is lost, or comes when least wanted.

        While the head is deaf, nothing comes, whenever it was sent. False if it was lost.
        """

        def arrive() -> None:
            if not (self.deaf and HEAD in (here, there)):
                deliver()

        if not self.arrives(here, there):
            if not self.deaf and self.likely(0.3):
                self.at(self.chance.uniform(0.5, 6.0), arrive)
            return False
        if self.likely(0.005):
            return False
        self.at(self.delay_s(), arrive)
        if self.likely(0.01):
            self.at(self.delay_s() * 3, arrive)
        return True

    def carry_surely(self, here: str, there: str, deliver: Callable[[], None]) -> None:
        """Send what a kernel repeats until it is heard, such as the end of a connection."""
        if self.arrives(here, there):
            self.at(self.delay_s(), deliver)
        else:
            self.at(AGAIN_S, lambda: self.carry_surely(here, there, deliver))
