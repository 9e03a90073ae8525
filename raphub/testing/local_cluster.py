"""How does a whole Ray cluster of several nodes live on this machine, to be broken at will?

Real raylets, real workers, real signals. Everything is in a private folder behind an explicit
address, so that it stands beside other Ray users of the machine, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
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
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import ray

from raphub.testing import node_host, processes
from raphub.testing.netns import BRIDGE_ADDRESS, Bridge

START_TIMEOUT_S = 60.0
OBJECT_STORE_BYTES = 80 * 2**20
MEMORY_BYTES = 2**30
_IMPORT_ROOT = str(Path(__file__).parents[2])
_RUN_HOST = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from raphub.testing.node_host import main; main()"
)
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    # A test cluster shares this machine's cores with its own driver: no side is to starve.
    "RAY_worker_niceness": "0",
}


@dataclass(slots=True)
class RunningNode:
    """One Ray node: the process that owns it, and what that one says of it once it runs."""

    host: subprocess.Popen[bytes]
    log: Path
    namespace: str | None
    node_id: str = ""
    address: str = ""
    raylet_pid: int = 0


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
        if len(labels) > nodes:
            raise ValueError(f"labels for {len(labels)} nodes, and there are to be {nodes} only")
        self._count = nodes
        self._cpus = cpus_per_node
        self._labels = [dict(one) for one in labels]
        self._head_usable = head_usable
        self._isolation = isolation
        self._connect = connect
        self._is_connected = False
        self._head: RunningNode | None = None
        self._nodes: list[RunningNode] = []
        self._folder: Path | None = None
        self._spawned = 0
        self._bridge: Bridge | None = None
        self._environment: dict[str, str | None] = {}

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start everything and connect the driver. Leaves nothing behind if it fails."""
        if self._folder is not None:
            raise RuntimeError("the cluster is running already")
        if self._connect and ray.is_initialized():
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
        """End everything: the driver's connection first, then the nodes, then the folder.

        One step that fails keeps no other from being taken; its error is raised at the end.
        """
        with contextlib.ExitStack() as steps:  # the last one pushed is the first one taken
            steps.callback(self._restore_environment)
            steps.callback(self._remove_folder)
            if self._bridge is not None:
                steps.callback(self._bridge.close)
            for node in [*([self._head] if self._head else []), *self._nodes]:
                steps.callback(self._end, node)
            if self._is_connected:
                steps.callback(ray.shutdown)
            self._nodes, self._head, self._bridge, self._is_connected = [], None, None, False

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
        self._set_environment()
        # Ray puts sockets there, and their paths may have 107 bytes: keep it short.
        self._folder = Path(tempfile.mkdtemp(prefix="rh-"))
        if self._isolation == "netns":
            self._bridge = Bridge()
        self._head = self._spawn(cpus=self._cpus if self._head_usable else 0, labels={})
        self._await_node(self._head)
        labels = self._labels + [{}] * (self._count - len(self._labels))
        for one in labels:
            self._nodes.append(self._spawn(cpus=self._cpus, labels=one))
        for node in self._nodes:
            self._await_node(node)
        if self._connect:
            self.connect()

    def connect(self) -> None:
        """Connect this process to the cluster as a driver; `stop` disconnects it."""
        ray.init(
            address=self.address,
            _temp_dir=str(self._require_folder()),
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=self._head_ip,
        )
        self._is_connected = True

    def _set_environment(self) -> None:
        for name, value in {**_ENVIRONMENT, "RAY_ADDRESS": None}.items():
            self._environment[name] = os.environ.get(name)
            _set_variable(name, value)

    def _restore_environment(self) -> None:
        for name, value in self._environment.items():
            _set_variable(name, value)
        self._environment = {}

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

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
        node = self._spawn(cpus=self._cpus, labels=dict(labels or {}))
        self._nodes.append(node)
        try:
            self._await_node(node)
        except BaseException:
            self._nodes.remove(node)
            self._end(node)
            raise
        return node.node_id

    def kill_node(self, node_id: str) -> None:
        """SIGKILL the node's raylet and all its workers; returns when all are gone."""
        node = self._take(node_id)
        processes.kill_all(processes.descendants(node.raylet_pid))
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

    def preempt_node(self, node_id: str, deadline_s: float) -> None:
        """Have Ray announce that the node will be taken away in so many seconds, as clouds do.

        Nothing is taken away by this; Ray places nothing more there. Raises `RuntimeError` if Ray
        refuses.
        """
        self._find(node_id)
        # Ray has no public way to say so.
        private: Any = importlib.import_module("ray._raylet")
        reasons: Any = importlib.import_module("ray.core.generated.autoscaler_pb2").DrainNodeReason
        reason = reasons.Value("DRAIN_NODE_REASON_PREEMPTION")
        at_ms = int((time.time() + deadline_s) * 1000)
        client = private.GcsClient(address=self.address)
        is_accepted, why = client.drain_node(node_id, reason, "announced by a test", at_ms)
        if not is_accepted:
            raise RuntimeError(f"Ray does not drain the node: {why}")

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

    def _spawn(self, *, cpus: int, labels: dict[str, str]) -> RunningNode:
        """Start a node's host and do not wait for it; the first one becomes the head."""
        self._spawned += 1
        folder = self._require_folder()
        is_head = self._head is None
        namespace, address = None, self._head_ip
        if self._bridge is not None and not is_head:
            namespace, address = self._bridge.add()
        asked: dict[str, Any] = {
            "num_cpus": cpus,
            "num_gpus": 0,
            "memory": MEMORY_BYTES,
            "object_store_memory": OBJECT_STORE_BYTES,
            "node_ip_address": address,
            "temp_dir": str(folder),
            "labels": labels,
            "include_dashboard": False,
            "include_log_monitor": False,
            "no_monitor": True,
            "min_worker_port": 0,
            "max_worker_port": 0,
            "node_manager_port": 0,
            # The default is one fixed port: all agents but the first would try it for 3.5 s.
            "dashboard_agent_listen_port": 0,
            # Ray counts its socket names up, and nodes that start together would count alike.
            "plasma_store_socket_name": str(folder / f"store-{self._spawned}"),
            "raylet_socket_name": str(folder / f"raylet-{self._spawned}"),
        }
        if not is_head:
            asked["gcs_address"] = self.address
        within = [] if namespace is None else ["ip", "netns", "exec", namespace]
        host = [sys.executable, "-c", _RUN_HOST, _IMPORT_ROOT, json.dumps(asked), str(os.getpid())]
        told = folder / f"host-{self._spawned}.log"
        with told.open("wb") as log:
            process = subprocess.Popen(
                [*within, *host],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C in the owner's terminal is for the owner, who then ends the nodes.
                start_new_session=True,
            )
        return RunningNode(process, told, namespace)

    def _await_node(self, node: RunningNode) -> None:
        stdout = node.host.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], START_TIMEOUT_S)
        line = stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"a Ray node did not start:\n{node.log.read_text(errors='replace')}")
        told = json.loads(line)
        node.node_id, node.address = told["node_id"], told["address"]
        node.raylet_pid = told["raylet_pid"]

    def _end(self, node: RunningNode) -> None:
        """Have the node's processes ended by their owner, which reaps them and ends itself."""
        host = node.host
        assert host.stdin is not None
        assert host.stdout is not None
        pids = processes.descendants(host.pid)
        with contextlib.suppress(BrokenPipeError):
            host.stdin.write(node_host.END)
            host.stdin.close()
        try:
            host.wait(node_host.END_TIMEOUT_S + 5)
        except subprocess.TimeoutExpired:
            processes.signal_all(pids, signal.SIGKILL)
            host.wait()
        host.stdout.close()
        processes.kill_all(pids)

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

    def _require_folder(self) -> Path:
        if self._folder is None:
            raise RuntimeError("the cluster is not running: use it as `with LocalCluster() as ...`")
        return self._folder


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
