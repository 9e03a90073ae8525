"""What are the things that raphub reasons about?

The nouns of the core: nodes, children, replicas, and the settings that bound every decision.
All times are seconds on the clock of whoever holds the value; none of them is comparable
between two processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from raphub.core.quorum import Rule

NodeId = NewType("NodeId", str)
ChildId = NewType("ChildId", str)
ReplicaId = NewType("ReplicaId", str)
Address = tuple[str, int]


class Role(StrEnum):
    """What a replica is asked to be: ACTIVE serves, PASSIVE stands by."""

    ACTIVE = "active"
    PASSIVE = "passive"


class Phase(StrEnum):
    """Where a replica is in its life."""

    STARTING = "starting"
    BUILDING = "building"
    READY = "ready"
    STOPPING = "stopping"


class Health(StrEnum):
    """How a child is, in one word."""

    OK = "ok"
    DEGRADED = "degraded"
    STARTING = "starting"
    NO_ACTIVE = "no_active"
    LOST = "lost"
    STOPPED = "stopped"


class Model(StrEnum):
    """Who serves: one copy, or all of them."""

    ACTIVE_PASSIVE = "active_passive"
    ACTIVE_ACTIVE = "active_active"


class Signal(StrEnum):
    """Which roles are told to the user's object through `on_role_change`."""

    ALL = "all"
    ACTIVE = "active"
    PASSIVE = "passive"
    NONE = "none"

    def tells(self, role: Role) -> bool:
        """Is `role` told to the user's object?"""
        return self is Signal.ALL or self.value == role.value


class Spread(StrEnum):
    """May two copies share a node when there are fewer nodes than copies?"""

    PREFERRED = "preferred"
    STRICT = "strict"


class State(StrEnum):
    """How the state of a child's copies is kept the same."""

    NONE = "none"
    SNAPSHOT = "snapshot"
    LOG = "log"


class Acks(StrEnum):
    """When is a write answered: when all in-sync copies have it, or when the active has?"""

    IN_SYNC = "in_sync"
    ACTIVE = "active"


class OnDataLoss(StrEnum):
    """What follows when no copy that holds the state is left?"""

    STOP = "stop"
    RESTART_EMPTY = "restart_empty"


class DeathProof(StrEnum):
    """What counts as proof that a process is gone, besides an expired lease."""

    PORT = "port"
    LEASE = "lease"


class DistributionKind(StrEnum):
    """How is a node chosen for a copy?"""

    CONSISTENT_HASHING = "consistent_hashing"
    GUIDED = "guided"
    LEAST_LOADED = "least_loaded"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a hub's copies are distributed.

    `mapping` is for GUIDED: the nodes of each child, by id or address, the first copy's first. `cls`
    and `settings` are for CUSTOM: the strategy's class as `module:Class`, and its settings as JSON.
    """

    kind: DistributionKind = DistributionKind.CONSISTENT_HASHING
    mapping: dict[ChildId, tuple[str, ...]] = field(default_factory=dict)
    cls: str = ""
    settings: str = "{}"

    @property
    def has_loads(self) -> bool:
        """Does it go by what is free on the nodes?"""
        return self.kind in (DistributionKind.LEAST_LOADED, DistributionKind.CUSTOM)


@dataclass(frozen=True, slots=True)
class Node:
    """One Ray node as the hub last saw it. `port` is where its raylet listens, 0 if unknown."""

    node_id: NodeId
    address: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    resources: dict[str, float] = field(default_factory=dict)
    is_head: bool = False
    port: int = 0


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """What the hub needs to know of a child's specification; the rest is opaque to it.

    `factor` is None for one copy per usable node. `payload` carries the class and its arguments
    as bytes that only replicas read; `options` carries what the shell passes on to Ray, as text.
    `job_id` is set when the child ends with the job that made it. `read_only` names the methods
    that change no state.
    """

    child_id: ChildId
    factor: int | None = 2
    model: Model = Model.ACTIVE_PASSIVE
    signal: Signal = Signal.ALL
    spread: Spread = Spread.PREFERRED
    zone_label: str | None = None
    label_selector: dict[str, str] = field(default_factory=dict)
    resources: dict[str, float] = field(default_factory=dict)
    job_id: str | None = None
    state: State = State.NONE
    acks: Acks = Acks.IN_SYNC
    min_in_sync: int = 1
    max_lag_writes: int = 1000
    start_grace_s: float = 10.0
    read_only: tuple[str, ...] = ()
    on_data_loss: OnDataLoss = OnDataLoss.STOP
    options: str = "{}"
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class HubSettings:
    """The bounds of every loop, queue, retry and wait of one hub. Times in seconds.

    Without a rule of `partition_tolerance`, the hub goes on with whatever nodes are left.
    """

    lease_duration_s: float = 3.0
    lease_renewal_s: float = 0.5
    clock_drift_max: float = 0.01
    term_check_s: float = 1.0
    role_deadline_s: float = 5.0
    placement_deadline_s: float = 20.0
    build_deadline_s: float = 600.0
    dial_retry_s: float = 0.2
    dial_timeout_s: float = 1.0
    crash_backoff_s: float = 0.2
    crash_backoff_max_s: float = 10.0
    crash_limit: int = 8
    crash_forgiven_s: float = 30.0
    replicas_starting_max: int = 16
    answers_max: int = 1000
    requests_waiting_max: int = 1000
    tombstones_max: int = 1000
    distrust_node_fraction: float = 0.5
    pause_suspected_s: float = 1.0
    ack_timeout_s: float = 0.5
    read_staleness_s: float = 2.0
    unapplied_max: int = 10_000
    log_bytes_max: int = 64 * 1024 * 1024
    clients_max: int = 10_000
    answers_per_client_max: int = 10_000
    answer_bytes_max: int = 1024 * 1024
    death_proof: DeathProof = DeathProof.PORT
    label_selector: dict[str, str] = field(default_factory=dict)
    partition_tolerance: Rule | None = None
    distribution: Distribution = Distribution()

    @property
    def lease_certain_s(self) -> float:
        """How long after answering a renewal the hub must wait to be certain that it ran out.

        The holder's clock may be slow and the hub's fast, each by `clock_drift_max`.
        """
        return self.lease_duration_s * (1 + self.clock_drift_max) / (1 - self.clock_drift_max)


def replica_id(child_id: ChildId, number: int) -> ReplicaId:
    """The name of the copy of `child_id` that was counted as `number`."""
    return ReplicaId(f"{child_id}#{number}")


def split_replica_id(replica: ReplicaId) -> tuple[ChildId, int]:
    """The child and the number that `replica_id` put together."""
    child, _, number = replica.rpartition("#")
    return ChildId(child), int(number)
