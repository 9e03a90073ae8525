"""Who notices that the hub actor has stopped, when Ray does not?

A tiny process of its own, started by the hub actor on the same node with nothing but the standard
library. It reads a beat from its standard input and kills the hub actor, by pid, when no beat came
for a while; Ray then starts a fresh one. It ends when its input closes, with the hub actor.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

STEP_S = 0.1


def watch(pid: int, silence_s: float) -> None:
    """Wait for beats of `pid`; kill it after `silence_s` seconds without one.

    Silence counts in steps that this process lived through itself: when the whole machine stood
    still, both did, and nobody is at fault.
    """
    silent_s = 0.0
    while True:
        began = time.monotonic()
        ready, _, _ = select.select([0], [], [], STEP_S)
        if ready:
            if not os.read(0, 4096):
                return
            silent_s = 0.0
            continue
        silent_s += min(time.monotonic() - began, 2 * STEP_S)
        if silent_s >= silence_s:
            os.kill(pid, signal.SIGKILL)
            return


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]))
