"""How does one copy of a child live in its process?

Drives `ReplicaMachine`. Calls come on threads of Ray's, the wire has a thread of its own, and so
have role callbacks and what other copies ship, so that no busy method blocks a heartbeat. The
machine is fed and asked under one lock.
"""

from __future__ import annotations

import importlib
import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from raphub import context
from raphub.actors import calling
from raphub.actors.calling import Args, Kwargs
from raphub.actors.clock import now_s
from raphub.actors.copy_calls import CopyCalls
from raphub.actors.replica_orders import ReplicaOrders
from raphub.actors.replica_wire import ReplicaWire
from raphub.actors.replicated_object import ReplicatedObject, size_of
from raphub.actors.user_object import UserObject
from raphub.core.messages import (
    AbandonCallback,
    Applied,
    Apply,
    ApplyDue,
    ApplyFailed,
    ApplyNow,
    ApplySoon,
    BuildBegan,
    BuildRaised,
    Built,
    CallBack,
    CallbackReturned,
    CallWrote,
    DialPeer,
    DrainTold,
    HangUpPeer,
    Install,
    Installed,
    ReplicaAction,
    ReplicaEvent,
    SendToHub,
    SendToPeer,
    SnapshotTaken,
    StateBroken,
    TakeSnapshot,
    TellDrain,
    WakeCalls,
)
from raphub.core.model import Role, State
from raphub.errors import StateNotReplicable

READ_SLICE_S = 0.05
"""So long is read for other copies' words before the machine is asked again."""
OTHERS_READ_S = 0.002
"""So long is waited for another thread that reads them."""

APPLY_PACE_S = 0.02
"""A passive takes in what came meanwhile together: so often, or when somebody waits for it."""

STORY_CHARS_MAX = 20_000

StateJob = ApplySoon | Apply | Install | TakeSnapshot


