"""How long do writes stand still when a passive dies, and while its successor is built?"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from figures import show, summary
from workload import Ballast
from write_sides import LIMIT_S, Place, await_in_sync

SIZES = {"1 MB": 10**6, "10 MB": 10**7, "100 MB": 10**8}


class Writer:
    """Writes without a pause, on a thread of its own, and remembers when answers came."""

    def __init__(self, write: Callable[[], object]) -> None:
        """Begins with `__enter__`."""
        self._write = write
        self._is_stopping = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answered_at: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_stopping = True
        self._thread.join(LIMIT_S)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._write()
                self.answered_at.append(time.perf_counter())
        except BaseException as wrong:  # noqa: BLE001 - raised to whoever waits for the end
            self._error = wrong

    def longest(self, began_at: float, ended_at: float) -> float:
        """The longest time without an answer that lies in this time, or reaches into it."""
        gaps = itertools.pairwise(self.answered_at)
        return max(b - a for a, b in gaps if b > began_at and a < ended_at)


def measure(place: Place, kills: int) -> dict[str, Any]:
    """Kill a passive under writes, and see what its absence and its successor cost."""
    child = place.child(Ballast, factor=2, state="snapshot")
    table = {}
    for name, size in SIZES.items():
        child.load.remote("bytes", size).result(LIMIT_S)
        stalls: dict[str, list[float]] = {"before": [], "at the kill": [], "while it is built": []}
        for _ in range(kills):
            for when, length_s in one_stall(child).items():
                stalls[when].append(length_s)
        table[name] = {when: {**summary(all_), "samples": all_} for when, all_ in stalls.items()}
    child.stop()
    return table


def one_stall(child: Any) -> dict[str, float]:
    """The longest gaps around one kill, in seconds."""
    status = await_in_sync(child)
    passive = next(copy for copy in status.replicas if copy.replica_id != status.active.replica_id)
    with Writer(lambda: child.add.remote(1).result(LIMIT_S)) as writer:
        began_at = time.perf_counter()
        time.sleep(1.0)  # writes as they are when nothing happens
        killed_at = time.perf_counter()
        os.kill(passive.pid, signal.SIGKILL)
        removed_at = await_removal(child, passive.replica_id)
        await_in_sync(child)
        built_at = time.perf_counter()
        time.sleep(0.2)  # the last gap has an end
    return {
        "before": writer.longest(began_at, killed_at),
        "at the kill": writer.longest(killed_at, removed_at),
        "while it is built": writer.longest(removed_at, built_at),
    }


def await_removal(child: Any, replica: str) -> float:
    """When this process was told that the copy is not in the set any more."""
    gives_up_at = time.monotonic() + LIMIT_S
    while replica in child.status().in_sync:
        assert time.monotonic() < gives_up_at, f"{replica} was not missed: {child.status()}"
        time.sleep(0.002)
    return time.perf_counter()


def report(table: dict[str, Any]) -> None:
    """The table."""
    rows = [
        [size, when, *(f"{1000 * one[key]:,.0f}" for key in ("min", "median", "max"))]
        for size, stalls in table.items()
        for when, one in stalls.items()
    ]
    title = "a passive is killed: longest time without an acknowledged write, ms"
    show(title, ("state", "when", "min", "median", "max"), rows)
