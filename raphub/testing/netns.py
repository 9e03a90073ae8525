"""How does a node of a test cluster get a network of its own, whose link can be cut?

One network namespace a node, each joined by a pair of virtual interfaces to one bridge, all in
10.77.0.0/24. The driver and the head stay outside, at the bridge's address. Needs root and
Debian's `iproute2` and `iptables`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess

BRIDGE_ADDRESS = "10.77.0.254"
BRIDGE = "raphub-br"
_hosts = itertools.count(1)


def why_not() -> str | None:
    """Why namespaces cannot be used here, or None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "iptables") if shutil.which(tool) is None]
    return (
        f"missing commands: {', '.join(missing)} (apt-get install iproute2 iptables)"
        if missing
        else None
    )


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Bridge:
    """The bridge and the namespaces on it; `close` removes them all."""

    def __init__(self) -> None:
        """Raises `RuntimeError` saying why, if namespaces cannot be used here."""
        reason = why_not()
        if reason is not None:
            raise RuntimeError(f'isolation="netns" cannot be used: {reason}')
        self._names: list[str] = []
        subprocess.run(("ip", "link", "del", BRIDGE), check=False, capture_output=True)
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "addr", "add", f"{BRIDGE_ADDRESS}/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")

    def add(self) -> tuple[str, str]:
        """A new namespace on the bridge: its name and its address."""
        host = next(_hosts)
        name, address = f"raphub-{os.getpid()}-{host}", f"10.77.0.{host}"
        outer, inner = f"rhub{host}", f"rhub{host}i"
        _run("ip", "netns", "add", name)
        self._names.append(name)
        subprocess.run(("ip", "link", "del", outer), check=False, capture_output=True)
        _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
        _run("ip", "link", "set", outer, "master", BRIDGE, "up")
        _run("ip", "link", "set", inner, "netns", name)
        for command in (
            ("addr", "add", f"{address}/24", "dev", inner),
            ("link", "set", inner, "up"),
            ("link", "set", "lo", "up"),
        ):
            _run("ip", "netns", "exec", name, "ip", *command)
        return name, address

    def cut(self, name: str) -> None:
        """Drop all that arrives from outside the namespace; what is inside goes on."""
        rule = ("iptables", "-A", "INPUT", "!", "-i", "lo", "-j", "DROP")
        _run("ip", "netns", "exec", name, *rule)

    def heal(self, name: str) -> None:
        """Let everything arrive again."""
        _run("ip", "netns", "exec", name, "iptables", "-F", "INPUT")

    def close(self) -> None:
        """Remove every namespace and the bridge."""
        for name in self._names:
            subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)
        subprocess.run(("ip", "link", "del", BRIDGE), check=False, capture_output=True)
