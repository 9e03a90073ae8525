"""How are measured figures summed up and shown?"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

T = TypeVar("T")


def timed_s(call: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below which this share of all lies."""
    return sorted(samples)[int(share * (len(samples) - 1))]


def in_turns(sides: Mapping[str, Callable[[], T]], turns: int) -> dict[str, list[T]]:
    """What each side measured, once in every turn; each turn begins with another side.

    A machine whose speed drifts is the same for all sides of one turn, and nearly so between two.
    """
    names = list(sides)
    found: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(sides[name]())
    return found


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """How many times the one is the other: the median over the turns."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum of the samples, and how many there are."""
    return {
        "min": min(samples),
        "median": statistics.median(samples),
        "max": max(samples),
        "count": len(samples),
    }


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that fits 80 columns."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=80).print(table)


def save(path: str | None, figures: dict[str, Any]) -> None:
    """Write the figures as JSON, if a path was given."""
    if path is not None:
        Path(path).write_text(json.dumps(figures, indent=2) + "\n")
