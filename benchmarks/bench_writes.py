"""What does a replicated write cost, beside a plain Ray actor and others, in one run?

    python benchmarks/bench_writes.py --json writes.json

Whatever is compared is measured in blocks in turns, so that a machine whose speed drifts is the
same for all; a ratio is the median over the turns, and it is the figure. Times drift.

- *a*: one synchronous write (`Counter.add`) at factor 1, 2 and 3, with `state="snapshot"`, and at 2
  with `"log"`, beside the same call of a plain synchronous Ray actor.
- *b*: the same beside replication by hand: a plain actor that calls its followers through Ray
  before it answers.
- *c*: writes a second of one caller: many calls in flight, and `map`; beside a plain actor, and
  beside PySyncObj if that is installed, on the same counter.
- *d*: the cost of one write against the size of the state, and how long writes stand still while
  a new copy is built.
- *e*: the active is killed again and again under four clients; what they sent and what was
  acknowledged is held against the state at the end.

One local cluster of three nodes and a head; the driver is on the head, all that it calls is not.
Every part ends with a look at the state: what was acknowledged must be in it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import write_failover
import write_latency
import write_sizes
import write_stalls
import write_throughput
from figures import save
from write_sides import NODES, Place

import raphub
from raphub.testing import LocalCluster

PARTS = "abcde"


def parts(text: str) -> str:
    """The parts that are named, for example in `a,c`."""
    names = text.replace(",", "")
    if not names or set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"should name some of {', '.join(PARTS)}, not {text!r}")
    return names


def asked() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=parts, default=PARTS, metavar="a,c", help="these parts")
    parser.add_argument("--blocks", type=int, help="how many turns (20, quick: 4)")
    parser.add_argument("--kills", type=int, help="of the active for each factor (20, quick: 3)")
    parser.add_argument("--quick", action="store_true", help="a look at everything, in less time")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


def main() -> None:
    """Measure and show. The exit code is 1 if an acknowledged write was lost, or one came twice."""
    said = asked()
    quick = said.quick
    blocks = said.blocks or (4 if quick else 20)
    kills = said.kills or (3 if quick else 20)
    figures: dict[str, Any] = {"load_average_before": os.getloadavg()}

    def note(name: str, found: Any, report: Callable[[Any], None]) -> None:
        figures[name] = found
        report(found)
        save(said.json, figures)

    # The same child dies again and again here: it is not to be given up for that.
    config = raphub.HubConfig(hub_id="bench", crash_limit=10_000, crash_backoff_max_s=1.0)
    with LocalCluster(nodes=NODES) as cluster, raphub.Hub.start(config) as hub:
        place = Place(cluster, hub)
        if set(said.only) & set("ab"):
            found = write_latency.measure(place, said.only, blocks, block=50 if quick else 100)
            note("latency", found, write_latency.report)
        if "c" in said.only:
            large = 5_000 if quick else 20_000
            found = write_throughput.measure(place, blocks, burst=500, large_burst=large)
            note("throughput", found, write_throughput.report)
        if "d" in said.only:
            found = write_sizes.measure(place, max(2, blocks // 2), block=50)
            note("sizes", found, write_sizes.report)
            found = write_stalls.measure(place, kills=2 if quick else 5)
            note("stalls", found, write_stalls.report)
        if "e" in said.only:
            note("failover", write_failover.measure(place, kills), write_failover.report)
        figures["out_of_sync"] = place.absences
    for absence in figures["out_of_sync"]:
        print(f"while it was measured: {absence}")
    figures["load_average_after"] = os.getloadavg()
    before, after = figures["load_average_before"][0], figures["load_average_after"][0]
    print(f"load average of one minute: {before:.1f} before, {after:.1f} after")
    save(said.json, figures)
    if not write_failover.is_right(figures.get("failover", {})):
        raise SystemExit("an acknowledged write is not in the state, or one is in it twice")


if __name__ == "__main__":
    main()
