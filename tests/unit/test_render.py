"""Does a table fit, and does nothing that is in it get out?"""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from raphub.render import (
    HTML_ROWS_MAX,
    Table,
    columns,
    html,
    one_line,
    rich_group,
    text,
)

anything = st.text(max_size=120)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    names = tuple(draw(st.lists(anything, min_size=1, max_size=8)))
    row = st.tuples(*[anything for _ in names])
    return Table(
        title=draw(anything),
        columns=names,
        rows=tuple(draw(st.lists(row, max_size=5))),
        notes=tuple(draw(st.lists(anything, max_size=2))),
        empty=draw(anything),
    )


PEOPLE = Table(
    title="people",
    columns=("name", "role"),
    rows=(("Ada", "active"), ("日本", "passive")),
    notes=("Two of them.",),
    empty="Nobody is here.",
)


# --- Text -------------------------------------------------------------------------------------


def test_columns_line_up_wide_characters_included() -> None:
    assert text([PEOPLE]).splitlines() == [
        "people",
        "name  role",
        "Ada   active",
        "日本  passive",
        "Two of them.",
    ]


def test_no_rows_are_a_sentence() -> None:
    nobody = Table("people", ("name",), (), empty="Nobody is here.")
    assert text([nobody]) == "people\nNobody is here."


def test_tables_are_set_apart_by_an_empty_line() -> None:
    assert text([PEOPLE, PEOPLE]).split("\n\n") == [text([PEOPLE])] * 2


def test_the_widest_column_gives_way_first() -> None:
    table = Table("", ("id", "why"), (("short", "x" * 100),))
    assert text([table], width=20).splitlines() == ["id     why", "short  " + "x" * 12 + "…"]


def test_two_wide_columns_share_what_there_is() -> None:
    table = Table("", ("a", "b", "c"), (("x" * 50, "y" * 60, "z"),))
    [_, row] = text([table], width=25).splitlines()
    assert row == "x" * 9 + "…" + "  " + "y" * 9 + "…" + "  z"


def test_long_notes_are_wrapped_and_not_cut() -> None:
    table = Table("", ("a",), (("b",),), notes=("one two three four",))
    assert text([table], width=9).splitlines() == ["a", "b", "one two", "three", "four"]


@given(st.lists(tables(), max_size=3), st.integers(1, 120))
@example([Table("", tuple("abcdefgh"), (tuple("abcdefgh"),))], 5)
def test_no_line_is_too_wide(drawn: list[Table], width: int) -> None:
    for line in text(drawn, width).split("\n"):
        assert columns(line) <= width


@given(tables())
def test_no_cell_breaks_a_line_or_moves_a_cursor(table: Table) -> None:
    lines = text([table]).split("\n")
    assert all(line.isprintable() for line in lines)
    if table.rows and not table.notes and not table.title:
        assert len(lines) == 1 + len(table.rows)


@pytest.mark.parametrize("word", ["abc", "日本", "e\u0301", "ß…→", "한글"])
def test_widths_agree_with_those_of_rich(word: str) -> None:
    assert columns(word) == cell_len(word)


@pytest.mark.parametrize(
    ("given_text", "width", "line"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("日本語", 4, "日…"),
        ("a\nb\tc\x1b[31m", 80, "a b c [31m"),
        ("  a   b  ", 80, "  a   b  "),
        ("\u202egpj.exe", 80, "gpj.exe"),
        ("", 0, ""),
    ],
)
def test_one_line(given_text: str, width: int, line: str) -> None:
    assert one_line(given_text, width) == line


# --- HTML -------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """The tags of a page and the text of its cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        assert {name for name, _ in attrs} <= {"style"}
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


ALLOWED = {"div", "b", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre"}


@given(st.lists(tables(), max_size=3))
@example([Table("<script>", ("<b>",), (("</td><script>alert(1)</script>",),), ("&",), '"')])
def test_html_is_closed_and_nothing_in_it_is_markup(drawn: list[Table]) -> None:
    seen = Seen(html(drawn))
    assert seen.open == []
    assert set(seen.tags) <= ALLOWED
    assert len(seen.cells) == sum(len(row) for table in drawn for row in table.rows)


def test_html_shows_what_the_cells_hold() -> None:
    table = Table("a & b", ("x",), (("<ok>",), ("ok",)))
    page = html([table])
    assert Seen(page).cells == ["<ok>", "ok"]
    assert "<b>a &amp; b</b>" in page
    assert 'color:#2a7d3f">ok<' in page


def test_html_holds_the_text_as_fallback() -> None:
    assert f"<pre>{text([PEOPLE])}</pre>" in html([PEOPLE])


def test_html_without_rows_is_a_sentence() -> None:
    page = html([Table("people", ("name",), (), empty="Nobody is here.")])
    assert "<table" not in page
    assert "<div>Nobody is here.</div>" in page


def test_html_is_bounded_and_counts_the_rest() -> None:
    many = Table("", ("n",), tuple((str(n),) for n in range(HTML_ROWS_MAX + 50)))
    page = html([many])
    assert len(Seen(page).cells) == HTML_ROWS_MAX
    assert page.count("50 more rows are not shown here.") == 2


# --- Colours ----------------------------------------------------------------------------------


def printed(table: Table) -> str:
    console = Console(width=80, file=StringIO(), color_system=None)
    console.print(rich_group(table))
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


def test_rich_shows_everything_and_reads_nothing_as_markup() -> None:
    table = Table("t [bold]", ("c [red]",), (("[link=x]y[/link]",),), notes=("n [/]",))
    shown = printed(table)
    for part in ("t [bold]", "c [red]", "[link=x]y[/link]", "n [/]"):
        assert part in shown


@given(tables())
def test_rich_takes_any_table(table: Table) -> None:
    assert "\x1b" not in printed(table)


def test_known_words_are_coloured() -> None:
    console = Console(width=80, file=StringIO(), force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(rich_group(Table("", ("health",), (("lost",),))))
    assert "\x1b[31mlost" in captured.get()


def test_an_empty_table_is_its_sentence_in_colour_too() -> None:
    assert "Nobody is here." in printed(Table("people", ("name",), (), empty="Nobody is here."))


def test_rich_is_imported_by_the_command_line_only() -> None:
    code = "import sys, raphub.render; print('rich' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
