"""What is a copy told when it is created?"""

from __future__ import annotations

from dataclasses import dataclass

from raphub.core.holding import StateBounds
from raphub.core.model import Acks, ReplicaId, Signal, State
from raphub.core.replica_machine import ReplicaMachine
from raphub.core.replication import Replication

SLOW_PER_LEASE = 3
"""A shipment that takes longer than this share of a lease is told to the hub."""


@dataclass(frozen=True, slots=True)
class ReplicaOrders:
    """All that the hub tells a copy. Times in seconds, sizes in bytes."""

    hub_id: str
    incarnation: str
    child_id: str
    replica_id: str
    node_id: str
    secret: bytes
    is_led: bool
    is_bound: bool
    signal: str
    lease_duration_s: float
    lease_renewal_s: float
    role_deadline_s: float
    dial_timeout_s: float
    wire_ports: tuple[int, int] | None
    frame_bytes_max: int
    state: State
    acks: Acks
    min_in_sync: int
    bounds: StateBounds

    @property
    def identity(self) -> str:
        """What the copy proves to be, on the wire."""
        return wire_identity(self.incarnation, self.replica_id)

    def machine(self, pid: int) -> ReplicaMachine:
        """What decides for the copy."""
        replica = ReplicaId(self.replica_id)
        replication = None
        if self.state is not State.NONE:
            slow_after_s = self.lease_duration_s / SLOW_PER_LEASE
            replication = Replication(
                replica, self.bounds, self.acks, self.min_in_sync, slow_after_s
            )
        return ReplicaMachine(
            replica,
            pid=pid,
            is_led=self.is_led,
            is_bound=self.is_bound,
            signal=Signal(self.signal),
            lease_duration_s=self.lease_duration_s,
            lease_renewal_s=self.lease_renewal_s,
            role_deadline_s=self.role_deadline_s,
            replication=replication,
        )


def wire_identity(incarnation: str, replica_id: str) -> str:
    """What a copy proves to be; unique over all hubs and their restarts."""
    return f"{incarnation}/{replica_id}"
