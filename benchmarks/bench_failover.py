"""How long is nobody there after a death: raphub beside a plain Ray actor, in one run?

    python benchmarks/bench_failover.py --repetitions 10 --ray-repetitions 3 --json failover.json

One local cluster of three nodes and a head. A caller calls without a pause, on a thread of its own;
the process that answers it, or that process's whole node (raylet and workers), is killed with
SIGKILL. The figure is the time from just before the kill to the first answer of another process.

- *worker*: each side takes a SIGKILL of its own process, in turns.
- *node*: the plain Ray actor (`max_restarts=-1, max_task_retries=-1`) sits on the same node as
  raphub's active and takes the very same kill. Ray needs some 15 s each time, so it takes part in
  the first `--ray-repetitions` of them only; the table says how many. The time includes what the
  bench itself needs to find the node's processes.
- *hang*: the active's process is stopped with SIGSTOP. A call of its own epoch is sent to it while
  it is stopped; what becomes of that call when the process is woken is the proof that the old
  active does not serve any more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

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
    """The child under test: two copies, roles only."""

    def __init__(self, hub: raphub.Hub) -> None:
        spec = raphub.ChildSpec(child_id="counter", cls=Counter, factor=2, state="none")
        assert hub.start_child(spec).result(LIMIT_S).ok
        self.handle = hub.get("counter")

    def call(self) -> int:
        """One answered call."""
        return int(self.handle.pid.remote().result(LIMIT_S))

    def active(self) -> raphub.ReplicaStatus:
        """The active, once both copies stand."""
        active = self.handle.wait_ready(LIMIT_S).active
        assert active is not None
        return active


class Plain:
    """The same class as a plain Ray actor on a node of choice, which Ray restarts."""

    def __init__(self, node_id: str) -> None:
        remote: Any = ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0.001)(Counter)
        where = NodeAffinitySchedulingStrategy(node_id, soft=True)
        self.actor = remote.options(scheduling_strategy=where).remote()
        found = ray.get(self.actor.node_id.remote(), timeout=LIMIT_S)
        assert found == node_id, f"Ray put the plain actor on {found}"

    def call(self) -> int:
        """One answered call."""
        return int(ray.get(self.actor.pid.remote(), timeout=LIMIT_S))

    def end(self) -> None:
        """Make room for the next one."""
        ray.kill(self.actor)


class Caller:
    """Calls without a pause from `__enter__` on, and knows when another process answered first."""

    def __init__(self, call: Callable[[], int]) -> None:
        self._call = call
        self._changed = threading.Condition()
        self._first_answers: dict[int, float] = {}
        self._error: BaseException | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Returns when the first answer is there."""
        self._thread.start()
        self._until(lambda: bool(self._first_answers))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._thread.join(LIMIT_S)

    def next_process_at(self) -> float:
        """When the first answer of a second process was there; waits for it."""
        self._until(lambda: len(self._first_answers) > 1)
        return max(self._first_answers.values())

    def _until(self, is_met: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._error or is_met(), LIMIT_S), "no answer"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stopping:
                pid = self._call()
                if pid not in self._first_answers:
                    with self._changed:
                        self._first_answers[pid] = time.perf_counter()
                        self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised to whoever waits for an answer
            with self._changed:
                self._error = error
                self._changed.notify_all()


def gaps_s(strike: Callable[[], None], *calls: Callable[[], int]) -> list[float]:
    """Strike while all these calls go on; for each, the time until another process answered."""
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Caller(call)) for call in calls]
        began = time.perf_counter()
        strike()
        return [caller.next_process_at() - began for caller in callers]


def sigkill(pid: int) -> Callable[[], None]:
    """SIGKILL to one process, without waiting for its end."""
    return lambda: os.kill(pid, signal.SIGKILL)


