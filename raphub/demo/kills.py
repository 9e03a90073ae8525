"""In which ways does the demo take away what serves?

Imports nothing slow: the command line reads the names from here before it knows what to run.
"""

from __future__ import annotations

from enum import StrEnum


class Kill(StrEnum):
    """One way of losing the copy that serves."""

    WORKER = "worker"
    NODE = "node"
    HANG = "hang"

    @property
    def deed(self) -> str:
        """What is done to the active and to the plain actor beside it, for the event lines."""
        return _DEEDS[self]


_DEEDS = {
    Kill.WORKER: "SIGKILL to both processes",
    Kill.NODE: "SIGKILL to the raylet and all its workers",
    Kill.HANG: "SIGSTOP to both processes",
}

DEFAULT_KILLS = (Kill.WORKER, Kill.NODE)
