"""Does everything that LocalCluster promises really happen to real processes?"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayError

from raphub.testing import LocalCluster, netns, processes

NODES = 2
LIMIT_S = 60


@ray.remote(num_cpus=1)
class Plain:
    """A plain Ray actor: what happens to it happens without raphub."""

    def pid(self) -> int:
        return os.getpid()

    def send_forever(self, host: str, port: int) -> None:
        """A datagram now and again until the process ends."""

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                while True:
                    out.sendto(b"here", (host, port))
                    time.sleep(0.02)

        threading.Thread(target=send, daemon=True).start()


def plain_on(node_id: str, **options: Any) -> Any:
    """An actor on the node, once it has answered."""
    made: Any = Plain
    actor = made.options(label_selector={"ray.io/node-id": node_id}, **options).remote()
    ray.get(actor.pid.remote(), timeout=LIMIT_S)
    return actor


def pid_of(actor: Any) -> int:
    found: int = ray.get(actor.pid.remote(), timeout=LIMIT_S)
    return found


def wait_until(is_met: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    gives_up_at = time.monotonic() + limit_s
    while not is_met():
        assert time.monotonic() < gives_up_at, "waited in vain"
        time.sleep(processes.LOOK_EVERY_S)


def seen(node_id: str) -> dict[str, Any]:
    """The node as Ray's node table has it."""
    nodes: Any = ray.nodes
    [found] = [node for node in nodes() if node["NodeID"] == node_id]
    return dict(found)


def folder_of(cluster: LocalCluster) -> Path:
    assert cluster._folder is not None
    return cluster._folder


def members(folder: Path) -> list[int]:
    """The processes that are started for the folder, or have a file of it open."""
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_of(p, folder)]


def _is_of(process: Path, folder: Path) -> bool:
    try:
        command = (process / "cmdline").read_text(errors="replace")
        files = [link.readlink() for link in (process / "fd").iterdir()]
    except OSError:
        return False  # it has ended meanwhile
    return str(folder) in command or any(folder in file.parents for file in files)


def exists(pid: int) -> bool:
    """Even as a zombie."""
    return Path(f"/proc/{pid}").exists()


def nothing_left_of(folder: Path) -> bool:
    # The driver itself, this process, may have a log file open that is deleted.
    return not folder.exists() and set(members(folder)) <= {os.getpid()}


@pytest.fixture(autouse=True)
def two_nodes(request: pytest.FixtureRequest) -> None:
    """Where a test uses the module's cluster, it begins with at least two nodes."""
    if "cluster" in request.fixturenames:
        cluster: LocalCluster = request.getfixturevalue("cluster")
        while len(cluster.node_ids) < 2:
            cluster.add_node()


def test_the_head_holds_nothing_and_each_node_has_its_cpus(cluster: LocalCluster) -> None:
    assert "CPU" not in seen(cluster.head_node_id)["Resources"]
    assert [seen(node)["Resources"]["CPU"] for node in cluster.node_ids] == [4.0, 4.0]


def test_an_added_node_is_seen_with_its_labels_and_outlives_the_thread_that_added_it(
    cluster: LocalCluster,
) -> None:
    added: list[str] = []
    adder = threading.Thread(target=lambda: added.append(cluster.add_node({"zone": "north"})))
    adder.start()
    adder.join()
    [node_id] = added
    assert seen(node_id)["Alive"]
    assert seen(node_id)["Labels"]["zone"] == "north"
    assert cluster.node_ids[-1] == node_id
    made: Any = Plain
    actor = made.options(label_selector={"zone": "north"}).remote()
    assert exists(pid_of(actor))
    cluster.remove_node(node_id)


def test_a_killed_node_is_gone_with_all_its_workers_and_its_link(cluster: LocalCluster) -> None:
    node_id = cluster.node_ids[0]
    actor = plain_on(node_id)
    node = cluster._find(node_id)
    pids = processes.descendants(node.host.pid)
    assert {node.raylet_pid, pid_of(actor)} < set(pids)
    cluster.kill_node(node_id)
    assert [pid for pid in pids if exists(pid)] == []
    assert node_id not in cluster.node_ids
    with pytest.raises(RayError):
        ray.get(actor.pid.remote(), timeout=LIMIT_S)
    # Nobody has told Ray.
    assert seen(node_id)["Alive"]


def test_a_worker_whose_raylet_was_killed_ends_with_the_node(cluster: LocalCluster) -> None:
    node_id = cluster.node_ids[0]
    node = cluster._find(node_id)
    worker = pid_of(plain_on(node_id))
    cluster.pause_process(worker)
    cluster.kill_process(node.raylet_pid)
    assert processes.is_running(worker)
    cluster.kill_node(node_id)
    assert not exists(worker)


def test_a_removed_node_tells_ray_at_once(cluster: LocalCluster) -> None:
    node_id = cluster.node_ids[0]
    actor = plain_on(node_id)
    pids = processes.descendants(cluster._find(node_id).host.pid)
    cluster.remove_node(node_id)
    assert [pid for pid in pids if exists(pid)] == []
    # Without being told, Ray takes more than ten seconds.
    wait_until(lambda: not seen(node_id)["Alive"], 5)
    with pytest.raises(RayError):
        ray.get(actor.pid.remote(), timeout=LIMIT_S)


