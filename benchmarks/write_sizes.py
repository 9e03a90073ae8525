"""What does a write cost as the state grows?"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from figures import in_turns, ratio, show, timed_s
from workload import Ballast
from write_sides import LIMIT_S, Place, await_in_sync

PLAIN = "plain Ray actor"
SIZES = {"1 kB": 10**3, "10 kB": 10**4, "100 kB": 10**5, "1 MB": 10**6, "10 MB": 10**7}
WRITES_BYTES_MAX = 5 * 10**7
"""A block has fewer writes where the state is large."""

WRITES_MIN = 5
COLUMNS: dict[str, tuple[str, str, str]] = {
    "bytes, stay": ("snapshot", "bytes", "add"),
    "bytearray, stays": ("snapshot", "bytearray", "add"),
    "bytearray, changes": ("snapshot", "bytearray", "change"),
    "list, stays": ("snapshot", "list", "add"),
    "list, changes": ("snapshot", "list", "change"),
    "log, changes": ("log", "bytearray", "change"),
}
"""The mode, what the large attribute is, and the method that is called."""


def measure(place: Place, blocks: int, block: int) -> dict[str, Any]:
    """Blocks of writes of every kind in turns, beside a plain actor's, at every size."""
    plain = place.actor(Ballast, 0)
    ray.get(plain.load.remote("bytearray", 1), timeout=LIMIT_S)
    children = {
        (mode, kind): place.child(Ballast, factor=2, state=mode)
        for mode, kind in dict.fromkeys((mode, kind) for mode, kind, _ in COLUMNS.values())
    }
    table = {}
    for name, size in SIZES.items():
        for (_, kind), child in children.items():
            child.load.remote(kind, size).result(LIMIT_S)
        writes = max(WRITES_MIN, min(block, WRITES_BYTES_MAX // size))
        sides = {PLAIN: partial(block_s, plain_write(plain), writes)}
        for column, (mode, kind, method) in COLUMNS.items():
            call = getattr(children[mode, kind], method)
            sides[column] = partial(block_s, partial(answered, call), writes)
        in_turns(sides, 1)
        table[name] = with_ratios(in_turns(sides, blocks))
    for child in children.values():
        await_in_sync(child)
        child.stop()
    ray.kill(plain)
    return table


def answered(method: Any) -> None:
    """One write of raphub's."""
    method.remote(1).result(LIMIT_S)


def plain_write(actor: Any) -> Callable[[], object]:
    """One call of a plain actor."""
    return lambda: ray.get(actor.change.remote(1), timeout=LIMIT_S)


def block_s(write: Callable[[], object], writes: int) -> float:
    """The median of so many writes."""
    return statistics.median(timed_s(write) for _ in range(writes))


def with_ratios(found: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Each column beside the plain actor."""
    return {
        name: {
            "ratio": ratio(samples, found[PLAIN]),
            "p50_s": statistics.median(samples),
            "p50_s_of_each_block": samples,
        }
        for name, samples in found.items()
    }


def report(table: dict[str, Any]) -> None:
    """One table of ratios and one of times, since the ratios say how much raphub adds."""
    columns = ("state", *(name.replace(", ", "\n") for name in COLUMNS))
    rows = [[size, *(f"{line[c]['ratio']:,.2f}" for c in COLUMNS)] for size, line in table.items()]
    show("p50 of a write at factor 2, times a plain Ray actor call", columns, rows)
    rows = [
        [size, *(f"{1000 * line[c]['p50_s']:,.2f}" for c in (PLAIN, *COLUMNS))]
        for size, line in table.items()
    ]
    show("the same in ms", (columns[0], "plain\nRay", *columns[1:]), rows)
