"""Who owns the processes of one Ray node of a test cluster?

A process of its own a node: it starts the node, says so on one line of JSON, reaps what ends, and
ends everything when its standard input closes. The kernel kills it with its parent, and the node's
processes with it, so that a test that is killed leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
REAP_EVERY_S = 0.02


def main() -> None:
    """Start the node that the first argument describes, as JSON for `RayParams`."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    asked: dict[str, Any] = json.loads(sys.argv[1])
    is_head = asked.pop("is_head")

    from ray._private.node import Node  # noqa: PLC0415 - slow; the death signal is set first
    from ray._private.parameter import RayParams  # noqa: PLC0415 - as above

    make: Any = Node
    node = make(RayParams(**asked), head=is_head, shutdown_at_exit=False, spawn_reaper=True)
    processes = [info.process for infos in node.all_processes.values() for info in infos]
    [raylet] = node.all_processes["raylet"]
    told = {
        "node_id": node.node_id,
        "address": node.gcs_address,
        "raylet_pid": raylet.process.pid,
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([0], [], [], REAP_EVERY_S)
        if ready and not os.read(0, 4096):
            break
        for process in processes:
            process.poll()
    if sys.argv[2] == "graceful":
        raylet.process.terminate()
    node.kill_all_processes(check_alive=False, allow_graceful=False)


if __name__ == "__main__":
    main()
