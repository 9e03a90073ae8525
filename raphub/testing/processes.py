"""Which processes belong together, and when are they gone?

Reads `/proc`; signals only process ids that it is given or found as their descendants.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

GONE_TIMEOUT_S = 20.0
LOOK_EVERY_S = 0.005


def descendants(pid: int) -> list[int]:
    """The process and all its living descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _stat(int(entry.name))
            if parent is not None:
                children.setdefault(parent[1], []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found


def is_running(pid: int) -> bool:
    """Does the process exist, and not only as a zombie?"""
    stat = _stat(pid)
    return stat is not None and stat[0] not in "ZX"


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send the signal to each; one that is gone already is passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_all(pids: list[int]) -> None:
    """SIGKILL, and return when all are gone. Raises `TimeoutError` if one stays."""
    signal_all(pids, signal.SIGKILL)
    until_gone(pids)


def until_gone(pids: list[int]) -> None:
    """Return when none of them runs any more. Raises `TimeoutError` if one stays."""
    gives_up_at = time.monotonic() + GONE_TIMEOUT_S
    while any(map(is_running, pids)):
        if time.monotonic() > gives_up_at:
            raise TimeoutError(f"still running: {[pid for pid in pids if is_running(pid)]}")
        time.sleep(LOOK_EVERY_S)


def _stat(pid: int) -> tuple[str, int] | None:
    """The state letter and the parent, or None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)
