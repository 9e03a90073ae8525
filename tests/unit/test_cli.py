"""The command line before it needs a cluster: its help, its usage errors, and how it fails."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

import raphub

HELP = """\
Usage: raphub [OPTIONS] COMMAND [ARGS]...

  Warm replicated Ray actors: a copy takes over where the last one stopped.

Options:
  --version    Print the version and exit.
  --traceback  After an error, also show where it was raised.
  --help       Show this message and exit.

Commands:
  demo    Kill what serves, while it is written to and beside plain Ray,...
  status  Show a hub: its children, who serves and where, and its nodes.
  stop    Stop a hub: every child of it, every copy, and the hub itself.

  Begin with `raphub demo`: it needs no Ray cluster.
"""

REFUSED = """\
Error: the Ray cluster at 127.0.0.1:{port} cannot be reached: [Errno 111] Connection refused
Hint: Check the address; `ray status` shows it on a node of the cluster.
"""


def raphub_command(
    *arguments: str, before: str = "", after: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, at 80 columns and without a cluster to find."""
    script = (
        f"{before}\ntry:\n    from raphub.cli import main; main()\nfinally:\n    {after or 'pass'}"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"COLUMNS": "80", "PATH": "", "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def outcome(*arguments: str) -> tuple[int, str, str]:
    done = raphub_command(*arguments)
    return done.returncode, done.stdout, done.stderr


def test_help_says_what_there_is() -> None:
    assert outcome("--help") == (0, HELP, "")


def test_help_imports_nothing_slow() -> None:
    done = raphub_command(
        "--help",
        after="import sys; print([m for m in ('ray', 'pydantic', 'rich') if m in sys.modules])",
    )
    assert (done.stdout, done.stderr) == (HELP + "[]\n", "")


def test_help_is_there_at_once() -> None:
    fastest_s = min(_time_of_help_s() for _ in range(3))
    assert fastest_s < 0.5


def _time_of_help_s() -> float:
    began_at_s = time.monotonic()
    raphub_command("--help")
    return time.monotonic() - began_at_s


def test_version() -> None:
    assert outcome("--version") == (0, f"raphub {raphub.__version__}\n", "")


def test_no_command_is_answered_with_the_help_and_is_an_error() -> None:
    code, stdout, stderr = outcome()
    assert (code, (stdout + stderr).strip()) == (2, HELP.strip())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["no-such-command"], "no-such-command"),
        (["demo", "--kill", "moon"], "moon"),
        (["demo", "--nodes", "1"], "--nodes"),
        (["demo", "--nodes", "many"], "--nodes"),
        (["stop"], "HUB"),
        (["status", "one", "two"], "two"),
        (["status", "--address", "nonsense"], "nonsense"),
        (["status", "--address", "host:port"], "host:port"),
    ],
)
def test_usage_errors_name_what_is_wrong_on_stderr(arguments: list[str], named: str) -> None:
    code, stdout, stderr = outcome(*arguments)
    assert (code, stdout) == (2, "")
    assert named in stderr
    assert stderr.startswith("Usage: raphub ")
    assert "Traceback" not in stderr


def test_an_address_where_nobody_listens_fails_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        code, stdout, stderr = outcome("status", "--address", f"127.0.0.1:{port}")
    assert (code, stdout, stderr) == (1, "", REFUSED.format(port=port))


def test_an_address_where_something_else_listens_fails_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        began_at_s = time.monotonic()
        code, stdout, stderr = outcome("stop", "shop", "--address", address)
        took_s = time.monotonic() - began_at_s
    assert (code, stdout) == (1, "")
    assert f"Error: the Ray cluster at {address} cannot be reached" in stderr
    assert "Traceback" not in stderr
    assert took_s < 20


TOLD = """\
Error: an unexpected LookupError: a bug
Hint: `raphub --traceback ...` shows where it was raised.
"""
BROKEN = (
    "import raphub.cli, contextlib\n"
    "def broken(address): raise LookupError('a bug\\nof ours')\n"
    "raphub.cli._connected = broken"
)


def test_a_bug_is_told_as_a_sentence() -> None:
    done = raphub_command("status", before=BROKEN)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", TOLD)


def test_a_traceback_is_there_for_who_asks_for_it() -> None:
    done = raphub_command("--traceback", "status", before=BROKEN)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "Error: an unexpected LookupError: a bug\n" in done.stderr
