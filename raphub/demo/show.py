"""What does a person see while the demo runs?

Lines of events, each when it happens, and in a terminal a panel below them that says which node
holds which copy and how the two callers fare. Without a terminal the lines are all there is, and
no control character is among them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from raphub.demo.figures import duration
from raphub.demo.stream import Tally
from raphub.snapshot import counted, short_id

REFRESH_EVERY_S = 0.125
PANEL_WIDTH_MAX = 100
QUIET_S = 0.1
"""A caller that has not heard for so long is shown as waiting."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node as the panel shows it: raphub's copies on it with their roles, and the actor."""

    node_id: str
    copies: tuple[tuple[str, str], ...]
    has_plain: bool
    is_dead: bool


@dataclass(slots=True)
class Scene:
    """All that the panel shows. `tallies` are named; `rows` is asked at every refresh."""

    title: str = ""
    rows: Callable[[], list[NodeRow]] = list
    tallies: dict[str, Tally] = field(default_factory=dict)
    waiting_for: str = ""


class Show:
    """Tells events, and draws the scene where there is a terminal. Safe for all threads."""

    def __init__(self, console: Console) -> None:
        """`console` is where a person looks; nothing is shown before the block is entered."""
        self.scene = Scene()
        self._console = console
        self._began_at_s = time.monotonic()
        self._killed_at_s: float | None = None
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._ended = threading.Event()
        self._drawer = threading.Thread(target=self._draw_on, name="demo-show", daemon=True)
        if console.is_terminal:
            self._live = Live(
                get_renderable=self._draw,
                console=console,
                # rich's own refreshing thread races with the lines that are printed above the panel.
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._live is not None:
            self._live.start()
            self._drawer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the panel away; the event lines stay."""
        if self._live is not None:
            self._ended.set()
            self._drawer.join()
            self._live.stop()

    # --- events -------------------------------------------------------------------------------

    def step(self, text: str) -> None:
        """The demo does something; the time is that since its start."""
        self._print(f"{time.monotonic() - self._began_at_s:7.1f} s  {text}", "bold")

    def kill(self, text: str, at_s: float) -> None:
        """Something was taken away at this monotonic time; what follows is told from there."""
        self._killed_at_s = at_s
        self._print(f"{at_s - self._began_at_s:7.1f} s  {text}", "bold red")

    def after(self, who: str, text: str, at_s: float, *, style: str = "") -> None:
        """Something happened at this monotonic time, to whom, after the last kill."""
        since_s = at_s - (self._began_at_s if self._killed_at_s is None else self._killed_at_s)
        self._print(f"{f'+{duration(max(0.0, since_s))}':>9}  {who:9}  {text}", style)

    def _print(self, line: str, style: str) -> None:
        with self._lock:
            self._console.print(
                Text(line, style=style), overflow="ellipsis", no_wrap=True, highlight=False
            )

    # --- the panel ----------------------------------------------------------------------------

    def _draw_on(self) -> None:
        assert self._live is not None, "there is a terminal to draw on"
        while not self._ended.wait(REFRESH_EVERY_S):
            with self._lock:
                self._live.refresh()

    def _draw(self) -> RenderableType:
        scene = self.scene
        if not scene.title:
            return Text("")
        parts: list[RenderableType] = [self._nodes(scene.rows())]
        if scene.tallies:
            parts.append(self._callers(scene.tallies))
        if scene.waiting_for:
            parts.append(Text(scene.waiting_for, style="italic"))
        # A terminal writes ^C where the cursor is, behind the panel: there must be room for it, or
        # the panel moves up by a line that nobody knows of.
        width = min(self._console.width, PANEL_WIDTH_MAX) - len("^C")
        return Panel(Group(*parts), title=scene.title, title_align="left", width=width)

    def _nodes(self, rows: list[NodeRow]) -> Table:
        grid = Table(box=None, pad_edge=False, expand=True)
        for name in ("node", "raphub", "plain Ray"):
            grid.add_column(name, header_style="dim", ratio=2 if name == "raphub" else 1)
        for row in rows:
            if row.is_dead:
                grid.add_row(Text(short_id(row.node_id), style="strike red"), Text("killed", "red"))
                continue
            copies = Text("  ").join(_copy(replica, role) for replica, role in row.copies)
            grid.add_row(short_id(row.node_id), copies, "the actor" if row.has_plain else "")
        return grid

    def _callers(self, tallies: dict[str, Tally]) -> Table:
        grid = Table(box=None, pad_edge=False, expand=True)
        for name in ("caller of", "answered", "failed", "last answer"):
            grid.add_column(name, header_style="dim", ratio=1)
        now_s = time.monotonic()
        for name, tally in tallies.items():
            silence_s = now_s - tally.answered_at_s if tally.answered else 0.0
            last = (
                Text(f"none for {silence_s:.1f} s", style="bold red")
                if silence_s > QUIET_S
                else Text("just now", style="green")
            )
            failed = Text(str(tally.failed), style="red" if tally.failed else "")
            grid.add_row(name, f"{tally.answered:,}", failed, last)
        return grid


_ROLE_STYLES = {"active": "bold green", "passive": "cyan"}


def _copy(replica: str, role: str) -> Text:
    return Text(f"{replica} {role}", style=_ROLE_STYLES.get(role, "dim"))


def cluster_title(nodes: int) -> str:
    """The panel's title."""
    return f"{counted(nodes, 'node')} of a Ray cluster on this machine"