def test_a_paused_node_hangs_and_a_resumed_one_answers_again(cluster: LocalCluster) -> None:
    node_id, other_id = cluster.node_ids[:2]
    actor, other = plain_on(node_id), plain_on(other_id)
    before = pid_of(actor)
    cluster.pause_node(node_id)
    pending = actor.pid.remote()
    with pytest.raises(GetTimeoutError):
        ray.get(pending, timeout=1)
    assert pid_of(other) > 0
    cluster.resume_node(node_id)
    assert ray.get(pending, timeout=LIMIT_S) == before
    assert pid_of(plain_on(node_id)) > 0


def test_a_paused_node_can_be_killed(cluster: LocalCluster) -> None:
    node_id = cluster.node_ids[0]
    worker = pid_of(plain_on(node_id))
    cluster.pause_node(node_id)
    cluster.kill_node(node_id)
    assert not exists(worker)


def test_one_process_is_paused_resumed_and_killed(cluster: LocalCluster) -> None:
    actor, other = plain_on(cluster.node_ids[0]), plain_on(cluster.node_ids[0])
    pid = pid_of(actor)
    cluster.pause_process(pid)
    pending = actor.pid.remote()
    with pytest.raises(GetTimeoutError):
        ray.get(pending, timeout=0.5)
    cluster.resume_process(pid)
    assert ray.get(pending, timeout=LIMIT_S) == pid
    cluster.kill_process(pid)
    assert not processes.is_running(pid)
    with pytest.raises(RayError):
        ray.get(actor.pid.remote(), timeout=LIMIT_S)
    assert pid_of(other) > 0


def test_a_second_driver_reaches_the_same_cluster(cluster: LocalCluster) -> None:
    actor = plain_on(cluster.node_ids[0], name="known", namespace="shared")
    script = (
        "import ray; ray.init(namespace='shared', logging_level='ERROR');"
        "print(ray.get(ray.get_actor('known').pid.remote()))"
    )
    done = cluster.run_driver(script)
    # Ray may add lines of its own, of nodes that an earlier test has killed.
    assert done.returncode == 0, done.stderr
    assert str(pid_of(actor)) in done.stdout.splitlines()
    assert cluster.run_driver("raise SystemExit('said')").stderr.strip() == "said"


def test_what_cannot_be_done_is_said(cluster: LocalCluster) -> None:
    with pytest.raises(ValueError, match="no node 'nowhere' runs"):
        cluster.kill_node("nowhere")
    with pytest.raises(RuntimeError, match="isolation="):
        cluster.cut(cluster.node_ids[0])
    with pytest.raises(RuntimeError, match="running already"):
        cluster.start()
    with pytest.raises(RuntimeError, match="connected to a Ray cluster already"):
        LocalCluster().start()
    with pytest.raises(RuntimeError, match="not running"):
        _ = LocalCluster().address
    with pytest.raises(ValueError, match="labels for 2 nodes"):
        LocalCluster(1, labels=[{"a": "b"}, {"a": "c"}])


# The following run apart, in a process of their own: this one is connected to the module's cluster.

PRELUDE = """
import json, os, signal, sys, ray
from raphub.testing import LocalCluster
from tests.cluster.test_local_cluster import Plain, exists, folder_of, members, nothing_left_of, pid_of

def told(cluster):
    pids = [pid_of(Plain.remote()), *members(folder_of(cluster))]
    print(json.dumps([str(folder_of(cluster)), pids]), flush=True)
    return folder_of(cluster), set(pids) - {os.getpid()}

def assert_nothing_left(folder, pids):
    assert len(pids) > 5, pids
    assert not any(map(exists, pids)), pids
    assert nothing_left_of(folder)
    assert not ray.is_initialized()

def settings():
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}

os.environ["RAY_ADDRESS"] = "elsewhere:6379"
before = settings()
"""


def run_apart(script: str) -> None:
    """Run a script, which checks for itself."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr


def test_when_the_block_is_left_everything_is_gone() -> None:
    run_apart("""
with LocalCluster(0, head_usable=True) as cluster:
    folder, pids = told(cluster)
assert_nothing_left(folder, pids)
assert settings() == before
""")


def test_when_an_exception_leaves_the_block_everything_is_gone() -> None:
    run_apart("""
try:
    with LocalCluster(1) as cluster:
        folder, pids = told(cluster)
        cluster.pause_node(cluster.node_ids[0])
        raise ZeroDivisionError
except ZeroDivisionError:
    assert_nothing_left(folder, pids)
    assert settings() == before
else:
    raise AssertionError("the exception was swallowed")
""")


def test_when_a_node_does_not_start_its_log_is_told_and_everything_is_gone() -> None:
    run_apart("""
cluster = LocalCluster(2, cpus_per_node=-1)
started = []
spawn = cluster._spawn
cluster._spawn = lambda **how: started.append((spawn(**how), folder_of(cluster))) or started[-1][0]
try:
    cluster.start()
