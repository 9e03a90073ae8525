"""Who owns the processes of one Ray node of a test cluster?

A process of its own a node: it starts the node, says so on one line of JSON, reaps what ends, and
ends everything when it is told to or its owner is gone. A test that is killed therefore leaves
nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

from raphub.testing import netns, processes

END = b"end\n"
"""What the owner writes to this process's standard input in an orderly stop."""
PR_SET_CHILD_SUBREAPER = 36
LOOK_EVERY_S = 0.02
END_TIMEOUT_S = 20.0


def main() -> None:
    """Start the node that the first argument describes, as JSON for `RayParams`.

    The second argument is the owner's process id. The kernel's own death signal will not do: it
    comes already when the *thread* of the owner that started this process ends.
    """
    # A worker whose raylet was killed becomes this process's child, and cannot get lost.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    asked: dict[str, Any] = json.loads(sys.argv[1])
    watch = _Watch(int(sys.argv[2]), asked["temp_dir"])
    # From the first moment on: a start can take long, and the owner may die meanwhile.
    threading.Thread(target=watch.run, daemon=True).start()
    try:
        told = _start(asked)
    except BaseException:  # noqa: BLE001 - the owner reads it in the log, and nothing may stay
        traceback.print_exc()
        watch.end()
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    watch.may_reap.set()
    signal.pause()


def _start(asked: dict[str, Any]) -> dict[str, Any]:
    from ray._private.node import Node  # noqa: PLC0415 - slow; the watch is on first
    from ray._private.parameter import RayParams  # noqa: PLC0415 - as above

    make: Any = Node
    is_head = "gcs_address" not in asked
    node = make(RayParams(**asked), head=is_head, shutdown_at_exit=False, spawn_reaper=True)
    [raylet] = node.all_processes["raylet"]
    return {
        "node_id": node.node_id,
        "address": node.gcs_address,
        "raylet_pid": raylet.process.pid,
    }


class _Watch:
    """Reaps the node's processes and ends them when it is time."""

    def __init__(self, owner_pid: int, folder: str) -> None:
        self.owner_pid = owner_pid
        self.folder = folder
        self.may_reap = threading.Event()

    def run(self) -> None:
        """Until the owner says `END` or is gone; runs in a thread of its own."""
        is_told = False
        while not is_told and os.getppid() == self.owner_pid:
            ready, _, _ = select.select([0], [], [], LOOK_EVERY_S)
            if ready:
                is_told = os.read(0, len(END)) == END
                if not is_told:
                    break
            if self.may_reap.is_set():
                _reap()
        self.end(is_orphaned=not is_told)

    def end(self, *, is_orphaned: bool = False) -> NoReturn:
        """End the node and this process."""
        try:
            _kill_descendants()
            if is_orphaned:
                # What the dead owner would have done. Each host tries, the last one succeeds.
                shutil.rmtree(self.folder, ignore_errors=True)
                netns.remove_all_of(self.owner_pid)
        finally:
            os._exit(0)


def _kill_descendants() -> None:
    """Again and again until none is left: a process may have started another one meanwhile."""
    gives_up_at = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < gives_up_at:
        _reap()
        pids = processes.descendants(os.getpid())[1:]
        if not pids:
            return
        processes.signal_all(pids, signal.SIGKILL)
        time.sleep(processes.LOOK_EVERY_S)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


if __name__ == "__main__":
    main()