class ReplicaHost:
    """The process of one copy: its machine, its wire, the user's object and the threads of both."""

    def __init__(self, orders: ReplicaOrders) -> None:
        """Listen on the wire; the user's object comes later, with `build`."""
        self.orders = orders
        self.machine = orders.machine(os.getpid())
        self.changed = threading.Condition()
        self.object = UserObject()
        if orders.state is not State.NONE:
            self.object = ReplicatedObject(orders.state)
        self._build_story: str | None = None
        self._is_built = threading.Event()
        self._callbacks: queue.SimpleQueue[CallBack | TellDrain] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[StateJob] = queue.SimpleQueue()
        self._hurries = threading.Event()
        self._calls = CopyCalls(self)
        self._wire = ReplicaWire(self.handle, orders)
        context.enter(self.where)
        for work in (self._run_callbacks, self._run_jobs):
            threading.Thread(target=work, name="raphub-object", daemon=True).start()

    # --- called over Ray ----------------------------------------------------------------------

    def locate(self) -> tuple[str, int, int]:
        """The host and port of the wire, and the process."""
        return (*self._wire.address, os.getpid())

    def build(self, payload: bytes) -> str:
        """Construct the user's object, once. Returns "" or the traceback of what it raised."""
        if self._build_story is None:
            self.handle(BuildBegan())
            self._build_story = ""
            try:
                self.object.build(*unpickle_payload(payload))
            except StateNotReplicable as error:
                self._build_story = f"StateNotReplicable: {error}"
            except Exception:  # noqa: BLE001 - the user's; the hub decides what follows
                self._build_story = traceback.format_exc()[-STORY_CHARS_MAX:]
            self._is_built.set()
            raised = BuildRaised(self._build_story)
            self.handle(raised if self._build_story else Built())
        return self._build_story

    def serve(self, header: bytes, args: Args, kwargs: Kwargs) -> object:
        """Run one call, if this copy may. Returns its result, or what `calling` has instead."""
        context.enter(self.where)
        return calling.pack_answer(self._calls.serve(header, args, kwargs))

    def read(self, header: bytes, args: Args, kwargs: Kwargs) -> object:
        """Run a read beside others, if what this copy has is new enough."""
        context.enter(self.where)
        return calling.pack_answer(self._calls.read(header, args, kwargs))

    def stream(self, header: bytes, args: Args, kwargs: Kwargs) -> Iterator[object]:
        """Run a generator that only reads, item by item."""
        context.enter(self.where)
        yield from self._calls.stream(header, args, kwargs)

    def where(self) -> context.Context:
        """What `raphub.current()` says in this process."""
        orders, machine = self.orders, self.machine
        replication = machine.replication
        return context.Context(
            hub_id=orders.hub_id,
            child_id=orders.child_id,
            replica_id=orders.replica_id,
            node_id=orders.node_id,
            role=machine.role,
            epoch=machine.epoch,
            seq=0 if replication is None else replication.holding.applied.seq,
            call_id=context.call_id_here(),
        )

    # --- the machine --------------------------------------------------------------------------

    def handle(self, event: ReplicaEvent) -> None:
        """Feed the machine and do what it asks for, from any thread."""
        with self.changed:
            actions = self.machine.handle(event, now_s())
            for action in actions:
                self._do(action)
            if actions:
                self.changed.notify_all()
                self._wire.peers.interrupt()

    def hurry(self) -> None:
        """Somebody waits for the object to be as new as it can."""
        self._hurries.set()

    def wait_for_news(self, limit_s: float) -> None:
        """Wait so many seconds for anything that may have changed the machine; inside `changed`.

        What a write waits for is said by another copy, and read on this thread.
        """
        self.changed.release()
        try:
            was_read = self._wire.peers.read(min(limit_s, READ_SLICE_S))
        finally:
            self.changed.acquire()
        if not was_read:
            self.changed.wait(min(limit_s, OTHERS_READ_S))

    def _do(self, action: ReplicaAction) -> None:
        match action:
            case SendToPeer(peer, message):
                self._wire.send_to_peer(peer, message)
            case SendToHub(message):
                self._wire.send_to_hub(self.machine.term, message)
            case CallBack() | TellDrain():
                self._callbacks.put(action)
            case ApplySoon() | Apply():
                self._jobs.put(action)
            case ApplyNow():
                self.hurry()
            case Install() | TakeSnapshot():
                self._jobs.put(action)
                self.hurry()
            case DialPeer(peer, address):
                self._wire.dial_peer(peer, address)
            case HangUpPeer(peer):
                self._wire.hang_up(peer)
            case AbandonCallback():
                self.object.gate.abandon()
            case WakeCalls():
                pass

    # --- threads of the object ----------------------------------------------------------------

    def _run_callbacks(self) -> None:
        context.enter(self.where)
        while True:
            asked = self._callbacks.get()
            match asked:
                case CallBack(role, epoch):
                    is_active = role is Role.ACTIVE
                    trouble = self._call_back("on_role_change", role, epoch, is_active=is_active)
                    self.handle(CallbackReturned(role, epoch, trouble))
                case TellDrain(deadline_s):
                    epoch, is_active = self.machine.epoch, self.machine.role is Role.ACTIVE
                    trouble = self._call_back("on_drain", deadline_s, epoch, is_active=is_active)
                    self.handle(DrainTold(trouble))

    def _call_back(self, name: str, told: object, epoch: int, *, is_active: bool) -> str:
        """Call the user's callback, alone. Returns "" or what went wrong."""
        target = self.object
        with target.gate.alone():
            if not isinstance(target, ReplicatedObject):
                return target.tell(name, told)[-STORY_CHARS_MAX:]
            trouble, change = target.told(name, told, is_active=is_active)
            if change is not None:
                self.handle(_unasked(epoch, change))
        return trouble[-STORY_CHARS_MAX:]

    def _run_jobs(self) -> None:
        """What the other copies ship, in order, once there is an object to take it in."""
        self._is_built.wait()
        if not isinstance(self.object, ReplicatedObject):
            return
        context.enter(self.where)
        while True:
            job = self._jobs.get()
            try:
                self._do_job(self.object, job)
            except Exception:  # noqa: BLE001 - whatever it is, this copy is not what it should be
                self.handle(ApplyFailed(traceback.format_exc(limit=-5)[-STORY_CHARS_MAX:]))

    def _do_job(self, target: ReplicatedObject, job: StateJob) -> None:
        match job:
            case ApplySoon():
                self._hurries.wait(APPLY_PACE_S)
                self._hurries.clear()
                self.handle(ApplyDue())
            case Apply(writes):
                target.apply(writes)
                self.handle(Applied(writes[-1].position))
            case Install(position, image):
                target.install(image)
                self.handle(Installed(position))
            case TakeSnapshot(peer):
                with target.gate.alone():
                    self._take_snapshot(target, peer)

    def _take_snapshot(self, target: ReplicatedObject, peer: Any) -> None:  # noqa: ANN401 - ReplicaId
        try:
            missing, image = target.take_whole()
        except StateNotReplicable as error:
            self.handle(StateBroken(str(error)))
            return
        if missing is not None:
            self.handle(_unasked(self.machine.epoch, missing))
        self.handle(SnapshotTaken(peer, image, size_of(image)))


def _unasked(epoch: int, change: Any) -> CallWrote:  # noqa: ANN401 - the object's
    """A write that no client asked for."""
    return CallWrote(epoch, "", 0, 1, None, change, 0, size_of(change))


def unpickle_payload(payload: bytes) -> tuple[type, tuple[Any, ...], dict[str, Any]]:
    """The class and its arguments, with the starter's import path in place for it."""
    pickle: Any = importlib.import_module("ray.cloudpickle")
    import_path, content = pickle.loads(payload)
    sys.path.extend(entry for entry in import_path if entry not in sys.path)
    return pickle.loads(content)  # type: ignore[no-any-return]
