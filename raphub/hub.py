"""How does a person start a hub, find one, and ask it for things?

`Hub` is a thin face: requests go to the hub actor, everything that is only read comes from this
process's pushed copy of the registry.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Literal, Self, cast

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from raphub import movements
from raphub.actors.encoding import pack, unpack
from raphub.actors.hub_actor import HubActor, HubDescription, HubOrders
from raphub.actors.launcher import WireSettings
from raphub.child_plan import planned
from raphub.control import Request, control_of
from raphub.errors import (
    ChildStartFailed,
    HubConfigConflict,
    HubNotFound,
    HubUnreachable,
    InvalidSetting,
)
from raphub.handle import ChildHandle
from raphub.registry_view import NAMESPACE, RegistryView, known_or_raise, view_of
from raphub.spec import ChildSpec, HubConfig, MajorityQuorum
from raphub.status import (
    ChildStatus,
    Event,
    Health,
    HubStatus,
    MoveResult,
    NodeStatus,
    StartResult,
    StopResult,
)

log = logging.getLogger("raphub")
DEFAULT_HUB_ID = "default"
DESCRIBE_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 120.0
NAME_FREE_TIMEOUT_S = 10.0
EVENTS_TIMEOUT_S = 10.0
CONTROL_TIMEOUT_S = 30.0
RESET_TIMEOUT_S = 30.0
POLLS_MAX = 1000
REQUESTS_MAX = 1000
HEAD_RESOURCE, HEAD_SHARE = "node:__internal_head__", 0.001
"""What only the head has: the hub actor belongs there, because without the head nothing works."""


class Hub:
    """A named group of children in one Ray cluster, with one configuration.

    May be used from any process of the cluster and from any thread. `hub_id` names it. As a context
    manager it stops the hub at the end of the block.
    """

    def __init__(self, view: RegistryView, config: HubConfig) -> None:
        """Use `Hub.start` or `Hub.connect`."""
        self.hub_id = view.hub_id
        self.config = config
        self._view = view

    # --- finding and ending -------------------------------------------------------------------

    @classmethod
    def start(cls, config: HubConfig | None = None) -> Self:
        """Start a hub in the cluster that this process is connected to, or connect to it.

        Returns when its `child_specs` run. A hub of the same id and configuration is connected to;
        with another configuration: `HubConfigConflict`. Starts Ray if this process is not
        connected; all then ends with this process. Raises `ChildStartFailed` if a child of
        `child_specs` does not start, `NoQuorum` if there are too few nodes to start any,
        `InvalidMapping` if its mapping does not fit the cluster, and `InvalidSetting` if the head
        node cannot import the strategy of the user's own; the hub is
        then stopped again, if this call started it.
        """
        config = HubConfig() if config is None else config
        ensure_ray()
        was_there = _find_actor(config.hub_id) is not None
        actor = _create_actor(config)
        described = _describe(actor, config.hub_id)
        found = HubConfig.model_validate_json(described.config_json)
        differences = config.differences(found)
        if differences:
            raise HubConfigConflict(
                f"the hub {config.hub_id!r} runs with other settings: {'; '.join(differences)}.",
                differences=differences,
                hub_id=config.hub_id,
            )
        hub = cls(view_of(config.hub_id), config)
        if described.trouble:
            if not was_there:
                hub.stop()
            raise InvalidSetting(
                f"the hub {config.hub_id!r} cannot use its strategy: {described.trouble}.",
                field="distribution",
                hub_id=config.hub_id,
                hint="Install the strategy's module on the head node, or name it in `runtime_env`.",
            )
        hub._start_static_children(may_stop=not was_there)
        return hub

    @classmethod
    def connect(cls, hub_id: str = DEFAULT_HUB_ID) -> Self:
        """Find a running hub, from any driver, job, task, actor or notebook of its cluster.

        Raises `HubNotFound`, `HubUnreachable`.
        """
        view = view_of(hub_id)
        return cls(view, _config_of(view.actor, hub_id))

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop every child and the hub: no actor, placement group, name or key of it is left.

        Also while the hub is partitioned. `timeout_s` in seconds. Raises `CallTimeout`; what was
        stopped by then stays stopped, and `stop` can be called again.
        """
        actor = _find_actor(self.hub_id)
        if actor is None:
            self._view.close()
            return
        control_of(self._open_view()).stop(None).result(timeout_s)
        ray.get(actor.dissolve.remote(), timeout=timeout_s)
        ray.kill(actor, no_restart=True)
        self._view.close()
        gives_up_at = time.monotonic() + NAME_FREE_TIMEOUT_S
        while _find_actor(self.hub_id) is not None and time.monotonic() < gives_up_at:
            time.sleep(0.01)

    def __enter__(self) -> Self:
        """The hub itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the hub."""
        self.stop()

    # --- starting and stopping children -------------------------------------------------------

    def start_children(
        self,
        specs: Iterable[ChildSpec],
        *,
        check_existing: bool = True,
        on_failure: Literal["continue", "rollback"] = "continue",
        metadata: dict[str, Any] | None = None,
    ) -> Request[StartResult]:
        """Start children; returns at once with the future `StartResult`.

        The result is there when every child has all wanted copies, each told its role, or has
        failed. `check_existing=True`: if one of the ids runs already, nothing starts and `result`
        raises `ChildAlreadyStarted`; with False that id is an error in the result and the others
        start. `on_failure="rollback"` stops everything again if one child fails. `metadata` is
        added to each spec's own. Raises at once: `InvalidSetting` (also for no specs at all and
        for a class that cannot be pickled). `result` raises `NotEnoughNodes` if nothing could be
        started for want of nodes, `NoQuorum` if the hub is partitioned, `InvalidMapping` if a guided
        child's nodes do not fit it (nothing starts then), and `HubUnreachable`, `HubBusy`,
        `CallTimeout`.
        """
        listed = list(specs)
        if not listed:
            raise InvalidSetting(
                "no children were given.", hint="Give at least one ChildSpec.", field="specs"
            )
        if on_failure not in ("continue", "rollback"):
            raise InvalidSetting(
                f'on_failure is "continue" or "rollback", not {on_failure!r}.', field="on_failure"
            )
        plans = [planned(spec, self.config, metadata or {}) for spec in listed]
        return control_of(self._open_view()).start(
            plans, check_existing=check_existing, rollback=on_failure == "rollback"
        )

    def start_child(self, spec: ChildSpec, **how: Any) -> Request[StartResult]:  # noqa: ANN401 - passed on
        """Start one child; options and errors as in `start_children`."""
        return self.start_children([spec], **how)

    def stop_children(self, child_ids: Iterable[str]) -> Request[StopResult]:
        """Stop children; returns at once with the future `StopResult`.

        The result is there when nothing of them is left in the cluster. Raises `ChildNotFound` at
        once if none of them is known; unknown ones beside known ones are errors in the result.
        `result` raises `NoQuorum` if the hub is partitioned: then all stay as they are.
        """
        listed = list(child_ids)
        view = self._open_view()
        if not any(view.known(child_id) for child_id in listed):
            for child_id in listed[:1]:
                known_or_raise(view, child_id)
        return control_of(view).stop(listed)

    def stop_child(self, child_id: str) -> Request[StopResult]:
        """Stop one child; errors as in `stop_children`."""
        return self.stop_children([child_id])

    # --- planned moves ------------------------------------------------------------------------

    def switchover(self, child_id: str, to: str | None = None) -> Request[MoveResult]:
        """Make another copy of the child its active; returns at once with the future result.

        `to` is the node of that copy: its id, the beginning of it, or its address; None leaves the
        choice to the hub. Calls that run come to their end first, for one lease at most, others
        wait; the old active stays as a passive. Nothing happens if the active is there already.
        Raises `ChildNotFound`, `NotEnoughInSync` if no such copy is in sync, `HubBusy` if another
        one is about to become the active, `InvalidSetting` for a node that is not there.
        """
        view = self._open_view()
        known_or_raise(view, child_id)
        return movements.switchover(control_of(view), view, child_id, to)

    def migrate(self, replica_id: str, to: str | None = None) -> Request[MoveResult]:
        """Replace a copy by one on another node, `to` or the one that the hub prefers.

        The new copy is in sync before the old one goes; an active makes way for it first. Raises
        `ChildNotFound`, `NotEnoughNodes` if the node has no room, `InvalidSetting` if it holds a
        copy of the child already or is not there, `HubBusy` if the copy is on its way already.
        """
        view = self._open_view()
        known_or_raise(view, replica_id.rpartition("#")[0] or replica_id)
        return movements.migrate(control_of(view), view, replica_id, to)

    def drain(self, node: str, deadline_s: float = 60) -> Request[MoveResult]:
        """Empty a node: each of its copies is replaced elsewhere first. It gets no new ones.

        The result is `"done"`, or after `deadline_s` seconds `"waiting"` if what is left has no
        room elsewhere: it goes as soon as there is some. Raises `DrainTimeout` if the deadline
        passes otherwise, and `InvalidSetting` for a node that is not there. The node stays empty
        until `undrain`.
        """
        view = self._open_view()
        return movements.drain(control_of(view), view, node, deadline_s)

    def undrain(self, node: str) -> Request[MoveResult]:
        """Let a node hold copies again."""
        view = self._open_view()
        return movements.drain(control_of(view), view, node, 0, is_undone=True)

    def pause(self) -> None:
        """Start no copies of the hub's own accord, as for healing, until `resume`.

        Failover goes on as ever, and so does what is asked for. Raises `HubUnreachable`.
        """
        view = self._open_view()
        movements.pause(control_of(view), view, is_paused=True).result(CONTROL_TIMEOUT_S)

    def resume(self) -> None:
        """Heal again. Raises `HubUnreachable`."""
        view = self._open_view()
        movements.pause(control_of(view), view, is_paused=False).result(CONTROL_TIMEOUT_S)

    # --- reading, without a network call ------------------------------------------------------

    def get(self, child_id: str) -> ChildHandle[Any]:
        """The handle of a running child. Raises `ChildNotFound` at once."""
        known = known_or_raise(self._open_view(), child_id)
        options = json.loads(known.view.plan.options)
        return ChildHandle(self.hub_id, child_id, call_timeout_s=options.get("call_timeout_s"))

    def lookup(self, child_id: str) -> ChildStatus | None:
        """How a child is, as this process was last told; None if it was told of none."""
        known = self._open_view().known(child_id)
        return None if known is None else known.status()

    def children(self, tag: str | None = None) -> list[ChildStatus]:
        """All children, or those whose metadata has this `tag`, by id."""
        statuses = [known.status() for known in self._open_view().all_known()]
        return [s for s in statuses if tag is None or s.metadata.get("tag") == tag]

    def nodes(self) -> list[NodeStatus]:
        """The nodes of the cluster, and which of them the hub uses."""
        return self._open_view().nodes()

    def status(self) -> HubStatus:
        """The whole hub, as this process was last told."""
        view = self._open_view()
        return HubStatus(
            hub_id=self.hub_id,
            incarnation=view.incarnation,
            term=view.term,
            nodes=view.nodes(),
            children=self.children(),
            is_partitioned=self.is_partitioned(),
            is_reconciling=self.is_reconciling(),
        )

    def is_alive(self) -> bool:
        """Does the hub still exist, as far as this process was told?"""
        return self._view.is_open

    def is_reconciling(self) -> bool:
        """Is something missing that the hub is at work on? Not while it is partitioned."""
        busy = {Health.STARTING, Health.NO_ACTIVE, Health.DEGRADED}
        missing = any(known.view.health in busy for known in self._open_view().all_known())
        return missing and not self.is_partitioned()

    def is_partitioned(self) -> bool:
        """Does the hub stand still for want of nodes, as `partition_tolerance` asks?

        As this process was last told. Its copies then serve nobody, from a lease later at the latest,
        and keep their state; calls wait, starts and stops of children raise `NoQuorum`, and each
        child's `reason` says how many nodes there are of how many. Never with `Divergence`.
        """
        return bool(self._open_view().standstill)

    def reset_cluster_size(self, size: int, timeout_s: float = RESET_TIMEOUT_S) -> None:
        """Say how many nodes the whole cluster has, for `MajorityQuorum`; also while partitioned.

        Returns when that is recorded: the hub goes on if more than half of `size` nodes are usable.
        With `track_max_size`, more nodes than that count at once. `timeout_s` in seconds. Raises
        `InvalidSetting` for a hub with another partition tolerance and a `size` below 1,
        `HubUnreachable`, `HubBusy`, `CallTimeout`.
        """
        if not isinstance(self.config.partition_tolerance, MajorityQuorum):
            raise InvalidSetting(
                f"the hub {self.hub_id!r} remembers no cluster size: its partition tolerance is "
                f"{self.config.partition_tolerance!r}.",
                hint="Only MajorityQuorum goes by the size of the cluster.",
                field="partition_tolerance",
                hub_id=self.hub_id,
            )
        if size < 1:
            raise InvalidSetting(f"a cluster has 1 node or more, not {size!r}.", field="size")
        control_of(self._open_view()).set_cluster_size(size).result(timeout_s)

    # --- history and waiting ------------------------------------------------------------------

    def events(self, since: int | None = None, child_id: str | None = None) -> list[Event]:
        """What happened, oldest first: all that is kept, or what came after index `since`.

        Asks the hub actor. Raises `HubUnreachable`.
        """
        try:
            packed: bytes = ray.get(
                self._open_view().actor.events.remote(since or 0), timeout=EVENTS_TIMEOUT_S
            )
        except (GetTimeoutError, RayActorError) as error:
            raise HubUnreachable(f"the hub {self.hub_id!r} does not answer.") from error
        return [
            Event(
                index=index,
                time_s=time_s,
                kind=note.kind,
                child_id=note.child_id,
                replica_id=note.replica,
                node_id=note.node_id,
                text=note.text,
            )
            for index, time_s, note in unpack(packed)
            if child_id is None or note.child_id == child_id
        ]

    def wait_for(self, predicate: Callable[[Hub], bool], timeout_s: float) -> bool:
        """Wait until `predicate(hub)` is true; asked after every change, at least once a second.

        Returns False if `timeout_s` seconds have passed first. The predicate must not block.
        """
        return self._open_view().wait(lambda: predicate(self), timeout_s)

    def __repr__(self) -> str:
        """One line."""
        if not self._view.is_open:
            return f"<Hub {self.hub_id}: stopped>"
        return f"<Hub {self.status().line()}>"

    def _repr_html_(self) -> str:
        text = f"<Hub {self.hub_id}: stopped>"
        return (self.status()._repr_html_() or text) if self._view.is_open else text

    # --- inside -------------------------------------------------------------------------------

    def _open_view(self) -> RegistryView:
        if not self._view.is_open:
            self._view = view_of(self.hub_id)
        return self._view

    def _start_static_children(self, *, may_stop: bool) -> None:
        missing = [s for s in self.config.child_specs if self._view.known(s.child_id) is None]
        if not missing:
            return
        try:
            result = self.start_children(missing, check_existing=False).result()
            failed = [e for e in result.errors if not e.reason.startswith("ChildAlreadyStarted")]
            if failed:
                raise ChildStartFailed(  # noqa: TRY301 - it ends the hub as any error here does
                    f"the hub {self.hub_id!r} was not started: its child {failed[0].child_id!r} "
                    f"did not come up: {failed[0].reason}",
                    hub_id=self.hub_id,
                    child_id=failed[0].child_id,
                )
        except Exception:
            if may_stop:
                self.stop()
            raise


