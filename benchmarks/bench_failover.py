"""How long is nobody there after a death: raphub beside a plain Ray actor, in one run?

    python benchmarks/bench_failover.py --repetitions 10 --json failover.json

One local cluster of three nodes. Each time, a caller calls without a pause while the process, or
the whole node (raylet and workers), of what answers it is killed with SIGKILL; the figure is the
time from just before the signal to the first answer after it. The plain Ray actor
(`max_restarts=-1, max_task_retries=-1`) takes the same kind of kill. Then the active's process is
stopped with SIGSTOP: the time to the first answer of the new active, and what the old one says when
it wakes up.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import ray
from figures import save, show, summary
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from workload import Counter

import raphub
from raphub.actors import calling
from raphub.testing import LocalCluster

LIMIT_S = 120.0
NODES = 3


class Replicated:
    """The child under test."""

    def __init__(self, hub: raphub.Hub) -> None:
        self.hub = hub
        started = hub.start_child(raphub.ChildSpec(child_id="counter", cls=Counter))
        assert started.result(LIMIT_S).ok
        self.handle = hub.get("counter")

    def call(self) -> int:
        """One answered call."""
        return int(self.handle.pid.remote().result(LIMIT_S))

    def whole(self) -> raphub.ChildStatus:
        """Wait until both copies stand."""
        return self.handle.wait_ready(LIMIT_S)

    def node_id(self) -> str:
        """Where the active is."""
        active = self.whole().active
        assert active is not None
        return active.node_id


class Plain:
    """The same class as a plain Ray actor that Ray restarts."""

    def __init__(self, node_id: str) -> None:
        remote: Any = ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0.001)(Counter)
        where = NodeAffinitySchedulingStrategy(node_id, soft=True)
        self.actor = remote.options(scheduling_strategy=where).remote()
        self.call()

    def call(self) -> int:
        """One answered call."""
        return int(ray.get(self.actor.pid.remote(), timeout=LIMIT_S))

    def end(self) -> None:
        """Make room for the next one."""
        ray.kill(self.actor)


def gap_s(call: Callable[[], int], strike: Callable[[], None]) -> float:
    """Strike, and measure until the first answer of another process."""
    old = call()
    began = time.perf_counter()
    strike()
    while call() == old:
        pass
    return time.perf_counter() - began


def signal_only(pid: int) -> Callable[[], None]:
    """SIGKILL to one process, without waiting for its end."""
    return lambda: os.kill(pid, signal.SIGKILL)


def measure_worker(cluster: LocalCluster, child: Replicated, times: int) -> dict[str, list[float]]:
    """SIGKILL of the process that answers."""
    gaps: dict[str, list[float]] = {"raphub": [], "ray": []}
    plain = Plain(cluster.node_ids[0])
    for _ in range(times):
        child.whole()
        gaps["raphub"].append(gap_s(child.call, signal_only(child.call())))
        gaps["ray"].append(gap_s(plain.call, signal_only(plain.call())))
    plain.end()
    return gaps


def measure_node(
    cluster: LocalCluster, child: Replicated, times: int, ray_times: int
) -> dict[str, list[float]]:
    """SIGKILL of the raylet and all workers of the node that answers."""
    gaps: dict[str, list[float]] = {"raphub": [], "ray": []}
    for turn in range(times):
        node_id = child.node_id()
        gaps["raphub"].append(gap_s(child.call, lambda: cluster.kill_node(node_id)))
        cluster.add_node()
        child.whole()
        if turn < ray_times:
            plain_node = cluster.node_ids[0]
            plain = Plain(plain_node)
            gaps["ray"].append(gap_s(plain.call, lambda: cluster.kill_node(plain_node)))
            plain.end()
            cluster.add_node()
            child.whole()
    return gaps


def measure_hang(
    cluster: LocalCluster, child: Replicated, times: int
) -> tuple[list[float], list[str]]:
    """SIGSTOP of the active's process; what it says when it is woken after it was replaced."""
    gaps: list[float] = []
    said: list[str] = []
    for _ in range(times):
        status = child.whole()
        old = status.active
        assert old is not None
        assert old.pid is not None
        pid = old.pid
        gaps.append(gap_s(child.call, lambda: cluster.pause_process(pid)))
        header = calling.header("bench", 1, status.epoch, "add")
        late = old.handle.serve.remote(header, 1)
        with contextlib.suppress(ProcessLookupError):
            cluster.resume_process(pid)
        said.append(what_it_says(late))
    return gaps, said


def what_it_says(late: Any) -> str:
    """How the old active answered a call of its own epoch: it must not have served it."""
    try:
        answer = ray.get(late, timeout=LIMIT_S)
    except RayError as error:
        return type(error).__name__
    if isinstance(answer, calling.Refused | calling.Withheld):
        return type(answer).__name__
    return f"SERVED {answer}"


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--ray-node-repetitions", type=int, default=10)
    parser.add_argument("--hangs", type=int, default=3)
    parser.add_argument("--json")
    asked = parser.parse_args()
    with LocalCluster(nodes=NODES) as cluster:
        config = raphub.HubConfig(hub_id="bench", crash_limit=10_000)
        with raphub.Hub.start(config) as hub:
            child = Replicated(hub)
            worker = measure_worker(cluster, child, asked.repetitions)
            node = measure_node(cluster, child, asked.repetitions, asked.ray_node_repetitions)
            hang, said = measure_hang(cluster, child, asked.hangs)
    report(worker, node, hang, said, asked.json)


def report(
    worker: dict[str, list[float]],
    node: dict[str, list[float]],
    hang: list[float],
    said: list[str],
    path: str | None,
) -> None:
    """The table and the JSON."""
    figures: dict[str, Any] = {"unit": "s", "old_active_when_it_wakes": said}
    rows = []
    for name, gaps in (
        ("worker SIGKILL", worker),
        ("node SIGKILL", node),
        ("hang", {"raphub": hang}),
    ):
        found = {side: summary(samples) for side, samples in gaps.items() if samples}
        figures[name] = found
        for side, one in found.items():
            numbers = [f"{1000 * one[key]:,.0f}" for key in ("min", "median", "max")]
            rows.append([f"{name}, {side}", *numbers, str(one["count"])])
        if "ray" in found:
            ratio = found["ray"]["median"] / found["raphub"]["median"]
            figures[name]["ratio"] = ratio
            rows.append([f"{name}, plain Ray / raphub", "", f"{ratio:,.0f} x", "", ""])
    show("time to the first answer, ms", ("kill", "min", "median", "max", "times"), rows)
    print(f"the old active, when it wakes up: {', '.join(said)}")
    save(path, figures)


if __name__ == "__main__":
    main()