def measure_worker(cluster: LocalCluster, child: Replicated, times: int) -> dict[str, list[float]]:
    """SIGKILL of the process that answers, of the one side and of the other in turns."""
    gaps: dict[str, list[float]] = {"raphub": [], "ray": []}
    plain = Plain(cluster.node_ids[0])
    for _ in range(times):
        child.active()
        gaps["raphub"] += gaps_s(sigkill(child.call()), child.call)
        gaps["ray"] += gaps_s(sigkill(plain.call()), plain.call)
    plain.end()
    return gaps


def measure_node(
    cluster: LocalCluster, child: Replicated, times: int, ray_times: int
) -> dict[str, list[float]]:
    """SIGKILL of the raylet and all workers of the node on which both sides sit."""
    gaps: dict[str, list[float]] = {"raphub": [], "ray": []}
    for turn in range(times):
        node_id = child.active().node_id
        plain = Plain(node_id) if turn < ray_times else None
        calls = [child.call] if plain is None else [child.call, plain.call]
        for side, gap in zip(
            gaps, gaps_s(lambda: cluster.kill_node(node_id), *calls), strict=False
        ):
            gaps[side].append(gap)
        if plain is not None:
            plain.end()
        cluster.add_node()
        child.active()
    return gaps


def measure_hang(
    cluster: LocalCluster, child: Replicated, times: int
) -> tuple[list[float], list[str]]:
    """SIGSTOP of the active's process; what it says when it is woken after it was replaced."""
    gaps: list[float] = []
    said: list[str] = []
    for _ in range(times):
        old = child.active()
        assert old.pid is not None
        pid, handle = old.pid, old.handle
        header, _ = calling.Header("bench", 1, old.epoch, "add").packed_with((1,), {})
        late: list[Any] = []

        def hang() -> None:
            cluster.pause_process(pid)
            late.append(handle.serve.remote(header))

        gaps += gaps_s(hang, child.call)
        with contextlib.suppress(ProcessLookupError):
            cluster.resume_process(pid)
        said.append(what_it_says(late[0]))
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
    parser.add_argument("--repetitions", type=int, default=10, help="kills of each kind")
    parser.add_argument(
        "--ray-repetitions",
        type=int,
        default=3,
        help="kills of a node in which the plain actor takes part; some 15 s each",
    )
    parser.add_argument("--hangs", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    asked = parser.parse_args()
    with LocalCluster(nodes=NODES) as cluster:
        # The same child dies again and again here: it is not to be given up for that.
        config = raphub.HubConfig(hub_id="bench", crash_limit=10_000, crash_backoff_max_s=1.0)
        with raphub.Hub.start(config) as hub:
            child = Replicated(hub)
            worker = measure_worker(cluster, child, asked.repetitions)
            node = measure_node(cluster, child, asked.repetitions, asked.ray_repetitions)
            hang, said = measure_hang(cluster, child, asked.hangs)
    report({"worker SIGKILL": worker, "node SIGKILL": node, "hang": {"raphub": hang}}, said, asked)


def report(
    measured: dict[str, dict[str, list[float]]], said: list[str], asked: argparse.Namespace
) -> None:
    """The table and the JSON. The exit code is 1 if an old active has served after all."""
    figures: dict[str, Any] = {"unit": "s", "old_active_when_it_wakes": said}
    rows = []
    for name, gaps in measured.items():
        found = {side: summary(samples) for side, samples in gaps.items() if samples}
        figures[name] = {**found, "samples": gaps}
        for side, one in found.items():
            numbers = [f"{1000 * one[key]:,.0f}" for key in ("min", "median", "max")]
            rows.append([f"{name}, {side}", *numbers, f"{one['count']:.0f}"])
        if "ray" in found:
            ratio = found["ray"]["median"] / found["raphub"]["median"]
            figures[name]["ratio"] = ratio
            rows.append([f"{name}, ray / raphub", "", f"{ratio:,.0f} x", "", ""])
    show("time to the first answer, ms", ("kill", "min", "median", "max", "times"), rows)
    print(f"the old active, when it wakes up: {', '.join(said)}")
    save(asked.json, figures)
    if any(one.startswith("SERVED") for one in said):
        raise SystemExit("an old active has served after its successor")


if __name__ == "__main__":
    main()
