"""What does a client see of a planned move, under load?

    python benchmarks/bench_moves.py --repetitions 20 --json moves.json

One local cluster of four nodes and a head; a child with two copies and `state="snapshot"`. Clients
write without a pause, each on a thread of its own, and after each answer note the time. The figure
of a move is the longest time between two answers of one client, counted from the last answer before
the move was asked for to the first one after it was done; of all clients the longest. At the end the
state is held against what was answered.

- *switchover*: the active and the passive change places.
- *migration*: the active is replaced by a copy on another node.
- *drain*: the active's node is emptied, and used again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from figures import save, show, summary
from workload import Counter

import raphub
from raphub.testing import LocalCluster

LIMIT_S = 120.0
NODES = 4
QUIET_S = 0.3


class Clients:
    """Threads that write all the time, and when each of their writes was answered."""

    def __init__(self, handle: raphub.ChildHandle[Any], count: int) -> None:
        self._handle = handle
        self.answered_at: list[list[float]] = [[] for _ in range(count)]
        self.errors: list[str] = []
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(times,)) for times in self.answered_at
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(LIMIT_S)

    def _write(self, times: list[float]) -> None:
        while not self._is_over.is_set():
            try:
                self._handle.add.remote(1).result(LIMIT_S)
            except Exception as error:  # noqa: BLE001 - counted, and shown
                self.errors.append(repr(error))
            times.append(time.monotonic())

    @property
    def writes(self) -> int:
        """How many writes were answered."""
        return sum(map(len, self.answered_at)) - len(self.errors)

    def longest_gap_s(self, began_at: float) -> float:
        """The longest time between two answers of one client since then, what began before incl."""
        gaps: list[float] = []
        for times in self.answered_at:
            steps = list(itertools.pairwise(list(times)))
            gaps += [after - before for before, after in steps if after >= began_at]
        return max(gaps)


class Moves:
    """The moves that are measured."""

    def __init__(self, hub: raphub.Hub) -> None:
        self._hub = hub
        self._handle = hub.get("counter")

    def switchover(self) -> None:
        """The active and the passive change places."""
        assert self._hub.switchover("counter").result(LIMIT_S).ok

    def migration(self) -> None:
        """The active goes to another node."""
        assert self._hub.migrate(self._active().replica_id).result(LIMIT_S).ok

    def drain(self) -> None:
        """The active's node is emptied."""
        node_id = self._active().node_id
        assert self._hub.drain(node_id, deadline_s=LIMIT_S).result(LIMIT_S).ok
        self._hub.undrain(node_id).result(LIMIT_S)

    def settle(self) -> None:
        """Wait until the child is whole."""

        def is_whole(hub: raphub.Hub) -> bool:
            status = hub.lookup("counter")
            return status is not None and status.health == "ok" and len(status.in_sync) == 2

        assert self._hub.wait_for(is_whole, LIMIT_S)

    def _active(self) -> raphub.ReplicaStatus:
        active = self._handle.wait_ready(LIMIT_S).active
        assert active is not None
        return active


def measured(clients: Clients, moves: Moves, move: Callable[[], None]) -> tuple[float, float]:
    """The longest gap that a client saw, and how long the move took."""
    moves.settle()
    time.sleep(QUIET_S)
    began_at = time.monotonic()
    move()
    took_s = time.monotonic() - began_at
    time.sleep(QUIET_S)
    return clients.longest_gap_s(began_at), took_s


def main() -> None:
    """Measure, and show."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=20, help="of the switchover")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--json", metavar="FILE")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    figures: dict[str, Any] = {}
    rows: list[list[str]] = []
    with LocalCluster(nodes=NODES), raphub.Hub.start(raphub.HubConfig(hub_id="moves")) as hub:
        spec = raphub.ChildSpec(child_id="counter", cls=Counter, factor=2, state="snapshot")
        assert hub.start_child(spec).result(LIMIT_S).ok
        moves, handle = Moves(hub), hub.get("counter")
        moves.settle()
        few = max(1, asked.repetitions // 4)
        with Clients(handle, asked.clients) as clients:
            for move, count in (
                (moves.switchover, asked.repetitions),
                (moves.migration, few),
                (moves.drain, few),
            ):
                found = [measured(clients, moves, move) for _ in range(count)]
                gap, took = summary([g for g, _ in found]), summary([t for _, t in found])
                figures[move.__name__] = {"gap_s": gap, "took_s": took}
                rows.append(
                    [
                        move.__name__,
                        str(count),
                        " / ".join(f"{gap[k] * 1000:.0f}" for k in ("min", "median", "max")),
                        f"{took['median'] * 1000:.0f}",
                    ]
                )
        value = handle.add.remote(0).result(LIMIT_S)
        figures |= {"writes": clients.writes, "value": value, "errors": clients.errors}
    show(
        "planned moves under load",
        ["move", "count", "longest wait of a client, ms", "took, ms"],
        rows,
    )
    print(f"{clients.writes} writes answered, {value} applied, {len(clients.errors)} errors")
    print(f"load average of one minute: {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    assert value == clients.writes
    assert clients.errors == []
    save(asked.json, figures)


if __name__ == "__main__":
    main()
