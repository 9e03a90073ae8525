"""How tests wait: for what the hub says, never for time to pass."""

from __future__ import annotations

from collections.abc import Callable

import raphub
from raphub.status import ChildStatus, Phase, Role

LIMIT_S = 60


def until_ok(hub: raphub.Hub, child_id: str, limit_s: float = LIMIT_S) -> ChildStatus:
    """Wait until the child has all its copies, each with its role."""
    return hub.get(child_id).wait_ready(limit_s)


def until(hub: raphub.Hub, child_id: str, is_met: Callable[[ChildStatus], bool]) -> ChildStatus:
    """Wait until the child's status meets the condition; a failed wait shows the last status."""

    def met(asked: raphub.Hub) -> bool:
        status = asked.lookup(child_id)
        return status is not None and is_met(status)

    assert hub.wait_for(met, LIMIT_S), f"waited in vain; last seen: {hub.lookup(child_id)}"
    status = hub.lookup(child_id)
    assert status is not None
    return status


def until_replaced(hub: raphub.Hub, child_id: str, replica_id: str) -> ChildStatus:
    """Wait until the copy is out and the child is whole again."""
    return until(
        hub,
        child_id,
        lambda s: s.health == "ok" and replica_id not in {r.replica_id for r in s.replicas},
    )


def until_event(hub: raphub.Hub, kind: str, child_id: str | None = None) -> raphub.Event:
    """Wait until the hub's history has an event of this kind."""
    found: list[raphub.Event] = []

    def seen(asked: raphub.Hub) -> bool:
        found.extend(e for e in asked.events(child_id=child_id) if e.kind == kind)
        return bool(found)

    assert hub.wait_for(seen, LIMIT_S), [event.line() for event in hub.events()]
    return found[0]


def actives(status: ChildStatus) -> list[str]:
    """The copies with the active role."""
    return [r.replica_id for r in status.replicas if r.role is Role.ACTIVE]


def nodes(status: ChildStatus) -> set[str]:
    """The nodes of the copies that are ready."""
    return {r.node_id for r in status.replicas if r.phase is Phase.READY}
