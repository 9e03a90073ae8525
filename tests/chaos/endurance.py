"""`python -m tests.chaos.endurance --seconds 180`: does a large state survive a busy machine?

A child with 100 MB of state, of which a part changes all the time and now and then all of it, while
other processes want more CPUs than there are. Nothing dies, so nothing may be failed over: a slow
copy is not a dead one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import raphub
from raphub import ChildSpec, HubConfig
from raphub.testing import LocalCluster

MEGABYTES = 100
FACTOR = 2
WHOLE_EVERY_S = 15.0
LIMIT_S = 120.0
NEEDLESS = ("promoted", "replica_died", "replica_failed", "replica_retired", "diverged")


class Warehouse:
    """So many megabytes, a small counter, and a way to change either."""

    def __init__(self, megabytes: int) -> None:
        self.goods = os.urandom(1024 * 1024) * megabytes
        self.count = 0

    def count_one(self) -> int:
        """Change little."""
        self.count += 1
        return self.count

    def turn_over(self) -> int:
        """Change everything."""
        self.goods = self.goods[1024:] + os.urandom(1024)
        return self.count_one()


@dataclass(frozen=True)
class Report:
    """What came of it. `needless` are the events that nothing has caused."""

    seconds: float
    writes: int
    whole: int
    slowest_s: float
    slowest_whole_s: float
    is_exact: bool
    needless: Sequence[raphub.Event]
    events: Counter[str]

    @property
    def is_good(self) -> bool:
        """Was every write applied once, by the copy that was the active all along?"""
        return self.is_exact and not self.needless

    def __str__(self) -> str:
        """One line of figures, and what should not be there."""
        figures = (
            f"{MEGABYTES} MB for {self.seconds:.0f} s: {self.writes} writes, at most"
            f" {self.slowest_s:.2f} s; {self.whole} of all of it, at most"
            f" {self.slowest_whole_s:.2f} s; events: {dict(self.events)}"
        )
        troubles = [event.line() for event in self.needless]
        if not self.is_exact:
            troubles.append("the count is wrong")
        return "\n  ! ".join([figures, *troubles])


@contextmanager
def busy_cores() -> Generator[None]:
    """Other processes want twice the CPUs that there are."""
    count = 2 * (os.cpu_count() or 1)
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def run(hub: raphub.Hub, seconds: float) -> Report:
    """Use the child for so long on a busy machine."""
    spec = ChildSpec(
        child_id="warehouse", cls=Warehouse, args=(MEGABYTES,), factor=FACTOR, state="snapshot"
    )
    hub.start_child(spec).result(LIMIT_S)
    child = hub.get("warehouse")
    assert hub.wait_for(lambda h: len(h.lookup("warehouse").in_sync) == FACTOR, LIMIT_S)
    before = {event.line() for event in hub.events()}
    writes = whole = 0
    slowest_s = slowest_whole_s = 0.0
    with busy_cores():
        began_at = whole_at = time.monotonic()
        while time.monotonic() - began_at < seconds or not whole:
            sent_at = time.monotonic()
            is_whole = sent_at - whole_at > min(WHOLE_EVERY_S, seconds / 3)
            method = Warehouse.turn_over if is_whole else Warehouse.count_one
            count = child.call(method).result(LIMIT_S)
            took_s = time.monotonic() - sent_at
            writes += 1
            if count != writes:
                break
            if is_whole:
                whole, whole_at = whole + 1, time.monotonic()
                slowest_whole_s = max(slowest_whole_s, took_s)
            else:
                slowest_s = max(slowest_s, took_s)
    events = [event for event in hub.events() if event.line() not in before]
    return Report(
        seconds,
        writes,
        whole,
        slowest_s,
        slowest_whole_s,
        child.call(Warehouse.count_one).result(LIMIT_S) == writes + 1,
        [event for event in events if event.kind in NEEDLESS],
        Counter(event.kind for event in events),
    )


def main() -> int:
    """Run it on a cluster of its own; 0 if all was well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180)
    asked = parser.parse_args()
    with LocalCluster(nodes=FACTOR) as cluster:
        assert cluster.node_ids
        with raphub.Hub.start(HubConfig(hub_id="endurance")) as hub:
            report = run(hub, asked.seconds)
    print(report)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