except RuntimeError as error:
    assert "a Ray node did not start" in str(error), error
    assert "Traceback" in str(error), error
    assert len(started) == 3
    assert not any(exists(node.host.pid) for node, _ in started)
    assert nothing_left_of(started[0][1])
else:
    raise AssertionError("it has started")
""")


def killed(script: str) -> list[Any]:
    """Run a script until it has told its folder and processes, and kill it."""
    owner = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    with owner:
        assert owner.stdout is not None
        line = owner.stdout.readline()
        owner.send_signal(signal.SIGKILL)
    found: list[Any] = json.loads(line)
    return found


def test_when_the_owner_is_killed_everything_goes() -> None:
    folder, pids = killed("""
with LocalCluster(1) as cluster:
    told(cluster)
    signal.pause()
""")
    assert len(pids) > 5
    wait_until(lambda: not any(map(exists, pids)) and nothing_left_of(Path(folder)), 10)


def test_when_the_owner_is_killed_while_nodes_start_everything_goes() -> None:
    folder, pids = killed("""
class Stuck(LocalCluster):
    def _await_node(self, node):
        if self._head is not node:
            print(json.dumps([str(folder_of(self)), members(folder_of(self))]), flush=True)
            signal.pause()
        super()._await_node(node)

Stuck(1, connect=False).start()
""")
    assert len(pids) > 3
    wait_until(lambda: not any(map(exists, pids)) and nothing_left_of(Path(folder)), 10)


@pytest.mark.netns
@pytest.mark.skipif(netns.why_not() is not None, reason=str(netns.why_not()))
def test_a_cut_link_lets_nothing_through_in_either_direction_until_it_is_healed() -> None:
    run_apart("""
import socket, time
from ray.exceptions import GetTimeoutError
from raphub.testing.netns import BRIDGE_ADDRESS, names_of
from tests.cluster.test_local_cluster import LIMIT_S, plain_on

def is_heard(limit_s):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind((BRIDGE_ADDRESS, 7777))
        heard.settimeout(limit_s)
        try:
            return heard.recv(100) == b"here"
        except TimeoutError:
            return False

with LocalCluster(2, isolation="netns") as cluster:
    folder, pids = told(cluster)
    node, other = cluster.node_ids
    cut, whole = plain_on(node), plain_on(other)
    pid = pid_of(cut)
    ray.get(cut.send_forever.remote(BRIDGE_ADDRESS, 7777))
    assert is_heard(10)
    cluster.cut(node)
    pending = cut.pid.remote()
    assert not is_heard(1)
    try:
        ray.get(pending, timeout=1)
    except GetTimeoutError:
        pass
    else:
        raise AssertionError("a call has crossed the cut")
    assert pid_of(whole) > 0
    cluster.heal(node)
    assert is_heard(10)
    assert ray.get(pending, timeout=LIMIT_S) == pid
    cluster.cut(node)
    cluster.kill_node(node)
assert_nothing_left(folder, pids)
assert names_of(os.getpid()) == []
""")


@pytest.mark.netns
@pytest.mark.skipif(netns.why_not() is not None, reason=str(netns.why_not()))
def test_when_the_owner_is_killed_its_networks_go() -> None:
    folder, pids = killed("""
with LocalCluster(1, isolation="netns", connect=False) as cluster:
    print(json.dumps([str(folder_of(cluster)), [os.getpid(), *members(folder_of(cluster))]]), flush=True)
    signal.pause()
""")
    owner = pids[0]
    wait_until(lambda: not any(map(exists, pids)) and nothing_left_of(Path(folder)), 10)
    wait_until(lambda: netns.names_of(owner) == [], 10)


@pytest.mark.netns
@pytest.mark.skipif(netns.why_not() is not None, reason=str(netns.why_not()))
def test_a_bridge_in_use_is_refused_to_another_and_stays_whole() -> None:
    """Before its first namespace, too: the head starts for seconds without one."""
    ours = netns.Bridge()
    try:
        before = netns.names_of(os.getpid())
        with pytest.raises(AssertionError, match=f"process {os.getpid()} uses it now"):
            run_apart("from raphub.testing.netns import Bridge; Bridge()")
        run_apart("from raphub.testing import netns; assert netns.why_not() is None")
        netns.remove_all_of(os.getpid() + 2**22)  # a process id that none can have
        assert netns.names_of(os.getpid()) == before != []
    finally:
        ours.close()
    assert netns.names_of(os.getpid()) == []


@pytest.mark.netns
@pytest.mark.skipif(netns.why_not() is not None, reason=str(netns.why_not()))
def test_when_the_owner_is_killed_before_its_first_namespace_its_bridge_can_be_removed() -> None:
    [owner] = killed("""
from raphub.testing.netns import Bridge
bridge = Bridge()
print(json.dumps([os.getpid()]), flush=True)
signal.pause()
""")
    assert netns.names_of(owner) != []
    netns.remove_all_of(owner)
    assert netns.names_of(owner) == []
