"""What was measured, and what does it mean in a sentence?

Pure: from the figures of each kill to a table, notes and JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from raphub.demo.kills import Kill
from raphub.demo.stream import Tally
from raphub.render import Table
from raphub.snapshot import counted


@dataclass(frozen=True, slots=True)
class Writes:
    """What became of the writes of one side of one kill, before and after it.

    `lost` were acknowledged and are not in the state that was read at the end, `applied_twice` are
    in it more than once; both are None if the state could not be read. Of those that are `unknown`
    nobody was told whether they were applied.
    """

    sent: int
    acknowledged: int
    unknown: int
    lost: int | None
    applied_twice: int | None

    @property
    def is_right(self) -> bool:
        """Is all in the state that was acknowledged, and nothing twice?"""
        return self.lost == self.applied_twice == 0


def checked_writes(tally: Tally, times: bytes | None) -> Writes:
    """Compare what was acknowledged with the state: how often it has each number."""
    sent, acknowledged = len(tally.sent), len(tally.acknowledged)
    if times is None:
        return Writes(sent, acknowledged, sent - acknowledged, None, None)
    applied = dict(enumerate(times))
    lost = [number for number in tally.acknowledged if applied.get(number, 0) == 0]
    twice = [number for number in tally.sent if applied.get(number, 0) > 1]
    return Writes(sent, acknowledged, sent - acknowledged, len(lost), len(twice))


UNREAD = Writes(0, 0, 0, None, None)


@dataclass(frozen=True, slots=True)
class SideFigures:
    """One side of one kill: raphub's child, or the plain actor.

    `gap_s` goes from the kill to the first answer of another process, in seconds; None if none
    came within `awaited_s`. `failed` calls raised, or were given up on. `index` is `warm` if the index that answered was complete
    before the kill and `rebuilt` if it was built after it; `index_age_s` is how long before
    the kill it was complete (negative: so long after), `build_s` how long building it took.
    """

    old_pid: int
    new_pid: int | None
    old_node: str
    new_node: str | None
    failed: int
    gap_s: float | None
    awaited_s: float
    index: str
    index_age_s: float | None
    build_s: float | None
    writes: Writes = UNREAD


@dataclass(frozen=True, slots=True)
class KillFigures:
    """One kill, and what it was for both sides."""

    kill: Kill
    raphub: SideFigures
    plain_ray: SideFigures

    @property
    def ratio(self) -> float | None:
        """How many times longer the plain actor's gap was; None if one of them never ended."""
        ours, theirs = self.raphub.gap_s, self.plain_ray.gap_s
        return None if ours is None or theirs is None else theirs / ours

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        ratio = self.ratio
        return {
            "kill": self.kill.value,
            "raphub": asdict(self.raphub),
            "plain_ray": asdict(self.plain_ray),
            "ratio": None if ratio is None else round(ratio, 1),
        }


def tables(figures: Sequence[KillFigures]) -> list[Table]:
    """Two rows a kill, raphub's and the plain actor's, of the gaps and of the writes.

    Then what they mean, and how to read them.
    """
    rows: list[tuple[str, ...]] = []
    for one in figures:
        rows.append((one.kill.value, "raphub", *_cells(one.raphub), ""))
        rows.append(("", "plain Ray", *_cells(one.plain_ray), _ratio(one)))
    columns = ("kill", "side", "gap", "failed calls", "index", "times raphub's gap")
    writes: list[tuple[str, ...]] = []
    for one in figures:
        writes.append((one.kill.value, "raphub", *_write_cells(one.raphub.writes)))
        writes.append(("", "plain Ray", *_write_cells(one.plain_ray.writes)))
    write_columns = (
        "kill", "side", "sent", "acknowledged", "lost", "applied twice", "outcome unknown",
    )  # fmt: skip
    return [
        Table("What was measured", columns, tuple(rows)),
        Table("Writes, compared with the state at the end", write_columns, tuple(writes)),
        Table("", (), (), (meaning(figures), *written(figures))),
        Table("", (), (), (_GAP, _STATE, _WARM, _NOTICED)),
    ]


