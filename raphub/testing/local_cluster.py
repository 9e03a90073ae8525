"""How does a whole Ray cluster of several nodes live on this machine, to be broken at will?

Real raylets, real workers, real signals. Everything is in a private folder behind an explicit
address, so that it stands beside other Ray users of the machine, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import ray

from raphub.testing import node_host, processes
from raphub.testing.netns import BRIDGE_ADDRESS, Bridge

START_TIMEOUT_S = 60.0
OBJECT_STORE_BYTES = 80 * 2**20
MEMORY_BYTES = 2**30
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    # A test cluster shares this machine's cores with its own driver: no side is to starve.
    "RAY_worker_niceness": "0",
}


@dataclass(slots=True)
class RunningNode:
    """One Ray node: the process that owns it, and its raylet."""

    node_id: str
    address: str
    host: subprocess.Popen[bytes]
    raylet_pid: int
    namespace: str | None


class LocalCluster:
    """A Ray cluster of `nodes` nodes and a head, as processes of this machine.

    Use it as a context manager; the driver (this process) is connected inside the block, unless
    `connect=False`. `labels` are the nodes' labels in their order. `head_usable=True` gives the
    head CPUs, too. `isolation="netns"` puts each node into a network namespace of its own, so that
    `cut` works; it needs root. Linux only. Times out after 60 s with what the nodes said.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        cpus_per_node: int = 4,
        labels: Sequence[Mapping[str, str]] = (),
        head_usable: bool = False,
        isolation: Literal["netns"] | None = None,
        connect: bool = True,
    ) -> None:
        """Nothing is started before `__enter__` or `start`."""
        self._count = nodes
        self._cpus = cpus_per_node
        self._labels = [dict(one) for one in labels]
        self._head_usable = head_usable
        self._isolation = isolation
        self._connect = connect
        self._nodes: list[RunningNode] = []
        self._head: RunningNode | None = None
        self._folder = ""
        self._spawned = 0
        self._bridge: Bridge | None = None
        self._environment: dict[str, str | None] = {}

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start everything and connect the driver. Leaves nothing behind if it fails."""
        if ray.is_initialized() and self._connect:
            raise RuntimeError(
                "this process is connected to a Ray cluster already: call ray.shutdown() first"
            )
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End everything: the driver's connection first, then the nodes, then the folder."""
        if self._connect and self._head is not None:
            ray.shutdown()
        everyone = [*self._nodes, *([self._head] if self._head else [])]
        for node in everyone:
            self._end(node)
        self._nodes, self._head = [], None
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environment = {}

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _start(self) -> None:
        for name, value in {**_ENVIRONMENT, "RAY_ADDRESS": None}.items():
            self._environment[name] = os.environ.get(name)
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        # Ray puts sockets there, and their paths may have 107 bytes: keep it short.
        self._folder = tempfile.mkdtemp(prefix="rh-")
        if self._isolation == "netns":
            self._bridge = Bridge()
        head_cpus = self._cpus if self._head_usable else 0
        self._head = self._await_node(*self._spawn(is_head=True, cpus=head_cpus, labels={}))
        labels = self._labels + [{}] * (self._count - len(self._labels))
        spawned = [
            self._spawn(is_head=False, cpus=self._cpus, labels=labels[index])
            for index in range(self._count)
        ]
        self._nodes = [self._await_node(*one) for one in spawned]
        if self._connect:
            self.connect()

    def connect(self) -> None:
        """Connect this process to the cluster as a driver."""
        ray.init(
            address=self.address,
            _temp_dir=self._folder,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address=self._head_ip,
        )

    # --- what there is ------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where the cluster is: what `ray.init(address=...)` takes."""
        return self._require_head().address

    @property
    def head_node_id(self) -> str:
        """The head's Ray node id."""
        return self._require_head().node_id

    @property
    def node_ids(self) -> list[str]:
        """The Ray node ids of all nodes but the head, in the order in which they were started."""
        return [node.node_id for node in self._nodes]

    # --- nodes --------------------------------------------------------------------------------

    def add_node(self, labels: Mapping[str, str] | None = None) -> str:
        """Start one more node; returns its id when Ray sees it."""
        spawned = self._spawn(is_head=False, cpus=self._cpus, labels=dict(labels or {}))
        node = self._await_node(*spawned)
        self._nodes.append(node)
        return node.node_id

    def kill_node(self, node_id: str) -> None:
        """SIGKILL the node's raylet and all its workers; returns when all are gone."""
        node = self._take(node_id)
        pids = processes.descendants(node.raylet_pid)
        processes.kill_all(pids)
        self._end(node)

    def remove_node(self, node_id: str) -> None:
        """End the node gracefully: SIGTERM to its raylet, which tells Ray before it goes."""
        node = self._take(node_id)
        pids = processes.descendants(node.raylet_pid)
        processes.signal_all([node.raylet_pid], signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            processes.until_gone([node.raylet_pid])
        processes.kill_all(pids)
        self._end(node)

    def pause_node(self, node_id: str) -> None:
        """SIGSTOP the node's raylet and all its workers: it hangs, and its kernel lives."""
        pids = processes.descendants(self._find(node_id).raylet_pid)
        processes.signal_all(pids, signal.SIGSTOP)

    def resume_node(self, node_id: str) -> None:
        """SIGCONT what `pause_node` stopped."""
        pids = processes.descendants(self._find(node_id).raylet_pid)
        processes.signal_all(pids, signal.SIGCONT)

    def cut(self, node_id: str) -> None:
        """Cut the node's link: nothing arrives there, and nobody is told. Needs `isolation`."""
        bridge, namespace = self._link(node_id)
        bridge.cut(namespace)

    def heal(self, node_id: str) -> None:
        """Join the link that `cut` has cut."""
        bridge, namespace = self._link(node_id)
        bridge.heal(namespace)

    # --- processes ----------------------------------------------------------------------------

    def kill_process(self, pid: int) -> None:
        """SIGKILL one process of the cluster; returns when it is gone."""
        processes.kill_all([pid])

    def pause_process(self, pid: int) -> None:
        """SIGSTOP one process."""
        os.kill(pid, signal.SIGSTOP)

    def resume_process(self, pid: int) -> None:
        """SIGCONT one process."""
        os.kill(pid, signal.SIGCONT)

    def run_driver(
        self, script: str, *, cwd: str | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a Python script as a second driver of the cluster and return how it ended."""
        return subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "RAY_ADDRESS": self.address},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    # --- inside -------------------------------------------------------------------------------

    @property
    def _head_ip(self) -> str:
        """This machine's own address: Ray would replace the loopback one by it half of the time."""
        if self._bridge is not None:
            return BRIDGE_ADDRESS
        own: Any = ray.util.get_node_ip_address  # it has no types
        return str(own())

    def _spawn(
        self, *, is_head: bool, cpus: int, labels: dict[str, str]
    ) -> tuple[subprocess.Popen[bytes], str | None]:
        self._spawned += 1
        namespace, address = None, self._head_ip
        if self._bridge is not None and not is_head:
            namespace, address = self._bridge.add()
        asked: dict[str, Any] = {
            "is_head": is_head,
            "num_cpus": cpus,
            "num_gpus": 0,
            "memory": MEMORY_BYTES,
            "object_store_memory": OBJECT_STORE_BYTES,
            "node_ip_address": address,
            "temp_dir": self._folder,
            "labels": labels,
            "include_dashboard": False,
            "include_log_monitor": False,
            "no_monitor": True,
            "min_worker_port": 0,
            "max_worker_port": 0,
            "node_manager_port": 0,
            # Ray counts its socket names up, and nodes that start together would count alike.
            "plasma_store_socket_name": os.path.join(self._folder, f"store-{self._spawned}"),
            "raylet_socket_name": os.path.join(self._folder, f"raylet-{self._spawned}"),
        }
        if not is_head:
            asked["gcs_address"] = self.address
        within = [] if namespace is None else ["ip", "netns", "exec", namespace]
        command = [*within, sys.executable, node_host.__file__, json.dumps(asked), "kill"]
        log = open(os.path.join(self._folder, "hosts.log"), "ab")  # noqa: SIM115 - the child keeps it
        with log:
            host = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        return host, namespace

    def _await_node(self, host: subprocess.Popen[bytes], namespace: str | None) -> RunningNode:
        assert host.stdout is not None
        ready, _, _ = select.select([host.stdout], [], [], START_TIMEOUT_S)
        line = host.stdout.readline() if ready else b""
        if not line:
            self._end_host(host)
            raise RuntimeError(f"a Ray node did not start:\n{self._log()[-2000:]}")
        told = json.loads(line)
        return RunningNode(told["node_id"], told["address"], host, told["raylet_pid"], namespace)

    def _log(self) -> str:
        with open(os.path.join(self._folder, "hosts.log"), errors="replace") as log:
            return log.read()

    def _end(self, node: RunningNode) -> None:
        """End the node's processes with their owner, which reaps them; wait for its workers too."""
        pids = processes.descendants(node.host.pid)
        processes.signal_all(pids, signal.SIGCONT)
        self._end_host(node.host)
        processes.kill_all(pids)

    def _end_host(self, host: subprocess.Popen[bytes]) -> None:
        if host.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                host.stdin.close()
        try:
            host.wait(10)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()
        if host.stdout is not None:
            host.stdout.close()

    def _find(self, node_id: str) -> RunningNode:
        for node in self._nodes:
            if node.node_id == node_id:
                return node
        raise ValueError(f"no node {node_id!r} runs in this cluster: there are {self.node_ids}")

    def _take(self, node_id: str) -> RunningNode:
        node = self._find(node_id)
        self._nodes.remove(node)
        return node

    def _link(self, node_id: str) -> tuple[Bridge, str]:
        namespace = self._find(node_id).namespace
        if self._bridge is None or namespace is None:
            raise RuntimeError(
                "links can be cut only where nodes have networks of their own: "
                'LocalCluster(isolation="netns"), as root'
            )
        return self._bridge, namespace

    def _require_head(self) -> RunningNode:
        if self._head is None:
            raise RuntimeError("the cluster is not running: use it as `with LocalCluster() as ...`")
        return self._head


def wait_until_seen(node_id: str, timeout_s: float = 30.0) -> None:
    """Wait until Ray's node table shows the node alive. Raises `TimeoutError`."""
    gives_up_at = time.monotonic() + timeout_s
    while time.monotonic() < gives_up_at:
        nodes: Any = ray.nodes  # it has no types
        if any(n["NodeID"] == node_id and n["Alive"] for n in nodes()):
            return
        time.sleep(0.02)
    raise TimeoutError(f"Ray does not show node {node_id} after {timeout_s:g} s")