def default_hub() -> Hub:
    """The hub that `Class.remote(...)` uses: started if there is none, and Ray with it."""
    ensure_ray()
    if _find_actor(DEFAULT_HUB_ID) is None:
        return Hub.start(HubConfig(hub_id=DEFAULT_HUB_ID))
    return Hub.connect(DEFAULT_HUB_ID)


def hubs() -> list[str]:
    """The ids of all hubs in the cluster that this process is connected to."""
    ensure_ray(may_start=False)
    named = cast("list[dict[str, str]]", ray.util.list_named_actors(all_namespaces=True))
    return sorted(a["name"] for a in named if a["namespace"] == NAMESPACE and "/" not in a["name"])


def new_child_id(cls: type) -> str:
    """A name for a child that was given none."""
    return f"{cls.__name__}-{uuid.uuid4().hex[:8]}"


def ensure_ray(*, may_start: bool = True) -> None:
    """Connect to Ray if this process is not connected; start one on this machine if there is none."""
    if ray.is_initialized():
        return
    if not may_start:
        raise HubNotFound(
            "this process is not connected to a Ray cluster.", hint="Call ray.init(address=...)."
        )
    ray.init(log_to_driver=False)
    log.info("connected to Ray at %s", ray.get_runtime_context().gcs_address)


