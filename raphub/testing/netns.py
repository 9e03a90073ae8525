"""How does a node of a test cluster get a network of its own, whose link can be cut?

One network namespace a node, each joined by a pair of virtual interfaces to one bridge, all in
10.77.0.0/24. The driver and the head stay outside, at the bridge's address. A link is cut as one
pulls a cable out of a switch: its interface leaves the bridge, both ends stay up, and what is sent
goes nowhere, in both directions. Needs root and Debian's `iproute2`.

Everything is named after the owner's process id, so that what a killed test has left can be told
from what is in use. One cluster of this kind can run on a machine at a time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from pathlib import Path

from raphub.testing import processes

BRIDGE_ADDRESS = "10.77.0.254"
BRIDGE = "raphub-br"
BRIDGE_MAC = "02:72:61:70:68:62"
"""Fixed: otherwise the bridge takes a member's, and changes it when that one leaves."""
_NAMESPACES = Path("/run/netns")
_hosts = itertools.count(1)


def why_not() -> str | None:
    """Why namespaces cannot be used here, or None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command ip is missing (apt-get install iproute2)"
    probe = f"raphub-{os.getpid()}-probe"
    try:
        _run("ip", "netns", "add", probe)
        _run("ip", "netns", "del", probe)
        if not Path("/sys/class/net", BRIDGE).exists():
            _run("ip", "link", "add", BRIDGE, "type", "bridge")
            _run("ip", "link", "del", BRIDGE)
    except RuntimeError as error:
        return f"this machine does not allow them: {error}"
    return None


def remove_all_of(pid: int) -> None:
    """Remove the namespaces that the process has made, and the bridge with them, if any."""
    names = [name for name, owner in _owners() if owner == pid]
    for name in names:
        subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)
    if names:
        subprocess.run(("ip", "link", "del", BRIDGE), check=False, capture_output=True)


def _owners() -> list[tuple[str, int]]:
    """Our namespaces on this machine, each with the process that has made it."""
    names = [path.name.split("-") for path in _NAMESPACES.glob("raphub-*-*")]
    return [("-".join(parts), int(parts[1])) for parts in names if parts[1].isdigit()]


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
        for name, owner in _owners():
            if processes.is_running(owner):
                raise RuntimeError(f'isolation="netns": process {owner} uses it now ({name})')
            remove_all_of(owner)
        self._links: dict[str, str] = {}
        with contextlib.suppress(RuntimeError):
            _run("ip", "link", "del", BRIDGE)
        _run("ip", "link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge")
        _run("ip", "addr", "add", f"{BRIDGE_ADDRESS}/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")

    def add(self) -> tuple[str, str]:
        """A new namespace on the bridge: its name and its address."""
        host = next(_hosts)
        name, address = f"raphub-{os.getpid()}-{host}", f"10.77.0.{host}"
        outer, inner = f"rhub{host}", f"rhub{host}i"
        _run("ip", "netns", "add", name)
        self._links[name] = outer
        _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
        _run("ip", "link", "set", outer, "master", BRIDGE, "up")
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
        _run("ip", "link", "set", self._links[name], "master", BRIDGE)

    def close(self) -> None:
        """Remove every namespace and the bridge."""
        for name, outer in self._links.items():
            # The namespace lives as long as a process in it, and its link with it: not so this end.
            subprocess.run(("ip", "link", "del", outer), check=False, capture_output=True)
            subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)
        self._links.clear()
        subprocess.run(("ip", "link", "del", BRIDGE), check=False, capture_output=True)
