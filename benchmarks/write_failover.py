"""How long does nobody acknowledge writes after the active was killed, and is one lost or doubled?

A kill that hits a call in the middle makes that call a suspect. Where two copies are all there are,
it waits for a third one before it runs again, and so do those behind it in the same process.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import Any

from figures import show, summary
from workload import Ledger
from write_sides import LIMIT_S, Place, await_in_sync

import raphub

CLIENTS = 4
FACTORS = (2, 3)
SEED = 20261124


class Client:
    """Writes 1, 2, 3... without a pause, each after the answer of the one before."""

    def __init__(self, name: str, handle: Any, heard: threading.Condition) -> None:
        """`heard` is told of every answer of a process that has not answered before."""
        self.name = name
        self.sent = 0
        self.acknowledged: set[int] = set()
        self.failed: list[str] = []
        self.first_answers: dict[int, float] = {}
        self._handle = handle
        self._heard = heard
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write no more."""
        self._is_stopping = True
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), f"{self.name} still waits for its write {self.sent}"

    def _run(self) -> None:
        while not self._is_stopping:
            self.sent += 1
            try:
                pid = self._handle.note.remote(self.name, self.sent).result(LIMIT_S)
            except raphub.RaphubError as error:
                self.failed.append(f"{type(error).__name__}: {error}")
                continue
            self.acknowledged.add(self.sent)
            if pid not in self.first_answers:
                with self._heard:
                    self.first_answers[pid] = time.perf_counter()
                    self._heard.notify_all()


def measure(place: Place, kills: int) -> dict[str, Any]:
    """Kill the active again and again, of a child with two copies and of one with three in turns."""
    chance = random.Random(SEED)  # noqa: S311 - it only spreads the kills over time
    runs = {f"factor {factor}": Run(place, factor) for factor in FACTORS}
    for _ in range(kills):
        for run in runs.values():
            run.kill_once(chance.uniform(0.2, 0.6))
    return {name: run.end() for name, run in runs.items()}


class Run:
    """One child, its clients while it is their turn, and what became of their writes."""

    def __init__(self, place: Place, factor: int) -> None:
        """The child stands, nobody writes."""
        self.handle = place.child(Ledger, factor=factor, state="snapshot")
        self.clients: list[Client] = []
        self.gaps_s: list[float] = []

    def kill_once(self, after_s: float) -> None:
        """Some seconds of writes, the kill, and writes until all copies are back."""
        active = await_in_sync(self.handle).active
        heard = threading.Condition()
        names = [f"client-{len(self.clients) + index}" for index in range(CLIENTS)]
        clients = [Client(name, self.handle, heard) for name in names]
        self.clients += clients
        try:
            time.sleep(after_s)
            killed_at = time.perf_counter()
            os.kill(active.pid, signal.SIGKILL)

            def answers() -> list[float]:
                """When clients first heard of another process than the one that was killed."""
                return [
                    at
                    for client in clients
                    for pid, at in list(client.first_answers.items())
                    if pid != active.pid
                ]

            with heard:
                assert heard.wait_for(answers, LIMIT_S), "no new active has answered"
            self.gaps_s.append(min(answers()) - killed_at)
            await_in_sync(self.handle)
        finally:
            for client in clients:
                client.stop()

    def end(self) -> dict[str, Any]:
        """Stop the child, and hold what its state says against what was acknowledged."""
        applied = self.handle.applied.remote().result(LIMIT_S)
        twice = self.handle.applied_twice.remote().result(LIMIT_S)
        self.handle.stop()
        lost = 0
        for client in self.clients:
            highest, missing = applied.get(client.name, (0, set()))
            lost += sum(n > highest or n in missing for n in client.acknowledged)
        return {
            "gap_s": {**summary(self.gaps_s), "samples": self.gaps_s},
            "sent": sum(client.sent for client in self.clients),
            "acknowledged": sum(len(client.acknowledged) for client in self.clients),
            "lost": lost,
            "twice": twice,
            "errors": [story for client in self.clients for story in client.failed],
        }


def report(figures: dict[str, Any]) -> None:
    """The table, and what clients were told instead of an answer."""
    rows = [
        [
            f"{name}, {run['gap_s']['count']} kills",
            *(f"{1000 * run['gap_s'][key]:,.0f}" for key in ("min", "median", "max")),
            *(f"{run[key]:,}" for key in ("sent", "acknowledged", "lost", "twice")),
        ]
        for name, run in figures.items()
    ]
    title = f"kill of the active under {CLIENTS} clients: ms until a new one has acknowledged"
    columns = ("kills", "min", "median", "max", "sent", "acked", "lost", "twice")
    show(title, columns, rows)
    for name, run in figures.items():
        for story in run["errors"]:
            print(f"{name}: {story}")


def is_right(figures: dict[str, Any]) -> bool:
    """Was every acknowledged write applied, and none twice?"""
    return all(run["lost"] == run["twice"] == 0 for run in figures.values())
