"""Who writes to the replicated children of the simulated world, and what were they told?

Each writer keeps a lane to one child, as a process of a user does: several calls under way, all of
them sent again in order when the active changes. What it asked and was answered is its history.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from raphub.core.calls import Attempt
from raphub.core.lane import Lane
from raphub.core.model import ReplicaId
from raphub.core.replication import Call
from raphub.core.views import ChildView
from raphub.testing.history import History, Recording, digests_of
from tests.simulation.cluster import Cluster
from tests.simulation.copy_data import Arrival
from tests.simulation.world import CLIENTS, World

LOOK_AGAIN_S = 0.05
PATIENCE_S = 0.5
GIVES_UP_S = 6.0
UNDER_WAY_MAX = 4


@dataclass
class Writer:
    """One process that appends to, and reads, one child."""

    world: World
    cluster: Cluster
    history: History
    child_id: str
    name: str
    lane: Lane = field(default_factory=Lane)
    view: ChildView | None = None
    items: dict[int, str | None] = field(default_factory=dict)
    recordings: dict[int, Recording] = field(default_factory=dict)
    last_at: dict[str, float] = field(default_factory=dict)

    def told(self, view: ChildView | None) -> None:
        """The registry was pushed."""
        if view is None or (self.view is not None and view.epoch < self.view.epoch):
            return
        self.view = view
        if view.active is not None:
            for number in self.lane.outdated(view.epoch):
                self.lane.hold(number)
            self._flush()

    def keep_writing(self) -> None:
        """Open a call now and then, several at a time."""
        if not self.world.calm and len(self.lane.waiting) < UNDER_WAY_MAX:
            self.open(is_read=self.world.chance.random() < 0.3)
        self.world.at(self.world.chance.uniform(0.05, 0.4), self.keep_writing)

    def open(self, *, is_read: bool) -> None:
        """Ask for one more append or read."""
        number = self.lane.open(is_read=is_read)
        item = None if is_read else f"{self.name}-{number}"
        self.items[number] = item
        begin = self.history.begin_read(self.name) if item is None else None
        self.recordings[number] = begin or self.history.begin_append(self.name, item or "")
        self._flush()

    def _flush(self) -> None:
        """Send what is due, in order."""
        view = self.view
        if view is None or view.active is None:
            return
        for number in self.lane.due():
            self._send(number, Attempt(view.active, view.epoch))

    def _send(self, number: int, attempt: Attempt) -> None:
        waiting = self.lane.waiting[number]
        call = Call(
            self.name,
            number,
            attempt.epoch,
            self.lane.settled_below,
            0 if waiting.is_read else self.lane.write_before(number),
            is_retry=waiting.tries > 0,
            is_read=waiting.is_read,
        )
        self.lane.sent(number, attempt)
        tries = waiting.tries
        process = self.cluster.processes.get(ReplicaId(attempt.replica))
        if process is None:
            self.world.at(LOOK_AGAIN_S, lambda: self._again(number, tries))
            return
        arrival = Arrival(
            call, self.items[number], lambda *told: self._hear(number, tries, attempt, *told)
        )
        at = max(
            self.last_at.get(attempt.replica, 0.0) + 1e-6, self.world.now + self.world.delay_s()
        )
        self.last_at[attempt.replica] = at
        name = process.node.name
        self.world.at(GIVES_UP_S, lambda: self._again(number, tries))
        if self.world.arrives(CLIENTS, name):
            self.world.at(at - self.world.now, lambda: process.data.arrive(arrival))
            if self.world.likely(0.02):
                # A call that was given up on runs later.
                self.world.at(
                    self.world.chance.uniform(0.1, 8.0), lambda: process.data.arrive(arrival)
                )
        elif self.world.likely(0.5):
            self.world.at(self.world.chance.uniform(0.5, 8.0), lambda: process.data.arrive(arrival))

    def _hear(
        self, number: int, tries: int, attempt: Attempt, outcome: str, answer: object
    ) -> None:
        process = self.cluster.processes[ReplicaId(attempt.replica)]
        if not self.world.arrives(process.node.name, CLIENTS) or self.world.likely(0.01):
            self.world.at(PATIENCE_S, lambda: self._again(number, tries))
            return
        if number not in self.lane.waiting:
            return
        match outcome:
            case "answered":
                self._settle(number, answer)
            case "forgotten" | "killed":
                self.world.totals[outcome] += 1
                self.recordings.pop(number).unknown()
                self.lane.settle(number)
            case _:
                self.world.totals[f"calls {outcome}"] += 1
                self.world.at(LOOK_AGAIN_S, lambda: self._again(number, tries))

    def _settle(self, number: int, answer: object) -> None:
        self.lane.settle(number)
        recording = self.recordings.pop(number)
        if isinstance(answer, tuple):
            last = answer[-1] if answer else None
            recording.answered((len(answer), last, digests_of(answer)[-1]))
        else:
            assert isinstance(answer, int)
            recording.answered(answer)

    def _again(self, number: int, tries: int) -> None:
        """The attempt brought no answer: send the call again, if it has not been meanwhile."""
        waiting = self.lane.waiting.get(number)
        if waiting is not None and waiting.attempt is not None and waiting.tries == tries:
            self.lane.hold(number)
            self._flush()
