"""How is a copy started on a chosen node, and how is nothing of it left when it ends?

Each copy has a placement group of its own, one bundle pinned to the node, and one Ray actor in it.
All calls to Ray here block, so they run in threads; outcomes are handed back as events. Starting
what was started before finds it, and stopping what is stopped already is done at once.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    RayError,
    RuntimeEnvSetupError,
)
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raphub.actors.replica_actor import READS_MAX, ReplicaActor
from raphub.actors.replica_orders import ReplicaOrders
from raphub.core.holding import state_bounds
from raphub.core.messages import (
    CopiesFound,
    Failure,
    HubEvent,
    ReplicaFailed,
    ReplicaLocated,
    ReplicaStopped,
    StartReplica,
)
from raphub.core.model import ChildPlan, HubSettings, Model, NodeId, ReplicaId
from raphub.core.placement import CPU_SHARE_MIN

NAMESPACE = "raphub"
LOCATE_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
STOP_AGAIN_S = 1.0
GROUP_POLL_S = 0.02
LOOK_EVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class WireSettings:
    """How copies listen: a range of ports or any, and how long a frame may be."""

    ports: tuple[int, int] | None
    frame_bytes_max: int


class Launcher:
    """Starts and stops the copies of one hub. `report` may be called from any thread."""

    def __init__(
        self,
        hub_id: str,
        incarnation: str,
        secret: bytes,
        settings: HubSettings,
        wire: WireSettings,
        report: Callable[[HubEvent], None],
    ) -> None:
        """Nothing is started yet."""
        self._hub_id = hub_id
        self._incarnation = incarnation
        self._secret = secret
        self._settings = settings
        self._wire = wire
        self._report = report
        threads = settings.replicas_starting_max + 16
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="raphub-launch")
        self._locks: dict[ReplicaId, threading.Lock] = {}
        self._ending: set[ReplicaId] = set()
        remote: Any = ray.remote
        # Ray's own record of every call costs 0.07 of a call.
        self._actor_class = remote(
            concurrency_groups={"reads": READS_MAX}, enable_task_events=False
        )(ReplicaActor)
        self._groups: dict[ReplicaId, PlacementGroup] = {}
        self.handles: dict[ReplicaId, Any] = {}

    # --- orders -------------------------------------------------------------------------------

    def start(self, order: StartReplica) -> None:
        """Bring the copy up; the outcome is `ReplicaLocated`, then maybe `ReplicaFailed`."""
        self._pool.submit(self._guarded, self._start, order.replica, order)

    def stop(self, replica: ReplicaId) -> None:
        """Take the copy down; the outcome is `ReplicaStopped`, however long it takes."""
        if replica not in self._ending:
            self._ending.add(replica)
            self._pool.submit(self._stop, replica)

    def find(self, replica: ReplicaId) -> None:
        """Look the copy's actor up by name; leaves its handle in `handles` if it is there."""
        if replica in self.handles:
            return
        try:
            self.handles[replica] = ray.get_actor(self._name(replica), namespace=NAMESPACE)
        except ValueError:
            return

    def find_all(self, replicas: list[ReplicaId]) -> None:
        """Look all of them up; returns when that is done."""
        list(self._pool.map(self.find, replicas))

    def keep_looking(self) -> None:
        """Report what there is now and every so often: other lives may have left something."""
        found = self._adopt()
        self._report(CopiesFound(tuple(found)))
        again = threading.Timer(LOOK_EVERY_S, self._look_again)
        again.daemon = True
        again.start()

    def _look_again(self) -> None:
        try:
            self.keep_looking()
        except Exception:  # noqa: BLE001 - Ray's tables are away; whoever looks next sees more
            again = threading.Timer(LOOK_EVERY_S, self._look_again)
            again.daemon = True
            again.start()

    def _adopt(self) -> list[ReplicaId]:
        """The copies that have a placement group, whoever made it."""
        from ray._raylet import PlacementGroupID  # noqa: PLC0415 - Ray finds no group by its name

        prefix, suffix = f"{self._hub_id}/", f"@{self._incarnation}"
        for group in placement_group_table().values():
            name = group["name"]
            if group["state"] != "REMOVED" and name.startswith(prefix) and name.endswith(suffix):
                replica = ReplicaId(name[len(prefix) : -len(suffix)])
                group_id = PlacementGroupID(bytes.fromhex(group["placement_group_id"]))
                self._groups.setdefault(replica, PlacementGroup(group_id))
        return sorted(self._groups)

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- start --------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[Any], None], replica: ReplicaId, order: object) -> None:
        """Whatever goes wrong becomes an event: the machine decides what follows."""
        try:
            work(order)
        except Exception:  # noqa: BLE001 - Ray raises many kinds
            story = traceback.format_exc()
            self._report(ReplicaFailed(replica, Failure.DIED, story))

    def _start(self, order: StartReplica) -> None:
        replica, plan = order.replica, order.plan
        with self._lock(replica):
            if replica in self._ending:
                return
            group = self._reserve(replica, order.node_id, plan)
            if group is None:
                reason = f"node {order.node_id} has no room for {bundle(plan)}"
                self._report(ReplicaFailed(replica, Failure.NO_ROOM, reason))
                return
            handle = self._create(order, group)
            self.handles[replica] = handle
        try:
            host, port, pid = ray.get(handle.locate.remote(), timeout=LOCATE_TIMEOUT_S)
            self._report(ReplicaLocated(replica, (host, port), pid))
            story = ray.get(
                handle.build.remote(plan.payload), timeout=self._settings.build_deadline_s
            )
        except RuntimeEnvSetupError as error:
            self._report(ReplicaFailed(replica, Failure.CONSTRUCTOR, str(error)))
            return
        except RayError as error:
            self._report(ReplicaFailed(replica, Failure.DIED, str(error)))
            return
        if story:
            self._report(ReplicaFailed(replica, Failure.CONSTRUCTOR, story))

    def _reserve(
        self, replica: ReplicaId, node_id: NodeId, plan: ChildPlan
    ) -> PlacementGroup | None:
        """A group of one bundle on the node, or None if there is no room for it in time."""
        group = self._groups.get(replica)
        if group is None:
            group = self._groups[replica] = placement_group(
                [bundle(plan)],
                strategy="STRICT_PACK",
                name=self._name(replica),
                lifetime="detached",
                bundle_label_selector=[{"ray.io/node-id": node_id}],
            )
        gives_up_at = time.monotonic() + self._settings.placement_deadline_s
        while not group.wait(GROUP_POLL_S):
            if replica in self._ending or time.monotonic() > gives_up_at:
                return None
        return group

    def _create(self, order: StartReplica, group: PlacementGroup) -> Any:  # noqa: ANN401 - Ray's
        replica, plan, settings = order.replica, order.plan, self._settings
        orders = ReplicaOrders(
            hub_id=self._hub_id,
            incarnation=self._incarnation,
            child_id=plan.child_id,
            replica_id=replica,
            node_id=order.node_id,
            secret=self._secret,
            is_led=plan.model is Model.ACTIVE_PASSIVE,
            is_bound=settings.partition_tolerance is not None,
            signal=plan.signal.value,
            state=plan.state,
            acks=plan.acks,
            min_in_sync=plan.min_in_sync,
            bounds=state_bounds(settings, plan),
            dial_timeout_s=settings.dial_timeout_s,
            lease_duration_s=settings.lease_duration_s,
            lease_renewal_s=settings.lease_renewal_s,
            role_deadline_s=settings.role_deadline_s,
            wire_ports=self._wire.ports,
            frame_bytes_max=self._wire.frame_bytes_max,
        )
        asked = dict(plan.resources)
        return self._actor_class.options(
            name=self._name(replica),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=0,
            num_cpus=asked.pop("CPU", 0),
            num_gpus=asked.pop("GPU", 0),
            memory=int(asked.pop("memory", 0)) or None,
            resources=asked or None,
            runtime_env=json.loads(plan.options).get("runtime_env"),
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0
            ),
        ).remote(orders)

    # --- stop ---------------------------------------------------------------------------------

    def _stop(self, replica: ReplicaId) -> None:
        with self._lock(replica):
            try:
                is_gone = self._end_actor(replica) and self._free_group(replica)
            except Exception:  # noqa: BLE001 - Ray raises many kinds; it is tried again
                is_gone = False
        if is_gone:
            self.handles.pop(replica, None)
            self._locks.pop(replica, None)
            self._ending.discard(replica)
            self._report(ReplicaStopped(replica))
        else:
            again = threading.Timer(STOP_AGAIN_S, self._submit_stop, (replica,))
            again.daemon = True
            again.start()

    def _submit_stop(self, replica: ReplicaId) -> None:
        try:
            self._pool.submit(self._stop, replica)
        except RuntimeError:
            return

    def _end_actor(self, replica: ReplicaId) -> bool:
        """Kill the actor and see it dead; True if there is none."""
        self.find(replica)
        handle = self.handles.get(replica)
        if handle is None:
            return True
        ray.kill(handle, no_restart=True)
        try:
            ray.get(handle.locate.remote(), timeout=STOP_TIMEOUT_S)
        except ActorDiedError:
            return True
        except (GetTimeoutError, RayError):
            return False
        return False

    def _free_group(self, replica: ReplicaId) -> bool:
        """Remove the placement group and see it removed; True if there is none."""
        group = self._groups.get(replica)
        if group is None:
            return True
        remove_placement_group(group)
        gives_up_at = time.monotonic() + STOP_TIMEOUT_S
        while placement_group_table(group).get("state", "REMOVED") != "REMOVED":
            if time.monotonic() > gives_up_at:
                return False
            time.sleep(GROUP_POLL_S)
        del self._groups[replica]
        return True

    def _lock(self, replica: ReplicaId) -> threading.Lock:
        return self._locks.setdefault(replica, threading.Lock())

    def _name(self, replica: ReplicaId) -> str:
        return f"{self._hub_id}/{replica}@{self._incarnation}"


def bundle(plan: ChildPlan) -> dict[str, float]:
    """What a copy reserves. A bundle must not be empty, so a little CPU stands for nothing."""
    asked = {name: amount for name, amount in plan.resources.items() if amount}
    asked["CPU"] = max(asked.get("CPU", 0.0), CPU_SHARE_MIN)
    return asked
