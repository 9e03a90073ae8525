"""How are measured figures summed up and shown?"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


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
