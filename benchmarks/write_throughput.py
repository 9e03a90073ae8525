"""How many replicated writes a second, beside a plain Ray actor and beside PySyncObj?"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import pysyncobj_nodes
from figures import in_turns, ratio, show, timed_s
from pysyncobj_nodes import PySyncObjCluster
from write_sides import Place, Plain, Replicated, ending

PLAIN = "plain Ray actor, pipelined"
FACTORS = (1, 2, 3)
SETTINGS: dict[str, dict[str, object]] = {
    "": {},
    ", appendEntriesUseBatch=False": {"appendEntriesUseBatch": False},
}
"""PySyncObj's default is meant for many requests, the other for the speed of a single one."""

ONE_BY_ONE = {"": 5, ", appendEntriesUseBatch=False": 200}
"""By default a single write waits for the next tick, 50 ms, and its commit for another one."""


def measure(place: Place, blocks: int, burst: int, large_burst: int) -> dict[str, Any]:
    """Bursts of each side in turns: `burst` calls in flight, or `large_burst` writes together."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(ending(Plain(place)))
        sides: dict[str, Callable[[], float]] = {PLAIN: partial(rate, plain.burst, burst)}
        for factor in FACTORS:
            child = stack.enter_context(ending(Replicated(place, factor=factor, state="snapshot")))
            name = f"raphub, factor {factor}"
            sides[f"{name}, pipelined"] = partial(rate, child.burst, burst)
            sides[f"{name}, map"] = partial(rate, child.map, large_burst)
        peers = {}
        if pysyncobj_nodes.is_installed():
            for words, settings in SETTINGS.items():
                peer = peers[words] = stack.enter_context(PySyncObjCluster(**settings))
                sides[f"PySyncObj{words}, sync"] = partial(peer.one_by_one, ONE_BY_ONE[words])
                sides[f"PySyncObj{words}, callbacks"] = partial(peer.burst, large_burst)
        in_turns(sides, 1)
        found = in_turns(sides, blocks)
        acknowledged = {words: (peer.acknowledged, peer.total()) for words, peer in peers.items()}
    return {
        "writes_per_s": {
            name: {
                "ratio": ratio(rates, found[PLAIN]),
                "median": statistics.median(rates),
                "of_each_block": rates,
            }
            for name, rates in found.items()
        },
        "pysyncobj_acknowledged_and_counted": acknowledged,
        "map_to_best_pysyncobj": beside_best(found),
    }


def rate(write: Callable[[int], None], count: int) -> float:
    """So many writes; how many of them a second."""
    return count / timed_s(lambda: write(count))


def beside_best(found: dict[str, list[float]]) -> float | None:
    """`map` with three copies, to what is quickest of PySyncObj's three."""
    peers = [rates for name, rates in found.items() if name.startswith("PySyncObj")]
    if not peers:
        return None
    best = max(peers, key=statistics.median)
    return ratio(found["raphub, factor 3, map"], best)


def report(figures: dict[str, Any]) -> None:
    """The table."""
    rows = [
        [name, f"{one['ratio']:,.2f} x", f"{one['median']:,.0f}"]
        for name, one in figures["writes_per_s"].items()
    ]
    if not figures["pysyncobj_acknowledged_and_counted"]:
        rows.append([f"PySyncObj: {pysyncobj_nodes.INSTALL}", "", ""])
    show("writes of one caller", ("side", "ratio", "writes/s"), rows)
    beside = figures["map_to_best_pysyncobj"]
    if beside is not None:
        print(f"raphub, factor 3, map to PySyncObj's best: {beside:.2f} x")
    for words, (acknowledged, total) in figures["pysyncobj_acknowledged_and_counted"].items():
        if acknowledged != total:
            print(f"PySyncObj{words} acknowledged {acknowledged} writes and counts {total}")
