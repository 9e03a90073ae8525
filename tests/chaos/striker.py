"""What is done to a child while it is used?

Strikes at random, at moments when writes are running: SIGKILL to the process of a copy, SIGKILL to
a whole node, SIGSTOP to the active for longer than its lease. Sometimes the next one comes while
the child still heals from the last, even before anybody serves again. One thing is never done: the
last copy that holds every acknowledged write is left alive, since whatever follows its death is no
fault of replication.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

import raphub
from raphub.status import ChildStatus, Health, ReplicaStatus
from raphub.testing import LocalCluster
from tests.chaos.workload import Clients

HEALING_LIMIT_S = 60.0
FLOW_LIMIT_S = 45.0
SPREAD_S = 0.004
"""Strikes are spread over so long after an answer: that is how long a write takes, about."""

PATIENT_SHARE = 0.6
"""How often the child is left in peace until it is whole again."""

FLOW_SHARE = 0.5
"""How often a hurried strike waits at least until writes are answered again."""

HURRY_S = 1.0
"""Else the next strike comes after at most so long, mostly much sooner."""

REST_S = 0.3
LEASES = (1.15, 1.6)
"""How long the active is stopped, in leases: from, to."""


class StrikeKind(StrEnum):
    """What is done."""

    ACTIVE = "kill the active"
    PASSIVE = "kill a passive"
    NODE = "kill a node"
    HANG = "hang the active"


WEIGHTS = {
    StrikeKind.ACTIVE: 0.5,
    StrikeKind.PASSIVE: 0.25,
    StrikeKind.NODE: 0.15,
    StrikeKind.HANG: 0.1,
}


@dataclass(frozen=True, slots=True)
class Strike:
    """One strike. `at` is a monotonic time.

    `writing` says how many appends had been sent and not been answered at that moment, and
    `in_flow` that others had been answered just before.
    """

    kind: StrikeKind
    at: float
    victims: tuple[str, ...]
    hit_active: bool
    writing: int
    in_flow: bool
    health: Health
    in_sync: tuple[str, ...]

    @property
    def in_mid_write(self) -> bool:
        """Was the child writing at that moment, and not only to do so?"""
        return self.in_flow and self.writing > 0

    def __str__(self) -> str:
        """One line of the story."""
        moment = "in mid-write" if self.in_mid_write else "between writes"
        return (
            f"{self.kind}: {', '.join(self.victims)}{' (active)' if self.hit_active else ''}, "
            f"{moment}, {self.health}, in sync {', '.join(self.in_sync)}"
        )


@dataclass(frozen=True, slots=True)
class _Aim:
    """What is to be struck, and what was known when it was chosen."""

    victims: tuple[ReplicaStatus, ...]
    status: ChildStatus
    node_id: str | None = None

    @property
    def hits_active(self) -> bool:
        active = self.status.active
        return active is not None and active.replica_id in {v.replica_id for v in self.victims}


@dataclass
class Striker:
    """Strikes one child until `stop`, from a thread of its own. Nobody else may use the cluster."""

    hub: raphub.Hub
    cluster: LocalCluster
    child_id: str
    clients: Clients
    chance: random.Random
    strikes: list[Strike] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """What did not come back in time, in words."""

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="striker")
        self._struck: set[str] = set()
        self._joining: Future[str] | None = None
        self._is_hurried = False
        self._is_over = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when the last strike is over, all nodes are back, and the child had time to heal."""
        self._stopping.set()
        self._thread.join()

    def wait(self, timeout_s: float) -> bool:
        """Return after so long, or as soon as there is nothing left to strike; is it so?"""
        return self._stopping.wait(timeout_s)

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(1, "joining") as self._joiner:
                while not self._stopping.wait(self._rest_s()):
                    self._turn()
                if self._joining is not None:
                    self._joining.result()
            self._until_whole()
        except Exception as error:  # noqa: BLE001 - the run goes on, and fails at its end
            self.troubles.append(f"the striker failed: {error!r}")
        finally:
            self._stopping.set()

    def _rest_s(self) -> float:
        return 0.0 if self._is_hurried else self.chance.uniform(0, REST_S)

    def _turn(self) -> None:
        in_flow = not self._is_hurried or self.chance.random() < FLOW_SHARE
        if in_flow and not self.clients.wait_for_flow(FLOW_LIMIT_S):
            self.troubles.append(f"no write was answered for {FLOW_LIMIT_S:g} s: {self._seen()}")
            self._stopping.set()
        kind = self._choose()
        aim = self._aim_when_allowed(kind, in_flow=in_flow)
        if aim is None:
            return
        self._strike(kind, aim, in_flow=in_flow)
        self._is_hurried = self.chance.random() > PATIENT_SHARE
        if self._is_hurried:
            self._stopping.wait(self.chance.random() ** 3 * HURRY_S)
        else:
            self._until_whole()

    def _choose(self) -> StrikeKind:
        """Every other strike is at the active, or a run of bad luck would prove little; else by weight.

        No second node is killed before another one has joined for the first.
        """
        if len(self.strikes) % 2 == 0:
            return StrikeKind.ACTIVE
        weights = dict(WEIGHTS)
        if self._joining is not None:
            if self._joining.done():
                self._joining.result()
            else:
                del weights[StrikeKind.NODE]
        [kind] = self.chance.choices([*weights], [*weights.values()])
        return kind

    # --- aiming -------------------------------------------------------------------------------

    def _aim_when_allowed(self, kind: StrikeKind, *, in_flow: bool) -> _Aim | None:
        """Wait until such a strike leaves a copy in sync; None if it never did, or time is up."""
        found: list[_Aim] = []

        def is_allowed(status: ChildStatus) -> bool:
            aim = self._aim(kind, status)
            if aim is not None:
                found.append(aim)
            return self._stopping.is_set() or bool(found)

        if not self._until(is_allowed):
            self.troubles.append(
                f"{kind} was not possible for {HEALING_LIMIT_S:g} s: {self._seen()}"
            )
        if not found or self._stopping.is_set():
            return None
        if in_flow:
            # The wait may have been for a child that did not serve. A strike hits what writes.
            self.clients.wait_for_flow(FLOW_LIMIT_S, writes=1)
            self._stopping.wait(self.chance.uniform(0, SPREAD_S))
        # What is known now counts, not what was known before the wait.
        status = self.hub.lookup(self.child_id)
        return None if status is None else self._aim(kind, status)

    def _aim(self, kind: StrikeKind, status: ChildStatus) -> _Aim | None:
        """Choose whom to strike; None if there is nobody who may be struck now."""
        living = [r for r in status.replicas if r.pid and r.replica_id not in self._struck]
        active = status.active
        node_id = None
        match kind:
            case StrikeKind.ACTIVE | StrikeKind.HANG:
                victims = [r for r in living if active and r.replica_id == active.replica_id]
            case StrikeKind.PASSIVE:
                others = [r for r in living if active and r.replica_id != active.replica_id]
                victims = self.chance.sample(others, 1) if others else []
            case StrikeKind.NODE:
                node_id = self.chance.choice(living).node_id if living else None
                # Copies that are only being started there die, too.
                victims = [r for r in status.replicas if r.node_id == node_id]
        lost = self._struck | {r.replica_id for r in victims}
        if not victims or not set(status.in_sync) - lost:
            return None
        return _Aim(tuple(victims), status, node_id)

    # --- striking -----------------------------------------------------------------------------

    def _strike(self, kind: StrikeKind, aim: _Aim, *, in_flow: bool) -> None:
        pids = [r.pid for r in aim.victims if r.pid]
        self._struck |= {r.replica_id for r in aim.victims}
        self.strikes.append(
            Strike(
                kind,
                time.monotonic(),
                tuple(r.replica_id for r in aim.victims),
                aim.hits_active,
                self.clients.writing,
                in_flow,
                aim.status.health,
                tuple(aim.status.in_sync),
            )
        )
        if kind is StrikeKind.HANG:
            self._hang(pids[0], aim.victims[0].replica_id)
        elif aim.node_id is not None:
            self.cluster.kill_node(aim.node_id)
            # Beside the next strikes: on a busy machine a node takes ten seconds to join.
            self._joining = self._joiner.submit(self.cluster.add_node)
        else:
            self.cluster.kill_process(pids[0])

    def _hang(self, pid: int, replica_id: str) -> None:
        """Stop it for longer than its lease: it wakes up in a world that went on without it.

        If nobody found it missing in time, it may serve on.
        """
        with contextlib.suppress(ProcessLookupError):
            self.cluster.pause_process(pid)
            try:
                self._stopping.wait(self.chance.uniform(*LEASES) * self.hub.config.lease_duration_s)
            finally:
                self.cluster.resume_process(pid)
        if self.clients.wait_for_flow(FLOW_LIMIT_S):
            status = self.hub.lookup(self.child_id)
            if status and status.active and status.active.replica_id == replica_id:
                self._struck.discard(replica_id)

    # --- healing ------------------------------------------------------------------------------

    def _until_whole(self) -> None:
        if not self._until(self._is_whole):
            self.troubles.append(f"not whole after {HEALING_LIMIT_S:g} s: {self._seen()}")

    def _is_whole(self, status: ChildStatus) -> bool:
        listed = {r.replica_id for r in status.replicas}
        return (
            status.health is Health.OK
            and len(status.in_sync) == status.factor
            and not listed & self._struck
        )

    def _until(self, is_met: Callable[[ChildStatus], bool]) -> bool:
        def met(hub: raphub.Hub) -> bool:
            status = hub.lookup(self.child_id)
            if status is not None and status.health in (Health.LOST, Health.STOPPED):
                self._give_up(status)
            return self._is_over or (status is not None and is_met(status))

        return self.hub.wait_for(met, HEALING_LIMIT_S)

    def _give_up(self, status: ChildStatus) -> None:
        """Nothing is left to strike. What the last strike knew says whether it was to blame."""
        if not self._is_over:
            self._is_over = True
            self._stopping.set()
            last = self.strikes[-1] if self.strikes else "there was none"
            self.troubles.append(f"{status.line()}; the last strike: {last}")

    def _seen(self) -> str:
        status = self.hub.lookup(self.child_id)
        return "the hub has no such child" if status is None else status.line()
