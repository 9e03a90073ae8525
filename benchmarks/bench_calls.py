"""What does a call through a handle cost, beside a plain Ray actor call, in one run?

    python benchmarks/bench_calls.py --json calls.json

Blocks of calls are interleaved: one block through the handle, one to a plain synchronous Ray actor
that does the same work, and so on; pipelined bursts likewise. The ratio is the figure; the absolute
times drift with the machine. Then what needs no network: a lookup, the import, the help.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from typing import Any

import ray
from figures import percentile, save, show, timed_s
from workload import Counter

import raphub
from raphub.testing import LocalCluster

LIMIT_S = 60.0
BLOCK = 100
PIPELINED = 500
LOOKUPS = 5_000
SAYS_IF_RAY = "import raphub, sys; print('ray' in sys.modules)"
HELP = "from raphub.cli import main; main()"


def says(*arguments: str) -> str:
    """What a fresh Python says."""
    done = subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def process_s(*arguments: str) -> float:
    """The shortest of five runs of a fresh Python, in seconds."""
    return min(timed_s(lambda: says(*arguments)) for _ in range(5))


def measure_calls(handle: Any, actor: Any, blocks: int) -> dict[str, Any]:
    """Calls one after the other, and bursts of calls, of the one side and of the other in turns."""

    def replicated() -> object:
        return handle.add.remote(1).result(LIMIT_S)

    def plain() -> object:
        return ray.get(actor.add.remote(1), timeout=LIMIT_S)

    def replicated_burst() -> object:
        return raphub.results([handle.add.remote(1) for _ in range(PIPELINED)], LIMIT_S)

    def plain_burst() -> object:
        return ray.get([actor.add.remote(1) for _ in range(PIPELINED)], timeout=LIMIT_S)

    for call in (replicated, plain):
        for _ in range(BLOCK):
            call()
    calls: dict[str, list[float]] = {"raphub": [], "ray": []}
    bursts: dict[str, list[float]] = {"raphub": [], "ray": []}
    for _ in range(blocks):
        calls["raphub"] += [timed_s(replicated) for _ in range(BLOCK)]
        calls["ray"] += [timed_s(plain) for _ in range(BLOCK)]
        bursts["raphub"].append(PIPELINED / timed_s(replicated_burst))
        bursts["ray"].append(PIPELINED / timed_s(plain_burst))
    return {
        "calls_of_each_side": blocks * BLOCK,
        "p50": {side: statistics.median(found) for side, found in calls.items()},
        "p99": {side: percentile(found, 0.99) for side, found in calls.items()},
        "pipelined_calls_per_s": {side: statistics.median(f) for side, f in bursts.items()},
    }


def measure(blocks: int) -> dict[str, Any]:
    """All figures, in seconds."""
    with (
        LocalCluster(nodes=2),
        raphub.Hub.start(raphub.HubConfig(hub_id="bench")) as hub,
    ):
        spec = raphub.ChildSpec(child_id="counter", cls=Counter, factor=2, state="none")
        assert hub.start_child(spec).result(LIMIT_S).ok
        remote: Any = ray.remote(num_cpus=0)(Counter)
        figures = measure_calls(hub.get("counter"), remote.remote(), blocks)
        for name, look in (("lookup_s", hub.lookup), ("get_s", hub.get)):
            figures[name] = min(
                timed_s(lambda: [look("counter") for _ in range(LOOKUPS)]) / LOOKUPS
                for _ in range(5)
            )
    assert "Usage: raphub" in says("-c", HELP, "--help")
    return {
        **figures,
        "import_s": process_s("-c", "import raphub") - process_s("-c", "pass"),
        "import_brings_ray": says("-c", SAYS_IF_RAY).strip() == "True",
        "help_s": process_s("-c", HELP, "--help"),
    }


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--json", metavar="FILE")
    asked = parser.parse_args()
    figures = measure(asked.blocks)
    rows = []
    for name, unit, scale, digits in (
        ("p50", "ms", 1000, 2),
        ("p99", "ms", 1000, 2),
        ("pipelined_calls_per_s", "1/s", 1, 0),
    ):
        found = figures[name]
        ratio = found["ratio"] = found["raphub"] / found["ray"]
        sides = [f"{found[side] * scale:,.{digits}f}" for side in ("raphub", "ray")]
        rows.append([f"{name.replace('_', ' ')}, {unit}", *sides, f"{ratio:.2f}"])
    for name, words, scale in (
        ("lookup_s", "hub.lookup, us", 1e6),
        ("get_s", "hub.get, us", 1e6),
        ("import_s", "import raphub, ms", 1000),
        ("help_s", "raphub --help, ms", 1000),
    ):
        rows.append([words, f"{figures[name] * scale:,.1f}", "", ""])
    show("a call and its like", ("figure", "raphub", "plain Ray", "ratio"), rows)
    print(f"import raphub imports Ray: {'yes' if figures['import_brings_ray'] else 'no'}")
    save(asked.json, figures)


if __name__ == "__main__":
    main()
