"""`raphub demo`, as a new user runs it: nothing is running before, and nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raphub.testing import processes

COMMAND = [sys.executable, "-c", "from raphub.cli import main; main()", "demo"]
TAG = "RAPHUB_TEST_DEMO"


class Place:
    """Where one demo runs: its folder for temporary files, and a mark on all its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "TMPDIR": str(folder),
            TAG: str(folder),
            "TERM": "xterm",
            "COLUMNS": "80",
            "LINES": "30",
        }

    def pids(self) -> list[int]:
        """All running processes that descend from the demo, whoever their parent is now."""
        mark = f"{TAG}={self.folder}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return [pid for pid in found if processes.is_running(pid)]

    def assert_nothing_is_left(self) -> None:
        processes.until_gone(self.pids())
        assert self.pids() == []
        assert list(self.folder.iterdir()) == []


@pytest.fixture
def place() -> Iterator[Place]:
    # Not pytest's own folder: Ray puts sockets there, and their paths have to be short.
    with tempfile.TemporaryDirectory(prefix="d") as folder:
        yield Place(Path(folder))


def test_the_demo_kills_a_worker_and_a_node_under_writes_and_checks_both_sides(
    place: Place,
) -> None:
    began_at_s = time.monotonic()
    done = subprocess.run(
        [*COMMAND, "--json"],
        env=place.environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began_at_s < 90
    place.assert_nothing_is_left()

    kills = json.loads(done.stdout)
    assert [one["kill"] for one in kills] == ["worker", "node"]
    for one in kills:
        ours, theirs = one["raphub"], one["plain_ray"]
        for side in (ours, theirs):
            assert side["new_pid"] not in (None, side["old_pid"])
            assert side["failed"] == 0
            writes = side["writes"]
            assert writes["acknowledged"] > 50
            assert writes["sent"] == writes["acknowledged"] + writes["unknown"]
        assert (ours["writes"]["lost"], ours["writes"]["applied_twice"]) == (0, 0)
        assert theirs["writes"]["lost"] > 0
        assert ours["old_node"] == theirs["old_node"] != ours["new_node"]
        assert (ours["index"], theirs["index"]) == ("warm", "rebuilt")
        assert 0 < ours["gap_s"] < theirs["gap_s"]
        assert one["ratio"] == pytest.approx(theirs["gap_s"] / ours["gap_s"], rel=0.02)
    assert kills[1]["plain_ray"]["new_node"] != kills[1]["plain_ray"]["old_node"]

    lines = done.stderr.splitlines()
    assert all(line.isprintable() and len(line) <= 80 for line in lines)
    assert any("index warm" in line for line in lines)
    assert any("index built anew" in line for line in lines)


@pytest.mark.parametrize("moment", ["Starting a Ray cluster", "none for"])
def test_an_interrupt_ends_the_demo_and_its_cluster(place: Place, moment: str) -> None:
    code, seen, were_running = _interrupted_at(moment, place)
    assert were_running, "the demo had ended before it was interrupted"
    assert code == 130, seen
    assert "Interrupted." in seen
    assert "Traceback" not in seen
    place.assert_nothing_is_left()


def _interrupted_at(moment: str, place: Place) -> tuple[int, str, list[int]]:
    """Run it in a terminal, and press Ctrl-C when the words of the moment are on the screen."""
    pid, terminal = pty.fork()
    if pid == 0:
        command = [*COMMAND, "--kill", "node"]
        os.execve(command[0], command, place.environment)  # noqa: S606 - it needs no shell
    seen, running = "", list[int]()
    with contextlib.suppress(OSError):  # the other end is closed
        while chunk := os.read(terminal, 4096):
            seen += chunk.decode(errors="replace")
            if not running and moment in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen):
                running = place.pids()
                os.write(terminal, b"\x03")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), seen, running
