"""What is a hub, a child, a node, at one moment, as people and programs see it?

Snapshots: they never change, and nothing that is done to them changes the hub. Each prints as one
line in a terminal (`as_text()` gives the whole table) and as a table in a notebook.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, JsonValue

from raphub.core.model import Health, Phase, Role
from raphub.render import Table
from raphub.snapshot import Snapshot, counted, instant, short_id
from raphub.spec import StartedSpec

__all__ = [
    "ChildStatus",
    "Event",
    "Health",
    "HubStatus",
    "NodeStatus",
    "Phase",
    "ReplicaStatus",
    "Role",
    "StartError",
    "StartResult",
    "StopError",
    "StopResult",
    "children_table",
    "events_table",
    "nodes_table",
    "short_id",
]

# --- Replicas, children, nodes, hubs ----------------------------------------------------------


class ReplicaStatus(Snapshot):
    """One copy. `role` is the one that the hub gave it; it serves once it is READY in it.

    `seq` is the position of its last write and `lag` how many writes it is behind; both stay 0
    without replicated state. `pid` is its process on its node, None until that is known. `handle`
    is the raw Ray actor handle; it is neither dumped to JSON nor compared, and calls through it
    are neither retried nor sent on to another copy.
    """

    replica_id: str
    node_id: str
    role: Role
    phase: Phase
    epoch: int
    seq: int = 0
    lag: int = 0
    pid: int | None = None
    handle: Any = Field(default=None, exclude=True, repr=False)

    def __eq__(self, other: object) -> bool:
        """Equal in all but the handle, since each process has handles of its own."""
        if not isinstance(other, ReplicaStatus):
            return NotImplemented
        return self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        """Agrees with equality."""
        return hash((self.replica_id, self.role, self.phase, self.epoch))

    def line(self) -> str:
        """For example `hits#1 active, ready on 3f2a9c01, epoch 1`."""
        return (
            f"{self.replica_id} {self.role}, {self.phase} on {short_id(self.node_id)}, "
            f"epoch {self.epoch}"
        )

    def tables(self) -> list[Table]:
        """One row."""
        return [_replicas_table("", [self])]


class ChildStatus(Snapshot):
    """One child, and how it is.

    `health` says it in one word, `reason` what the child waits for or why it was given up, and is
    None when all is well. `active` is the copy that calls go to, None while there is none (with
    `model="active_active"` it is one of several). `factor` is how many copies are wanted now,
    `in_sync` names the copies that may become active, `colocated` says that two of them share a
    node. `spec` is what it was started with. Not promised: that any of it is still so.
    """

    child_id: str
    health: Health
    active: ReplicaStatus | None = None
    replicas: list[ReplicaStatus] = Field(default_factory=list[ReplicaStatus])
    epoch: int = 0
    factor: int = 1
    in_sync: list[str] = Field(default_factory=list[str])
    metadata: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    spec: StartedSpec | None = None
    reason: str | None = None
    colocated: bool = False

    @property
    def ready(self) -> list[ReplicaStatus]:
        """The copies that are up."""
        return [replica for replica in self.replicas if replica.phase is Phase.READY]

    def line(self) -> str:
        """For example `hits ok: hits#1 active on 3f2a9c01, 2 of 2 copies, epoch 1`."""
        active = self.active
        serving = (
            f"{active.replica_id} active on {short_id(active.node_id)}" if active else "no active"
        )
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"{self.child_id} {self.health}: {serving}, {self._copies()}, epoch {self.epoch}{why}"
        )

    def tables(self) -> list[Table]:
        """One row a copy."""
        title = f"{self.child_id}: {self.health}, {self._copies()}, epoch {self.epoch}"
        notes = [f"Why: {self.reason}"] if self.reason else []
        if self.colocated:
            notes.append("Copies share a node; they part when a node joins.")
        if self.metadata:
            notes.append("Metadata: " + ", ".join(f"{k}={v}" for k, v in self.metadata.items()))
        return [_replicas_table(title, self.replicas, notes)]

    def _copies(self) -> str:
        return f"{len(self.ready)} of {counted(self.factor, 'copy', 'copies')}"


class NodeStatus(Snapshot):
    """One Ray node as the hub sees it. `usable` says whether copies may be placed there.

    `replicas` names the hub's copies on it.
    """

    node_id: str
    address: str = ""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    is_head: bool = False
    usable: bool = True
    replicas: list[str] = Field(default_factory=list[str])

    def line(self) -> str:
        """For example `3f2a9c01 at 10.0.0.7, usable, 12 copies`."""
        where = f" at {self.address}" if self.address else ""
        head = ", the head" if self.is_head else ""
        use = "usable" if self.usable else "not usable"
        copies = counted(len(self.replicas), "copy", "copies")
        return f"{short_id(self.node_id)}{where}{head}, {use}, {copies}"

    def tables(self) -> list[Table]:
        """One row."""
        return [nodes_table([self], title="")]


class HubStatus(Snapshot):
    """A hub: its nodes and its children.

    `incarnation` differs for each start of the hub, `term` grows with each restart of its actor.
    """

    hub_id: str
    incarnation: str = ""
    term: int = 0
    nodes: list[NodeStatus] = Field(default_factory=list[NodeStatus])
    children: list[ChildStatus] = Field(default_factory=list[ChildStatus])
    is_partitioned: bool = False
    is_reconciling: bool = False

    def line(self) -> str:
        """For example `shop: 3 usable nodes, 12 children (11 ok, 1 degraded)`."""
        usable = sum(1 for node in self.nodes if node.usable)
        counts = Counter(child.health.value for child in self.children)
        healths = ", ".join(f"{count} {health}" for health, count in sorted(counts.items()))
        partitioned = ", partitioned" if self.is_partitioned else ""
        return (
            f"{self.hub_id}: {counted(usable, 'usable node')}, "
            f"{counted(len(self.children), 'child', 'children')}"
            f"{f' ({healths})' if healths else ''}{partitioned}"
        )

    def tables(self) -> list[Table]:
        """The children, then the nodes."""
        return [children_table(self.children, title=f"hub {self.line()}"), nodes_table(self.nodes)]


# --- Results ----------------------------------------------------------------------------------


class StartError(NamedTuple):
    """Why a child did not start; `node_id` is where, None when it was on no node in particular."""

    child_id: str
    node_id: str | None
    reason: str


class StopError(NamedTuple):
    """Why a child did not stop."""

    child_id: str
    node_id: str | None
    reason: str


class StartResult(Snapshot):
    """What became of a request to start children.

    `started` has the copies of each child that came up, `errors` what went wrong with the others;
    `status` is `"error"` if anything did. With `on_failure="rollback"` all are then stopped again,
    `rolled_back` is True and `started` is empty.
    """

    status: Literal["ok", "error"]
    started: dict[str, list[ReplicaStatus]] = Field(default_factory=dict[str, list[ReplicaStatus]])
    errors: list[StartError] = Field(default_factory=list[StartError])
    rolled_back: bool = False

    @property
    def ok(self) -> bool:
        """Did everything start?"""
        return self.status == "ok"

    @property
    def ids(self) -> list[str]:
        """The children that started."""
        return list(self.started)

    @property
    def first(self) -> tuple[str, list[ReplicaStatus]] | None:
        """The first child that started, and its copies; None if there is none."""
        return next(iter(self.started.items()), None)

    def nodes(self) -> list[str]:
        """The ids of the nodes that copies were started on, each once."""
        copies = (copy for copies in self.started.values() for copy in copies)
        return list(dict.fromkeys(copy.node_id for copy in copies))

    def line(self) -> str:
        """For example `ok: 2 children on 3 nodes`."""
        back = ", all rolled back" if self.rolled_back else ""
        wrong = f", {counted(len(self.errors), 'error')}" if self.errors else ""
        return (
            f"{self.status}: {counted(len(self.started), 'child', 'children')} "
            f"on {counted(len(self.nodes()), 'node')}{wrong}{back}"
        )

    def tables(self) -> list[Table]:
        """The copies that started, then the errors, if any."""
        copies = [copy for copies in self.started.values() for copy in copies]
        started = _replicas_table(self.line(), copies)
        return [started, _errors_table(self.errors)] if self.errors else [started]


MoveEnd = Literal["done", "waiting", "failed"]


class MoveError(NamedTuple):
    """Why something is still where it was."""

    child_id: str
    node_id: str | None
    reason: str


class MoveResult(Snapshot):
    """What became of a planned move.

    `"done"`; `"waiting"`: copies are `left` for which no node has room, and they go as soon as one
    has; `"failed"`: what was asked for did not happen, and the child serves as before.
    """

    status: MoveEnd
    left: list[str] = Field(default_factory=list[str])
    errors: list[MoveError] = Field(default_factory=list[MoveError])

    @property
    def ok(self) -> bool:
        """Is everything where it was to be?"""
        return self.status == "done"

    def line(self) -> str:
        """For example `done` or `waiting: 2 copies are left`."""
        left = f": {counted(len(self.left), 'copy is', 'copies are')} left" if self.left else ""
        return f"{self.status}{left}"

    def tables(self) -> list[Table]:
        """What is left, and why."""
        rows = tuple((e.child_id, e.node_id or "", e.reason) for e in self.errors)
        return [Table(self.line(), ("child", "node", "why"), rows, empty="Nothing is left.")]


class StopResult(Snapshot):
    """What became of a request to stop children: those stopped, and what went wrong."""

    status: Literal["ok", "error"]
    stopped: list[str] = Field(default_factory=list[str])
    errors: list[StopError] = Field(default_factory=list[StopError])

    @property
    def ok(self) -> bool:
        """Did everything stop?"""
        return self.status == "ok"

    @property
    def ids(self) -> list[str]:
        """The children that stopped."""
        return list(self.stopped)

    @property
    def first(self) -> str | None:
        """The first child that stopped; None if there is none."""
        return self.stopped[0] if self.stopped else None

    def line(self) -> str:
        """For example `ok: 2 children stopped`."""
        wrong = f", {counted(len(self.errors), 'error')}" if self.errors else ""
        return f"{self.status}: {counted(len(self.stopped), 'child', 'children')} stopped{wrong}"

    def tables(self) -> list[Table]:
        """The children that stopped, then the errors, if any."""
        rows = tuple((child_id,) for child_id in self.stopped)
        stopped = Table(self.line(), ("child",), rows, empty="No child was stopped.")
        return [stopped, _errors_table(self.errors)] if self.errors else [stopped]


class Event(Snapshot):
    """Something that happened in a hub. `time_s` is Unix time, on the hub actor's clock.

    `index` counts the hub's events; `text` tells the story, `data` has more of it for programs.
    Not promised: that events are kept for ever (`events_max`), or that a restart of the hub actor
    keeps them.
    """

    index: int
    time_s: float
    kind: str
    child_id: str | None = None
    replica_id: str | None = None
    node_id: str | None = None
    text: str = ""
    data: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])

    def line(self) -> str:
        """For example `2026-11-24 08:26:01.123Z promoted hits#2: the old active is gone`."""
        where = self.replica_id or self.child_id or short_id(self.node_id or "")
        told = f"{self.kind} {where}".rstrip()
        return f"{instant(self.time_s)} {told}{f': {self.text}' if self.text else ''}"

    def tables(self) -> list[Table]:
        """One row."""
        return [events_table([self], title="")]


# --- Tables -----------------------------------------------------------------------------------


def children_table(children: Sequence[ChildStatus], title: str = "children") -> Table:
    """One row a child: its health, its copies, which one serves and where, and why not."""
    rows = tuple(
        (
            child.child_id,
            child.health.value,
            f"{len(child.ready)}/{child.factor}",
            child.active.replica_id.rpartition("#")[2] if child.active else "none",
            short_id(child.active.node_id) if child.active else "",
            str(child.epoch),
            child.reason or "",
        )
        for child in children
    )
    columns = ("child", "health", "copies", "active", "node", "epoch", "why")
    empty = "There are no children yet: start one with hub.start_child(raphub.ChildSpec(...))."
    return Table(title, columns, rows, empty=empty)


def nodes_table(nodes: Sequence[NodeStatus], title: str = "nodes") -> Table:
    """One row a node: where it is, whether copies may be placed on it, and how many are."""
    rows = tuple(
        (
            short_id(node.node_id),
            node.address,
            "yes" if node.usable else "no",
            "yes" if node.is_head else "",
            str(len(node.replicas)),
            _labels(node.labels),
        )
        for node in nodes
    )
    columns = ("node", "address", "usable", "head", "copies", "labels")
    empty = "The hub sees no nodes: is Ray running, and does its label_selector fit?"
    return Table(title, columns, rows, empty=empty)


def events_table(events: Sequence[Event], title: str = "events") -> Table:
    """One row an event, in the given order."""
    rows = tuple(
        (
            instant(event.time_s),
            event.kind,
            event.replica_id or event.child_id or "",
            short_id(event.node_id or ""),
            event.text,
        )
        for event in events
    )
    columns = ("time", "event", "of", "node", "what")
    return Table(title, columns, rows, empty="Nothing has happened yet.")


def _replicas_table(
    title: str, replicas: Sequence[ReplicaStatus], notes: Iterable[str] = ()
) -> Table:
    rows = tuple(
        (
            replica.replica_id,
            replica.role.value,
            replica.phase.value,
            short_id(replica.node_id),
            str(replica.epoch),
            str(replica.lag),
            "" if replica.pid is None else str(replica.pid),
        )
        for replica in replicas
    )
    columns = ("replica", "role", "phase", "node", "epoch", "lag", "pid")
    return Table(title, columns, rows, tuple(notes), empty="There are no copies.")


def _errors_table(errors: Sequence[StartError | StopError]) -> Table:
    rows = tuple(
        (error.child_id, short_id(error.node_id or ""), _gist(error.reason)) for error in errors
    )
    return Table("errors", ("child", "node", "reason"), rows)


def _gist(reason: str) -> str:
    """The line of a traceback that says what was raised; it is the last one."""
    lines = [line for line in reason.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _labels(labels: dict[str, str]) -> str:
    """The labels that people set: Ray's own repeat the node's id and hardware."""
    return ", ".join(
        f"{key}={value}" for key, value in labels.items() if not key.startswith("ray.io/")
    )
