"""How does a snapshot print, whatever it is a snapshot of?"""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from raphub import render
from raphub.render import Table

_ID_LENGTH = 8
_REPR_WIDTH = 200


def short_id(node_id: str) -> str:
    """The first characters of a node's id, as Ray's dashboard and raphub's commands take them."""
    return node_id if len(node_id) <= _ID_LENGTH + 4 else node_id[:_ID_LENGTH]


class Snapshot(BaseModel):
    """What all statuses share: frozen, and printing well, whatever they hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def line(self) -> str:
        """All that matters in one line."""
        raise NotImplementedError

    def tables(self) -> list[Table]:
        """Everything as tables, for `raphub.render`."""
        raise NotImplementedError

    def as_text(self, width: int = render.WIDTH) -> str:
        """Everything as lines of at most `width` columns."""
        return render.text(self.tables(), width)

    def __repr__(self) -> str:
        """One line; it never raises, so that a debugger can show a half-made snapshot."""
        try:
            return f"<{render.one_line(f'{type(self).__name__} {self.line()}', _REPR_WIDTH)}>"
        except Exception:  # noqa: BLE001 - a repr that raises hides what one looks for
            return f"<{type(self).__name__} that cannot be shown>"

    def __str__(self) -> str:
        """The same as the repr."""
        return repr(self)

    def _repr_html_(self) -> str | None:
        """A table, for notebooks; they show the repr when it is None."""
        try:
            return render.html(self.tables())
        except Exception:  # noqa: BLE001 - the notebook then shows the repr
            return None


def instant(time_s: float) -> str:
    """Unix time as UTC with milliseconds, since those who read it may be in other zones."""
    moment = datetime.fromtimestamp(time_s, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def counted(count: int, one: str, many: str | None = None) -> str:
    """The number and its noun, for example `1 node` or `3 nodes`."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"
