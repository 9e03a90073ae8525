"""What does this process know of a hub, without asking it?

One thread a hub keeps one long poll on the hub actor and applies what it is pushed. Lookups read
the local copy. Whoever waits for news of a child is woken by it: a call whose active has died does
not wait until Ray notices.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from raphub.actors.encoding import unpack
from raphub.actors.registry import Update
from raphub.core.model import ChildId, Health, Node, NodeId
from raphub.core.views import ChildView
from raphub.errors import (
    ChildNotFound,
    DataLost,
    HubNotFound,
    HubUnreachable,
    NoActiveReplica,
    RaphubError,
)
from raphub.known import Known
from raphub.lanes import Lanes
from raphub.outbox import Outbox
from raphub.status import NodeStatus

NAMESPACE = "raphub"
FIRST_POLL_TIMEOUT_S = 30.0
POLL_PATIENCE_S = 30.0
POLL_AGAIN_S = 0.05
APPEARANCE_S = 5.0
"""How long a child that was never told of may take to appear: it may have just been started."""


class RegistryView:
    """This process's copy of one hub's registry. Safe for all threads."""

    def __init__(self, hub_id: str, actor: Any, session: str) -> None:  # noqa: ANN401 - a Ray handle
        """`actor` is the hub actor's handle; call `connect` before anything else."""
        self.hub_id = hub_id
        self.actor = actor
        self.session = session
        self.incarnation = ""
        self.is_open = True
        self.poll_ref: Any = None
        self._term = 0
        self._number = 0
        self._children: dict[str, Known] = {}
        self._seen: set[str] = set()
        self._nodes: tuple[Node, ...] = ()
        self._usable: frozenset[NodeId] = frozenset()
        self._standstill = ""
        self._changed = threading.Condition()
        self._wakers: dict[object, Callable[[], None]] = {}
        self._woken = threading.Event()
        self.outbox = Outbox()
        self.lanes = Lanes(self)
        self.changes = 0

    # --- reading ------------------------------------------------------------------------------

    def known(self, child_id: str) -> Known | None:
        """The child as it was last told, or None. Takes about a microsecond."""
        return self._children.get(child_id)

    def was_seen(self, child_id: str) -> bool:
        """Was the child ever told of here?"""
        return child_id in self._seen

    def all_known(self) -> list[Known]:
        """All children, in the order of their ids."""
        with self._changed:
            return [self._children[child_id] for child_id in sorted(self._children)]

    def nodes(self) -> list[NodeStatus]:
        """The nodes of the cluster as the hub sees them."""
        with self._changed:
            copies: dict[str, list[str]] = {}
            for known in self._children.values():
                for copy in known.view.replicas:
                    copies.setdefault(copy.node_id, []).append(copy.replica)
            return [
                NodeStatus(
                    node_id=node.node_id,
                    address=node.address,
                    labels=node.labels,
                    is_head=node.is_head,
                    usable=node.node_id in self._usable,
                    replicas=sorted(copies.get(node.node_id, ())),
                )
                for node in self._nodes
            ]

    @property
    def standstill(self) -> str:
        """Why the hub stands still for want of nodes; empty while it goes on."""
        return self._standstill

    @property
    def term(self) -> int:
        """The term of the hub actor that told last."""
        return self._term

    # --- waiting ------------------------------------------------------------------------------

    def wait(self, is_met: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until the condition, asked after every change, is met; False if time ran out."""
        gives_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not is_met():
                if not self.is_open:
                    raise HubUnreachable(f"the hub {self.hub_id!r} is not there any more")
                left_s = 1.0 if gives_up_at is None else min(1.0, gives_up_at - time.monotonic())
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
            return True

    def add_waker(self, waker: Callable[[], None]) -> object:
        """Have `waker` called after every change, on this view's thread, until it is removed."""
        token = object()
        with self._changed:
            self._wakers[token] = waker
        return token

    def remove_waker(self, token: object) -> None:
        """Call it no more."""
        with self._changed:
            self._wakers.pop(token, None)

    # --- being told ---------------------------------------------------------------------------

    def connect(self) -> None:
        """Get the whole registry once, then go on in a thread.

        Raises `HubUnreachable` if the hub actor does not answer in time.
        """
        try:
            self._apply(ray.get(self.actor.poll.remote(0, 0), timeout=FIRST_POLL_TIMEOUT_S))
        except (GetTimeoutError, RayActorError) as error:
            raise HubUnreachable(f"the hub {self.hub_id!r} does not answer: {error}") from error
        threading.Thread(target=self._run, name=f"raphub-view-{self.hub_id}", daemon=True).start()

    def close(self) -> None:
        """The hub has gone, or Ray has been shut down here: wake everyone, tell nothing more."""
        with self._changed:
            self.is_open = False
            self._children = {}
            self._wake()
        self._woken.set()
        self.lanes.close()

    def _run(self) -> None:
        while self.is_open and ray.is_initialized():
            try:
                update = self._poll()
            except RayActorError:
                if self._is_hub_gone():
                    break
                time.sleep(POLL_AGAIN_S)
                continue
            except Exception:  # noqa: BLE001 - Ray has been shut down, or the link is cut
                time.sleep(POLL_AGAIN_S)
                continue
            if update is not None:
                self._apply(update)
        self.close()

    def _poll(self) -> Update | None:
        """One long poll. Waits in Python, not in Ray: a process that ends must not find it there."""
        answered = self._woken
        answered.clear()
        self.poll_ref = ref = self.actor.poll.remote(self._term, self._number)
        future = ref.future()
        future.add_done_callback(lambda _: answered.set())
        while self.is_open and not future.done():
            answered.wait(POLL_PATIENCE_S)
        return future.result() if future.done() else None

    def _is_hub_gone(self) -> bool:
        try:
            self.actor = ray.get_actor(self.hub_id, namespace=NAMESPACE)
        except ValueError:
            return True
        except RayError:
            return False
        return False

    def _apply(self, update: Update) -> None:
        with self._changed:
            if self.incarnation and update.incarnation != self.incarnation:
                self.is_open = False
            self.incarnation = update.incarnation
            self._term, self._number = update.version.term, update.version.number
            children = {} if update.is_whole else dict(self._children)
            for child_id in update.removed:
                children.pop(child_id, None)
            for child_id, packed in update.children.items():
                view: ChildView = unpack(packed)
                handles = {
                    copy.replica: update.handles[copy.replica]
                    for copy in view.replicas
                    if copy.replica in update.handles
                }
                children[child_id] = Known.of(view, handles)
                self._seen.add(child_id)
            self._children = children
            if update.cluster:
                self._nodes, usable, self._standstill = unpack(update.cluster)
                self._usable = frozenset(usable)
            self._wake()
        # In this order: what a lane holds is older than what stands in line behind it.
        was_sent = self.lanes.told({*update.children, *update.removed}, is_all=update.is_whole)
        if self.outbox.flush() or was_sent:
            # Whoever was woken above may have looked too early: what he waits for has been sent now.
            with self._changed:
                self._wake()

    def _wake(self) -> None:
        self.changes += 1
        self._changed.notify_all()
        for waker in list(self._wakers.values()):
            waker()


_views: dict[str, RegistryView] = {}
_views_lock = threading.Lock()


def _forget_in_fork() -> None:
    _views.clear()


os.register_at_fork(after_in_child=_forget_in_fork)


def _close_all() -> None:
    """Before Ray is shut down with the process, nobody may be about to use it."""
    for view in list(_views.values()):
        view.close()


atexit.register(_close_all)


def view_of(hub_id: str) -> RegistryView:
    """This process's view of the hub, connected at its first use.

    Raises `HubNotFound` if no such hub runs in the cluster that this process is connected to.
    """
    if not ray.is_initialized():
        raise HubNotFound(
            f"this process is not connected to a Ray cluster, so it finds no hub {hub_id!r}.",
            hint="Call ray.init(address=...) first; `raphub.Hub.start` starts a hub.",
            hub_id=hub_id,
        )
    context = ray.get_runtime_context()
    session = f"{context.gcs_address}/{context.get_job_id()}"
    with _views_lock:
        view = _views.get(hub_id)
        if view is not None and view.is_open and view.session == session:
            return view
        try:
            actor = ray.get_actor(hub_id, namespace=NAMESPACE)
        except ValueError:
            raise HubNotFound(f"no hub {hub_id!r} runs in this cluster.", hub_id=hub_id) from None
        view = RegistryView(hub_id, actor, session)
        view.connect()
        _views[hub_id] = view
        return view


def known_or_raise(view: RegistryView, child_id: str) -> Known:
    """The child, or `ChildNotFound` at once."""
    known = view.known(child_id)
    if known is None:
        raise ChildNotFound(
            f"the hub {view.hub_id!r} has no child {child_id!r}.",
            hub_id=view.hub_id,
            child_id=child_id,
        )
    return known


def child_ids(view: RegistryView) -> list[ChildId]:
    """The ids of all children."""
    return [known.view.plan.child_id for known in view.all_known()]


def hopeless(view: RegistryView, child_id: str, waited_s: float) -> RaphubError | None:
    """Why a caller who has waited for so long need not wait for the child to be served; or None."""
    known = view.known(child_id)
    if known is None:
        if view.was_seen(child_id) or waited_s > APPEARANCE_S:
            return ChildNotFound(
                f"the hub {view.hub_id!r} has no child {child_id!r} (any more).",
                hub_id=view.hub_id,
                child_id=child_id,
            )
    elif known.view.health is Health.LOST:
        return DataLost(
            f"{child_id!r} has lost its state: {known.view.reason}.",
            hub_id=view.hub_id,
            child_id=child_id,
        )
    elif known.view.health is Health.STOPPED:
        return NoActiveReplica(
            f"{child_id!r} was given up: {known.view.reason}.",
            hint="Mend the cause, then stop the child and start it again.",
            hub_id=view.hub_id,
            child_id=child_id,
        )
    return None