def meaning(figures: Sequence[KillFigures]) -> str:
    """The figures in one plain sentence."""
    told = "; ".join(_told(one) for one in figures)
    ours = sum(one.raphub.failed for one in figures)
    theirs = sum(one.plain_ray.failed for one in figures)
    failed = (
        "no call failed on either side"
        if ours == theirs == 0
        else f"{counted(ours, 'call')} failed with raphub and {theirs} with plain Ray"
    )
    sentence = f"{told}; {failed}."
    return sentence[0].upper() + sentence[1:]


def written(figures: Sequence[KillFigures]) -> tuple[str, ...]:
    """What became of the writes, in a plain sentence for each side."""
    return (
        _kept("raphub", [one.raphub.writes for one in figures]),
        _kept("Plain Ray", [one.plain_ray.writes for one in figures]),
    )


def _kept(side: str, writes: Sequence[Writes]) -> str:
    read = [one for one in writes if one.lost is not None]
    acknowledged = sum(one.acknowledged for one in read)
    lost = sum(one.lost or 0 for one in read)
    twice = sum(one.applied_twice or 0 for one in read)
    told = f"{side} acknowledged {acknowledged:,} writes: {lost:,} lost, {twice:,} applied twice"
    if not read:
        told = f"{side} could not be asked for its state"
    elif len(read) < len(writes):
        told += f"; after {counted(len(writes) - len(read), 'kill')} its state could not be read"
    return f"{told}."


_GAP = (
    "A gap is the time from the kill to the first answer of another process. Both sides took the "
    "same kill at the same moment, with a caller each."
)
_STATE = (
    "Each call writes a number of its own into the state. Lost is what was acknowledged and is "
    "missing at the end: of raphub's, after the last kill. The plain actor "
    "(max_restarts=-1, max_task_retries=-1) begins anew each time."
)
_WARM = (
    "raphub's copies are warm because each built its own index when it started, and what is written "
    'to one reaches the other before it is acknowledged (state="snapshot").'
)
_NOTICED = (
    "Killed processes are noticed at once because the kernel closes their sockets. A machine that "
    "vanishes, or a process that hangs, is noticed when its lease of 3 s runs out; if the head is "
    "lost, everything stops."
)


def _told(one: KillFigures) -> str:
    what = {
        Kill.WORKER: "when its process was killed",
        Kill.NODE: "when its node was killed",
        Kill.HANG: "when its process hung",
    }[one.kill]
    ours = _answered(one.raphub, "raphub's other copy")
    theirs = _answered(one.plain_ray, "the plain actor")
    if one.plain_ray.index == "rebuilt":
        theirs += ", its index built anew"
    return f"{what}, {ours} and {theirs}"


def _answered(side: SideFigures, words: str) -> str:
    if side.gap_s is None:
        return f"{words} had not answered after {side.awaited_s:.0f} s"
    return f"{words} answered after {duration(side.gap_s)}"


def _cells(side: SideFigures) -> tuple[str, ...]:
    gap = f"over {side.awaited_s:.0f} s" if side.gap_s is None else duration(side.gap_s)
    return gap, str(side.failed), side.index


def _write_cells(writes: Writes) -> tuple[str, ...]:
    lost, twice = (
        "unread" if count is None else f"{count:,}" for count in (writes.lost, writes.applied_twice)
    )
    return f"{writes.sent:,}", f"{writes.acknowledged:,}", lost, twice, f"{writes.unknown:,}"


def _ratio(one: KillFigures) -> str:
    if one.ratio is not None:
        return f"{one.ratio:,.0f} x" if one.ratio >= 10 else f"{one.ratio:.1f} x"  # noqa: PLR2004
    if one.raphub.gap_s is not None:
        return f"over {one.plain_ray.awaited_s / one.raphub.gap_s:,.0f} x"
    return ""


def duration(time_s: float) -> str:
    """Milliseconds below a second, else seconds, in digits that mean something."""
    return f"{time_s * 1000:.0f} ms" if time_s < 1 else f"{time_s:.1f} s"
