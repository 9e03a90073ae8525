"""What does a call through a handle cost, beside a plain Ray actor call, in one run?

    python benchmarks/bench_calls.py --json calls.json

Blocks of calls are interleaved: one block through the handle, one to a plain synchronous Ray actor
that does the same work, and so on. The ratio of the medians is the figure; the absolute times
drift with the machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import ray
from figures import save, show
from workload import Counter

import raphub
from raphub.testing import LocalCluster

LIMIT_S = 60.0
BLOCK = 100
PIPELINED = 1000
LOOKUPS = 20_000


def timed_s(call: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def percentile(samples: list[float], share: float) -> float:
    """The sample below which this share of all lies."""
    return sorted(samples)[int(share * (len(samples) - 1))]


def process_s(*arguments: str) -> float:
    """The shortest of three runs of a fresh Python, in seconds."""
    command = [sys.executable, *arguments]

    def run() -> object:
        return subprocess.run(command, check=True, capture_output=True)

    return min(timed_s(run) for _ in range(3))


def measure(blocks: int) -> dict[str, Any]:
    """All figures, in seconds."""
    with LocalCluster(nodes=2) as cluster:
        assert cluster.node_ids
        with raphub.Hub.start(raphub.HubConfig(hub_id="bench")) as hub:
            spec = raphub.ChildSpec(child_id="counter", cls=Counter)
            assert hub.start_child(spec).result(LIMIT_S).ok
            handle = hub.get("counter")
            remote: Any = ray.remote(num_cpus=0)(Counter)
            actor = remote.remote()

            def replicated() -> object:
                return handle.add.remote(1).result(LIMIT_S)

            def plain() -> object:
                return ray.get(actor.add.remote(1), timeout=LIMIT_S)

            for call in (replicated, plain):
                for _ in range(BLOCK):
                    call()
            samples: dict[str, list[float]] = {"raphub": [], "ray": []}
            for _ in range(blocks):
                samples["raphub"] += [timed_s(replicated) for _ in range(BLOCK)]
                samples["ray"] += [timed_s(plain) for _ in range(BLOCK)]
            pipelined = {
                "raphub": timed_s(
                    lambda: raphub.results(
                        [handle.add.remote(1) for _ in range(PIPELINED)], LIMIT_S
                    )
                ),
                "ray": timed_s(
                    lambda: ray.get(
                        [actor.add.remote(1) for _ in range(PIPELINED)], timeout=LIMIT_S
                    )
                ),
            }
            lookup_s = timed_s(lambda: [hub.get("counter") for _ in range(LOOKUPS)]) / LOOKUPS
    return {
        "p50": {side: statistics.median(found) for side, found in samples.items()},
        "p99": {side: percentile(found, 0.99) for side, found in samples.items()},
        "pipelined_calls_per_s": {side: PIPELINED / took for side, took in pipelined.items()},
        "get_s": lookup_s,
        "import_s": process_s("-c", "import raphub") - process_s("-c", "pass"),
        "help_s": process_s("-m", "raphub.cli", "--help"),
    }


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--json")
    asked = parser.parse_args()
    figures = measure(asked.blocks)
    rows = []
    for name, unit, scale in (
        ("p50", "ms", 1000),
        ("p99", "ms", 1000),
        ("pipelined_calls_per_s", "1/s", 1),
    ):
        found = figures[name]
        ratio = found["raphub"] / found["ray"]
        figures[name]["ratio"] = ratio
        rows.append(
            [
                f"{name}, {unit}",
                f"{found['raphub'] * scale:,.2f}",
                f"{found['ray'] * scale:,.2f}",
                f"{ratio:.2f}",
            ]
        )
    rows.append(["hub.get, us", f"{figures['get_s'] * 1e6:.1f}", "", ""])
    rows.append(["import raphub, ms", f"{figures['import_s'] * 1000:.0f}", "", ""])
    rows.append(["raphub --help, ms", f"{figures['help_s'] * 1000:.0f}", "", ""])
    show("a call and its like", ("figure", "raphub", "plain Ray", "ratio"), rows)
    save(asked.json, figures)


if __name__ == "__main__":
    main()
