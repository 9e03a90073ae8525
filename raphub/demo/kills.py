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
        """What is done, for the event lines."""
        return _DEEDS[self]


_DEEDS = {
    Kill.WORKER: "SIGKILL to the process of the active, and to the plain actor's",
    Kill.NODE: "SIGKILL to the node of both: its raylet and all its workers",
    Kill.HANG: "SIGSTOP to the process of the active, and to the plain actor's",
}

DEFAULT_KILLS = (Kill.WORKER, Kill.NODE)