def _find_actor(hub_id: str) -> Any:  # noqa: ANN401 - a Ray handle
    try:
        return ray.get_actor(hub_id, namespace=NAMESPACE)
    except ValueError:
        return None


def _create_actor(config: HubConfig) -> Any:  # noqa: ANN401 - a Ray handle
    orders = HubOrders(
        config.hub_id,
        config.model_dump_json(),
        pack(config.settings()),
        config.events_max,
        WireSettings(config.wire_ports, config.frame_bytes_max),
    )
    remote: Any = ray.remote
    return (
        remote(
            max_restarts=-1,
            max_task_retries=-1,
            num_cpus=0,
            concurrency_groups={"polls": POLLS_MAX, "requests": REQUESTS_MAX},
        )(HubActor)
        .options(
            name=config.hub_id,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            resources={HEAD_RESOURCE: HEAD_SHARE},
        )
        .remote(orders)
    )


def _config_of(actor: Any, hub_id: str) -> HubConfig:  # noqa: ANN401 - a Ray handle
    return HubConfig.model_validate_json(_describe(actor, hub_id).config_json)


def _describe(actor: Any, hub_id: str) -> HubDescription:  # noqa: ANN401 - a Ray handle
    try:
        described: HubDescription = ray.get(actor.describe.remote(), timeout=DESCRIBE_TIMEOUT_S)
    except (GetTimeoutError, RayActorError) as error:
        raise HubUnreachable(
            f"the hub {hub_id!r} does not answer: {error}", hub_id=hub_id
        ) from error
    return described


def hub_named(hub: str | Hub | None) -> Hub:
    """The hub of this name, the hub itself, or the default one."""
    if isinstance(hub, Hub):
        return hub
    return default_hub() if hub is None or hub == DEFAULT_HUB_ID else Hub.connect(hub)
