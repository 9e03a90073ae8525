"""Which nodes and jobs does Ray see, and what is free on the nodes?

Turns Ray's tables into events by looking often. This is the ONLY module that asks Ray for what has
no public call: the table of jobs, which nodes are to be taken away, and what is free on each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
import ray._private.state

from raphub.core.messages import DrainNoticed, HubEvent, JobsEnded, LoadsSeen, NodesSeen
from raphub.core.model import Node, NodeId

LOOK_EVERY_S = 0.25
JOBS_EVERY_LOOKS = 4
NO_DEADLINE_S = 3600.0
"""What is said to be left where Ray names no time."""
LOADS_EVERY_LOOKS = 8


class NodeWatch:
    """A thread that reports `NodesSeen` when the living nodes change, and `JobsEnded` once a job.

    `DrainNoticed` is reported at every look at which there are such nodes.

    With `has_loads`, it reports `LoadsSeen` every two seconds as well: one small request to the GCS.
    """

    def __init__(self, report: Callable[[HubEvent], None], *, has_loads: bool = False) -> None:
        """`report` is called from this watch's own thread."""
        self._report = report
        self._has_loads = has_loads
        self._seen: tuple[Node, ...] | None = None
        self._jobs_over: set[str] = set()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Look once now, then go on in a thread."""
        self._look_at_nodes()
        threading.Thread(target=self._run, name="raphub-nodes", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _run(self) -> None:
        looks = 0
        while not self._stopping.wait(LOOK_EVERY_S):
            looks += 1
            try:
                self._look_at_nodes()
                self._look_at_drains()
                if looks % JOBS_EVERY_LOOKS == 0:
                    self._look_at_jobs()
                if self._has_loads and looks % LOADS_EVERY_LOOKS == 0:
                    self._look_at_loads()
            except Exception:  # noqa: BLE001, S112 - Ray's tables are away: the last look stands
                continue

    def _look_at_nodes(self) -> None:
        nodes = tuple(sorted(_living_nodes(), key=lambda node: node.node_id))
        if nodes != self._seen:
            self._seen = nodes
            self._report(NodesSeen(nodes))

    def _look_at_drains(self) -> None:
        state: Any = ray._private.state.state  # noqa: SLF001
        draining: dict[str, int] = state.get_draining_nodes()
        if draining:
            now_ms = time.time() * 1000
            left_s = {
                node_id: max(0.0, (at_ms - now_ms) / 1000) if at_ms else NO_DEADLINE_S
                for node_id, at_ms in draining.items()
            }
            self._report(DrainNoticed(tuple((NodeId(n), s) for n, s in sorted(left_s.items()))))

    def _look_at_jobs(self) -> None:
        jobs: Any = ray._private.state.jobs  # noqa: SLF001
        over = {job["JobID"] for job in jobs() if job.get("IsDead")}
        fresh = over - self._jobs_over
        if fresh:
            self._jobs_over |= fresh
            self._report(JobsEnded(tuple(sorted(fresh))))

    def _look_at_loads(self) -> None:
        available: Any = ray._private.state.available_resources_per_node  # noqa: SLF001
        free = {NodeId(node_id): dict(left) for node_id, left in available().items()}
        self._report(LoadsSeen(free))


def _living_nodes() -> list[Node]:
    return [
        Node(
            NodeId(node["NodeID"]),
            node["NodeManagerAddress"],
            dict(node.get("Labels", {})),
            dict(node["Resources"]),
            is_head="node:__internal_head__" in node["Resources"],
            port=int(node["NodeManagerPort"]),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
