"""How are copies moved on purpose: a child's active, one copy, or all copies of a node?

Everything here asks the hub and returns the future result at once.
"""

from __future__ import annotations

from collections.abc import Callable

from raphub.actors.encoding import unpack
from raphub.control import REGISTRY_PATIENCE_S, Control, Request
from raphub.core.messages import (
    DrainRequested,
    MigrationRequested,
    PauseRequested,
    SwitchoverRequested,
)
from raphub.core.model import ChildId, NodeId, ReplicaId
from raphub.core.records import MoveAnswer, Trouble
from raphub.core.views import ReplicaView
from raphub.errors import (
    ChildNotFound,
    DrainTimeout,
    HubBusy,
    InvalidSetting,
    NoQuorum,
    NotEnoughInSync,
    NotEnoughNodes,
    RaphubError,
)
from raphub.registry_view import RegistryView
from raphub.status import MoveEnd, MoveError, MoveResult

SHOWN_MAX = 6


def switchover(
    control: Control, view: RegistryView, child_id: str, to: str | None
) -> Request[MoveResult]:
    """See `Hub.switchover`."""
    node_id = None if to is None else find_node(view, to)
    before = _active_of(view, child_id)

    def is_shown() -> bool:
        active = _active_of(view, child_id)
        if active is None:
            return False
        return active.node_id == node_id or before is None or active.replica != before.replica

    return control.ask(
        lambda request: SwitchoverRequested(request, ChildId(child_id), node_id),
        f"the switchover of {child_id}",
        _Reader(control, view, is_shown).moved,
    )


def migrate(
    control: Control, view: RegistryView, replica_id: str, to: str | None
) -> Request[MoveResult]:
    """See `Hub.migrate`."""
    if "#" not in replica_id:
        raise InvalidSetting(
            f"{replica_id!r} names no copy: copies are named like 'counter#2'.",
            field="replica_id",
            hint="`hub.lookup(child_id).replicas` lists a child's copies.",
        )
    node_id = None if to is None else find_node(view, to)
    child_id = replica_id.rpartition("#")[0]

    def is_shown() -> bool:
        known = view.known(child_id)
        return known is None or all(c.replica != replica_id for c in known.view.replicas)

    return control.ask(
        lambda request: MigrationRequested(request, ReplicaId(replica_id), node_id),
        f"the migration of {replica_id}",
        _Reader(control, view, is_shown).moved,
    )


def drain(
    control: Control, view: RegistryView, node: str, deadline_s: float, *, is_undone: bool = False
) -> Request[MoveResult]:
    """See `Hub.drain`."""
    if not deadline_s >= 0:
        raise InvalidSetting(
            f"deadline_s should be a number of seconds from 0, not {deadline_s!r}.",
            field="deadline_s",
        )
    node_id = find_node(view, node)

    def is_shown() -> bool:
        return is_undone or not any(n.replicas for n in view.nodes() if n.node_id == node_id)

    return control.ask(
        lambda request: DrainRequested(request, node_id, float(deadline_s), is_undone),
        f"the drain of {node_id}",
        _Reader(control, view, is_shown).drained,
    )


def pause(control: Control, view: RegistryView, *, is_paused: bool) -> Request[MoveResult]:
    """See `Hub.pause`."""
    words = "the pause" if is_paused else "the end of the pause"
    return control.ask(
        lambda request: PauseRequested(request, is_paused),
        words,
        _Reader(control, view, lambda: True).moved,
    )


def find_node(view: RegistryView, name: str) -> NodeId:
    """The node of this id, of an id that only it begins with, or of this address.

    Raises `InvalidSetting` if there is none, or more than one.
    """
    nodes = view.nodes()
    found = [node for node in nodes if name in (node.node_id, node.address)]
    found = found or [node for node in nodes if name and node.node_id.startswith(name)]
    if len(found) == 1:
        return NodeId(found[0].node_id)
    known = ", ".join(f"{node.node_id[:12]} ({node.address})" for node in nodes[:SHOWN_MAX])
    what = f"{len(found)} nodes are" if found else "no node of this cluster is"
    raise InvalidSetting(
        f"{what} called {name!r}.",
        field="node",
        hint=f"Name it by its id, the beginning of it, or its address. There are: {known}.",
    )


def _active_of(view: RegistryView, child_id: str) -> ReplicaView | None:
    known = view.known(child_id)
    replicas = () if known is None else known.view.replicas
    return next((c for c in replicas if known and c.replica == known.view.active), None)


class _Reader:
    """What the hub's answer to a move comes to."""

    def __init__(self, control: Control, view: RegistryView, is_shown: Callable[[], bool]) -> None:
        """`is_shown` says whether the pushed registry shows what was asked for."""
        self._control = control
        self._view = view
        self._hub_id = view.hub_id
        self._is_shown = is_shown

    def moved(self, packed: bytes) -> MoveResult:
        answer = unpack(packed)
        self._control.raise_if_refused(answer)
        assert isinstance(answer, MoveAnswer)
        for trouble in answer.troubles:
            if not answer.left and trouble.kind != "move_failed":
                raise self._error(trouble)
        is_waiting = answer.left and all(t.kind == "no_room" for t in answer.troubles)
        if is_waiting:
            status: MoveEnd = "waiting"
        else:
            status = "failed" if answer.troubles else "done"
        if status == "done":
            self._view.wait(self._is_shown, REGISTRY_PATIENCE_S)
        errors = [MoveError(t.child_id, t.node_id, t.reason) for t in answer.troubles]
        return MoveResult(status=status, left=list(answer.left), errors=errors)

    def drained(self, packed: bytes) -> MoveResult:
        result = self.moved(packed)
        if result.status == "failed":
            raise DrainTimeout(
                f"{len(result.left)} copies are still there: {result.errors[0].reason}.",
                hub_id=self._hub_id,
            )
        return result

    def _error(self, trouble: Trouble) -> RaphubError:
        told = f"{trouble.reason}."
        where = {"hub_id": self._hub_id, "child_id": trouble.child_id or None}
        match trouble.kind:
            case "not_found":
                return ChildNotFound(told, **where)
            case "busy":
                return HubBusy(told, hint="Wait until that is over, then ask again.", **where)
            case "no_quorum":
                return NoQuorum(told, **where)
            case "no_room":
                return NotEnoughNodes(told, **where)
            case "no_heir":
                return NotEnoughInSync(
                    told, hint="Wait until the child is whole: `handle.wait_ready()`.", **where
                )
            case _:
                return InvalidSetting(told, field="move", **where)
