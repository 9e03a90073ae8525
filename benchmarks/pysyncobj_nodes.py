"""How fast does PySyncObj count on this machine?

Three processes make one PySyncObj cluster that listens on 127.0.0.1 only. Whichever leads writes
its own commands: no client is between, which favours PySyncObj over everybody who is called from
another process. Run as a script, this file is one of the three; it obeys the lines of its standard
input and ends with it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from types import TracebackType
from typing import Any, Self

INSTALL = "pip install pysyncobj"
NODES = 3
HOST = "127.0.0.1"
LIMIT_S = 60.0


def is_installed() -> bool:
    """Can this environment run it?"""
    return importlib.util.find_spec("pysyncobj") is not None


class PySyncObjCluster:
    """Three processes; `settings` are those of its `SyncObjConf`."""

    def __init__(self, **settings: object) -> None:
        """Nothing runs before `__enter__`."""
        self._settings = settings
        self._nodes: list[subprocess.Popen[str]] = []
        self._addresses: list[str] = []
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `__exit__` closes it
        self._ends = contextlib.ExitStack()
        self.acknowledged = 0

    def __enter__(self) -> Self:
        """Returns when there is a leader and all have heard of it."""
        self._ends.callback(self._said.close)
        try:
            self._addresses = free_addresses(NODES)
            for address in self._addresses:
                self._spawn(address)
            for node in self._nodes:
                self._ask(node)
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.close()

    def one_by_one(self, count: int) -> float:
        """So many writes, each awaited before the next; how many of them a second."""
        return self._measure("one_by_one", count)

    def burst(self, count: int) -> float:
        """So many writes at once, acknowledged to callbacks; how many of them a second."""
        return self._measure("burst", count)

    def total(self) -> int:
        """What the leader has counted."""
        return int(self._ask(self._leader(), "total"))

    def _measure(self, how: str, count: int) -> float:
        answer = self._ask(self._leader(), how, count)
        self.acknowledged += answer["acknowledged"]
        return float(answer["acknowledged"] / answer["took_s"])

    def _leader(self) -> subprocess.Popen[str]:
        """Whoever leads now: on busy cores that changes without a failure."""
        gives_up_at = time.monotonic() + LIMIT_S
        while time.monotonic() < gives_up_at:
            leader = self._ask(self._nodes[0], "leader")
            if leader in self._addresses:
                return self._nodes[self._addresses.index(leader)]
            time.sleep(0.1)
        raise TimeoutError("PySyncObj has no leader")

    def _spawn(self, address: str) -> None:
        others = [other for other in self._addresses if other != address]
        node = subprocess.Popen(
            [sys.executable, __file__, address, ",".join(others), json.dumps(self._settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self._nodes.append(node)
        self._ends.callback(end, node)

    def _ask(self, node: subprocess.Popen[str], *line: object) -> Any:
        """Have one process do something; without a line, hear that it stands."""
        assert node.stdin is not None
        assert node.stdout is not None
        if line:
            node.stdin.write(json.dumps(line) + "\n")
            node.stdin.flush()
        answer = node.stdout.readline()
        if not answer:
            self._said.seek(0)
            raise RuntimeError(f"a PySyncObj process has ended: {self._said.read()[-2000:]}")
        return json.loads(answer)


def free_addresses(count: int) -> list[str]:
    """So many free ports of this host, not of its network."""
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in bound:
            one.bind((HOST, 0))
        return [f"{HOST}:{one.getsockname()[1]}" for one in bound]


def end(node: subprocess.Popen[str]) -> None:
    """Its standard input ends, and so does it; if not, it is killed."""
    assert node.stdin is not None
    assert node.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        node.stdin.close()
    try:
        node.wait(5)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()
    node.stdout.close()


# --- one of the three processes ---------------------------------------------------------------


def node_of(address: str, others: list[str], settings: dict[str, Any]) -> Any:
    """The replicated counter of this process, as PySyncObj's own guide writes it."""
    pysyncobj: Any = importlib.import_module("pysyncobj")
    base: Any = pysyncobj.SyncObj

    class ReplicatedCounter(base):  # type: ignore[misc] # it has no types
        """The same work as `workload.Counter`."""

        def __init__(self) -> None:
            # Without a bind address it would listen on all of this machine's networks.
            conf = pysyncobj.SyncObjConf(bindAddress=address, **settings)
            super().__init__(address, others, conf)
            self.value = 0

        @pysyncobj.replicated  # type: ignore[untyped-decorator] # as above
        def add(self, amount: int = 1) -> int:
            self.value += amount
            return self.value

    return ReplicatedCounter()


def one_by_one(node: Any, count: int) -> int:
    """Write so often, and wait each time; how many writes were acknowledged."""
    for _ in range(count):
        node.add(1, sync=True, timeout=LIMIT_S)
    return count


def burst(node: Any, count: int) -> int:
    """Write so often, and wait once; how many writes were acknowledged."""
    all_answered = threading.Event()
    errors: list[int] = []

    def answered(_result: int | None, error: int) -> None:
        errors.append(error)
        if len(errors) == count:
            all_answered.set()

    for _ in range(count):
        node.add(1, callback=answered)
    all_answered.wait(LIMIT_S)
    return errors.count(0)


def main() -> None:
    """Obey the lines of standard input."""
    address, others, settings = sys.argv[1:]
    node = node_of(address, others.split(","), json.loads(settings))
    gives_up_at = time.monotonic() + LIMIT_S
    while not node.isReady():
        assert time.monotonic() < gives_up_at, "no cluster came together"
        time.sleep(0.05)
    print("true", flush=True)
    for line in sys.stdin:
        answer: object
        match json.loads(line):
            case ["leader"]:
                answer = str(node._getLeader())  # noqa: SLF001 - its own benchmark asks so, too
            case ["total"]:
                answer = node.value
            case ["one_by_one" | "burst" as how, count]:
                began = time.perf_counter()
                acknowledged = (one_by_one if how == "one_by_one" else burst)(node, count)
                took_s = time.perf_counter() - began
                answer = {"acknowledged": acknowledged, "took_s": took_s}
            case unknown:
                raise ValueError(f"what is {unknown}?")
        print(json.dumps(answer), flush=True)
    node.destroy_synchronous()


if __name__ == "__main__":
    main()
