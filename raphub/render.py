"""How does a table look in a terminal, in a notebook and in the command line's colours?

Pure functions of a `Table`, which knows nothing of hubs: every status says as tables what it
holds (`status.tables()`), and this module draws them. Text in a cell may come from users and
their exceptions, so nothing in it can move a terminal's cursor or become markup.
"""

from __future__ import annotations

import html as markup
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.console

WIDTH = 80
"""How many columns a text may take, unless told otherwise."""

HTML_ROWS_MAX = 200
"""How many rows a notebook shows; a note counts the others."""

_GAP = "  "
_ELLIPSIS = "…"
_COLUMN_WIDTH_MIN = 4

_COLOURS = {
    "ok": "green",
    "degraded": "yellow",
    "starting": "cyan",
    "no_active": "red",
    "lost": "red",
    "stopped": "bright_black",
    "error": "red",
    "active": "bold",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A title, named columns, rows of as many cells, and sentences below.

    `empty` is the sentence that stands for the rows when there are none.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    empty: str = ""


# --- Text -------------------------------------------------------------------------------------


def one_line(text: str, width: int = WIDTH) -> str:
    """The text on one line of at most `width` columns, without control characters."""
    return _shorten(_plain(text), width)


def text(tables: Iterable[Table], width: int = WIDTH) -> str:
    """The tables as lines of at most `width` columns, an empty line between two tables."""
    return "\n\n".join("\n".join(_text_lines(table, width)) for table in tables)


def _text_lines(table: Table, width: int) -> list[str]:
    lines = [one_line(table.title, width)] if table.title else []
    if table.rows:
        cells = [[_plain(cell) for cell in row] for row in (table.columns, *table.rows)]
        widths = _column_widths(cells, width)
        lines += [_row_line(row, widths, width) for row in cells]
    elif table.empty:
        lines += _wrapped(table.empty, width)
    for note in table.notes:
        lines += _wrapped(note, width)
    return lines


def _row_line(row: Sequence[str], widths: Sequence[int], width: int) -> str:
    shown = [_padded(_shorten(cell, wide), wide) for cell, wide in zip(row, widths, strict=True)]
    return _shorten(_GAP.join(shown).rstrip(), width)


def _column_widths(cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """As wide as its widest cell; when that is too much, the widest column gives way first."""
    widths = [max(columns(cell) for cell in column) for column in zip(*cells, strict=True)]
    spare = width - len(_GAP) * (len(widths) - 1)
    while sum(widths) > spare and max(widths) > _COLUMN_WIDTH_MIN:
        widest = max(range(len(widths)), key=widths.__getitem__)
        others = [wide for index, wide in enumerate(widths) if index != widest]
        next_widest = max([*others, _COLUMN_WIDTH_MIN])
        excess = sum(widths) - spare
        widths[widest] -= max(1, min(excess, widths[widest] - next_widest))
    return widths


def _plain(text: str) -> str:
    """Without line breaks and other control characters, which a terminal would obey."""
    if text.isascii() and text.isprintable():
        return text
    spaced = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text)
    return " ".join(spaced.split())


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(_char_columns(char) for char in text)


def _char_columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _shorten(text: str, width: int) -> str:
    if columns(text) <= width:
        return text
    kept: list[str] = []
    used = 1
    for char in text:
        used += _char_columns(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + _ELLIPSIS if width > 0 else ""


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def _wrapped(sentence: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in _plain(sentence).split():
        if lines and columns(lines[-1]) + 1 + columns(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(_shorten(word, width))
    return lines


# --- HTML -------------------------------------------------------------------------------------

_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top"
_HEAD = f"{_CELL};border-bottom:1px solid #8888"
_HTML_COLOURS = {
    "ok": "#2a7d3f",
    "degraded": "#a66a00",
    "starting": "#1f6f8b",
    "no_active": "#b3261e",
    "lost": "#b3261e",
    "error": "#b3261e",
}


def html(tables: Sequence[Table]) -> str:
    """The tables for a notebook: everything escaped, styled in place, and as text below.

    No script and no style sheet, so it looks the same in a notebook that is not trusted.
    """
    drawn = "".join(_html_table(table) for table in tables)
    short = [_cut(table) for table in tables]
    return (
        f"<div>{drawn}<details><summary>as text</summary>"
        f"<pre>{_escaped_lines(text(short))}</pre></details></div>"
    )


def _cut(table: Table) -> Table:
    hidden = len(table.rows) - HTML_ROWS_MAX
    if hidden <= 0:
        return table
    notes = (f"{hidden} more rows are not shown here.", *table.notes)
    rows = table.rows[:HTML_ROWS_MAX]
    return Table(table.title, table.columns, rows, notes, table.empty)


def _html_table(table: Table) -> str:
    shown = _cut(table)
    head = "".join(f'<th style="{_HEAD}">{_escaped(name)}</th>' for name in shown.columns)
    rows = "".join(
        "<tr>" + "".join(_html_cell(cell) for cell in row) + "</tr>" for row in shown.rows
    )
    grid = (
        f'<table style="border-collapse:collapse;margin:2px 0"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    notes = shown.notes if shown.rows else (shown.empty, *shown.notes)
    below = "".join(f"<div>{_escaped(note)}</div>" for note in notes if note)
    title = f"<div><b>{_escaped(shown.title)}</b></div>" if shown.title else ""
    return f'<div style="margin-bottom:8px">{title}{grid if shown.rows else ""}{below}</div>'


def _html_cell(cell: str) -> str:
    colour = _HTML_COLOURS.get(cell)
    style = f"{_CELL};color:{colour}" if colour else _CELL
    return f'<td style="{style}">{_escaped(cell)}</td>'


def _escaped(text: str) -> str:
    return markup.escape(_plain(text))


def _escaped_lines(text: str) -> str:
    return "\n".join(markup.escape(line) for line in text.split("\n"))


# --- Colours ----------------------------------------------------------------------------------


def rich_group(table: Table) -> rich.console.Group:
    """The table for rich's console. A cell that is a known word, such as a health, is coloured."""
    # rich is slow to import, and only the command line needs it.
    import rich.box  # noqa: PLC0415
    import rich.console  # noqa: PLC0415
    import rich.table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for name in table.columns:
        grid.add_column(Text(_plain(name)), overflow="ellipsis")
    for row in table.rows:
        grid.add_row(*(Text(_plain(cell), style=_COLOURS.get(cell, "")) for cell in row))
    title = [Text(_plain(table.title), style="bold")] if table.title else []
    notes = table.notes if table.rows else (table.empty, *table.notes)
    below = [Text(_plain(note)) for note in notes if note]
    return rich.console.Group(*title, *([grid] if table.rows else []), *below)
