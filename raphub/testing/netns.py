"""How does a node of a test cluster get a network of its own, whose link can be cut?

One network namespace a node, each joined by a pair of virtual interfaces to one bridge, all in
10.77.0.0/24. The driver and the head stay outside, at the bridge's address. A link is cut as one
pulls a cable out of a switch: its interface leaves the bridge, both ends stay up, and what is sent
goes nowhere, in both directions. Needs root and Debian's `iproute2`.

Everything is named after the owner's process id, the bridge too, so that what a killed test has left
can be told from what is in use, from the first moment on. One cluster of this kind can run on a machine
at a time, for they would share their addresses: a second one is refused and leaves the first whole.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path

from raphub.testing import processes

BRIDGE_ADDRESS = "10.77.0.254"
BRIDGE_MAC = "02:72:61:70:68:62"
"""Fixed: otherwise the bridge takes a member's, and changes it when that one leaves."""
_NAMESPACES = Path("/run/netns")
_INTERFACES = Path("/sys/class/net")
_hosts = itertools.count(1)


def why_not() -> str | None:
    """Why namespaces cannot be used here, or None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command ip is missing (apt-get install iproute2)"
    # Not a name of ours: this runs wherever tests are collected, beside clusters in use.
    probe = f"rhprobe{os.getpid()}"
    try:
        _run("ip", "netns", "add", probe)
        _run("ip", "netns", "del", probe)
        _run("ip", "link", "add", probe, "type", "bridge")
        _run("ip", "link", "del", probe)
    except RuntimeError as error:
        return f"this machine does not allow them: {error}"
    return None


def names_of(pid: int) -> list[str]:
    """The namespaces and the bridge that the process has made and that are there still."""
    return [name for name, owner in _owners() if owner == pid]


def remove_all_of(pid: int) -> None:
    """Remove the namespaces and the bridge that the process has made, and nobody else's."""
    for name in names_of(pid):
        kind = "link" if name == _bridge_name(pid) else "netns"
        subprocess.run(("ip", kind, "del", name), check=False, capture_output=True)


def _bridge_name(pid: int) -> str:
    """At most 14 bytes, and the kernel allows 15: process ids have up to seven digits."""
    return f"raphub-{pid}"


def _owners() -> list[tuple[str, int]]:
    """Our namespaces and bridges on this machine, each with the process that has made it."""
    paths = [*_NAMESPACES.glob("raphub-*-*"), *_INTERFACES.glob("raphub-*")]
    named = [(path.name, path.name.split("-")[1]) for path in paths]
    return [(name, int(owner)) for name, owner in named if owner.isdigit()]


def _refuse_in_use(name: str, owner: int) -> None:
    if processes.is_running(owner):
        raise RuntimeError(
            f'isolation="netns": process {owner} uses it now ({name}), and one cluster of this kind '
            "can run at a time: wait until it ends"
        )


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


class Bridge:
    """The bridge and the namespaces on it; `close` removes them all."""

    def __init__(self) -> None:
        """Raises `RuntimeError` saying why, if namespaces cannot be used here."""
        reason = why_not()
        if reason is not None:
            raise RuntimeError(f'isolation="netns" cannot be used: {reason}')
        self._links: dict[str, str] = {}
        self._name = _bridge_name(os.getpid())
        for name, owner in _owners():
            _refuse_in_use(name, owner)
            remove_all_of(owner)
        _run("ip", "link", "add", self._name, "address", BRIDGE_MAC, "type", "bridge")
        try:
            _run("ip", "addr", "add", f"{BRIDGE_ADDRESS}/24", "dev", self._name)
            _run("ip", "link", "set", self._name, "up")
            # Another process may have looked when we did, and found nobody as well.
            for name, owner in _owners():
                if name != self._name:
                    _refuse_in_use(name, owner)
        except RuntimeError:
            self.close()
            raise

    def add(self) -> tuple[str, str]:
        """A new namespace on the bridge: its name and its address."""
        host = next(_hosts)
        name, address = f"raphub-{os.getpid()}-{host}", f"10.77.0.{host}"
        outer, inner = f"rh{os.getpid()}-{host}", "rhub"
        _run("ip", "netns", "add", name)
        self._links[name] = outer
        _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
        _run("ip", "link", "set", outer, "master", self._name, "up")
        for command in (
            ("addr", "add", f"{address}/24", "dev", inner),
            ("link", "set", inner, "up"),
            ("link", "set", "lo", "up"),
        ):
            _run("ip", "-n", name, *command)
        return name, address

    def cut(self, name: str) -> None:
        """Let nothing arrive or leave any more; what is inside goes on."""
        _run("ip", "link", "set", self._links[name], "nomaster")

    def heal(self, name: str) -> None:
        """Let everything through again."""
        _run("ip", "link", "set", self._links[name], "master", self._name)

    def close(self) -> None:
        """Remove every namespace and the bridge."""
        for name, outer in self._links.items():
            # The namespace lives as long as a process in it, and its link with it: not so this end.
            subprocess.run(("ip", "link", "del", outer), check=False, capture_output=True)
            subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)
        self._links.clear()
        subprocess.run(("ip", "link", "del", self._name), check=False, capture_output=True)
