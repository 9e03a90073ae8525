"""What does one replicated write cost, beside a plain Ray actor call and beside doing it by hand?"""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from figures import in_turns, percentile, ratio, show, timed_s
from write_sides import ByHand, Place, Plain, Replicated, ending

PLAIN = "plain Ray actor"
SIDES: dict[str, tuple[str, Callable[[Place], Any]]] = {
    PLAIN: ("ab", Plain),
    "raphub, factor 1": ("a", partial(Replicated, factor=1, state="snapshot")),
    "raphub, factor 2": ("ab", partial(Replicated, factor=2, state="snapshot")),
    "raphub, factor 3": ("ab", partial(Replicated, factor=3, state="snapshot")),
    "raphub, factor 2, log": ("a", partial(Replicated, factor=2, state="log")),
    "by hand over Ray, 1 follower": ("b", partial(ByHand, followers=1)),
    "by hand over Ray, 2 followers": ("b", partial(ByHand, followers=2)),
}
"""What is measured, and in which parts of the benchmark."""


def measure(place: Place, parts: str, blocks: int, block: int) -> dict[str, Any]:
    """Blocks of calls, one after the other, to each side in turns. In seconds."""
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(ending(start(place)))
            for name, (wanted_by, start) in SIDES.items()
            if set(wanted_by) & set(parts)
        }
        for side in sides.values():
            for _ in range(block):
                side.write()

        def measured(side: Any) -> list[float]:
            return [timed_s(side.write) for _ in range(block)]

        found = in_turns({n: partial(measured, side) for n, side in sides.items()}, blocks)
    medians = {name: [statistics.median(one) for one in turns] for name, turns in found.items()}
    every = {name: [*itertools.chain.from_iterable(turns)] for name, turns in found.items()}
    plain_p99 = percentile(every[PLAIN], 0.99)
    return {
        name: {
            "p50_ratio": ratio(medians[name], medians[PLAIN]),
            "p99_ratio": percentile(samples, 0.99) / plain_p99,
            "p50_s": statistics.median(samples),
            "p99_s": percentile(samples, 0.99),
            "writes": len(samples),
            "p50_s_of_each_block": medians[name],
        }
        for name, samples in every.items()
    }


def report(figures: dict[str, Any]) -> None:
    """The table."""
    rows = [
        [
            name,
            f"{one['p50_ratio']:.2f} x",
            f"{one['p99_ratio']:.2f} x",
            f"{1000 * one['p50_s']:.2f}",
            f"{1000 * one['p99_s']:.2f}",
        ]
        for name, one in figures.items()
    ]
    show("one write", ("beside a plain Ray actor call", "p50", "p99", "p50, ms", "p99, ms"), rows)
