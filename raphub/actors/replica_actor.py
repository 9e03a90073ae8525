"""How does one copy of a child live in a Ray actor?

Drives `ReplicaMachine`. A plain synchronous actor: calls come over Ray on its main thread, the wire
has a thread of its own, and role callbacks another, so that no busy method blocks a heartbeat.
The machine is only ever fed on the wire's thread; calls ask it questions under the same lock.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import queue
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import Any

from raphub import context
from raphub.actors import calling
from raphub.actors.clock import now_s
from raphub.actors.user_object import UserObject
from raphub.actors.wire import Connection, listen
from raphub.core.messages import (
    AbandonCallback,
    BuildBegan,
    BuildRaised,
    Built,
    CallBack,
    CallbackReturned,
    FromHub,
    HubConnected,
    ReplicaEvent,
    SendToHub,
    Ticked,
    WakeCalls,
)
from raphub.core.model import ReplicaId, Signal
from raphub.core.replica_machine import ReplicaMachine
from raphub.core.replication import Admission

ADMISSION_WAIT_S = 1.0
"""How long a call waits at a copy that is about to serve, before its caller is told to look again."""

TICKS_PER_RENEWAL = 5


@dataclass(frozen=True, slots=True)
class ReplicaOrders:
    """All that the hub tells a copy when it is created. Times in seconds, sizes in bytes."""

    hub_id: str
    incarnation: str
    child_id: str
    replica_id: str
    node_id: str
    secret: bytes
    is_led: bool
    signal: str
    lease_duration_s: float
    lease_renewal_s: float
    role_deadline_s: float
    wire_ports: tuple[int, int] | None
    frame_bytes_max: int

    @property
    def identity(self) -> str:
        """What the copy proves to be, on the wire."""
        return wire_identity(self.incarnation, self.replica_id)


def wire_identity(incarnation: str, replica_id: str) -> str:
    """What a copy proves to be; unique over all hubs and their restarts."""
    return f"{incarnation}/{replica_id}"


class ReplicaActor:
    """The Ray actor. Its public methods are called over Ray, all on one thread and in order."""

    def __init__(self, orders: ReplicaOrders) -> None:
        """Listen on the wire; the user's object comes later, with `build`."""
        self._orders = orders
        self._machine = ReplicaMachine(
            ReplicaId(orders.replica_id),
            pid=os.getpid(),
            is_led=orders.is_led,
            signal=Signal(orders.signal),
            lease_duration_s=orders.lease_duration_s,
            lease_renewal_s=orders.lease_renewal_s,
            role_deadline_s=orders.role_deadline_s,
        )
        self._changed = threading.Condition()
        self._object = UserObject()
        self._build_story: str | None = None
        self._callbacks: queue.SimpleQueue[CallBack] = queue.SimpleQueue()
        self._wire = ReplicaWire(self, orders)
        context.enter(self.where)
        threading.Thread(target=self._run_callbacks, name="raphub-roles", daemon=True).start()

    # --- called over Ray ----------------------------------------------------------------------

    def locate(self) -> tuple[str, int, int]:
        """The host and port of the wire, and the process."""
        return (*self._wire.address, os.getpid())

    def build(self, payload: bytes) -> str:
        """Construct the user's object, once. Returns "" or the traceback of what it raised."""
        if self._build_story is None:
            self._wire.feed(BuildBegan())
            self._build_story = ""
            try:
                self._object.build(*unpickle_payload(payload))
            except Exception:  # noqa: BLE001 - the user's; the hub decides what follows
                self._build_story = traceback.format_exc()
            raised = BuildRaised(self._build_story)
            self._wire.feed(raised if self._build_story else Built())
        return self._build_story

    def serve(self, header: str, /, *args: object, **kwargs: object) -> object:
        """Run one call, if this copy may. Returns its result, or what `calling` has instead."""
        _, _, epoch, method = calling.read_header(header)
        if epoch != calling.ANY_ROLE:
            verdict, epoch = self._admit(epoch)
            if verdict is not Admission.SERVE:
                return calling.Refused(verdict.value)
        answer: object
        try:
            answer = self._object.call(method, args, kwargs)
        except Exception as error:  # noqa: BLE001 - the user's; it reaches the caller unchanged
            answer = portable(error)
        if epoch != calling.ANY_ROLE and not self._may_answer(epoch):
            return calling.Withheld("the copy lost its lease while the call ran")
        return answer

    # --- questions to the machine -------------------------------------------------------------

    def _admit(self, call_epoch: int) -> tuple[Admission, int]:
        with self._changed:
            verdict = self._machine.admit(call_epoch, now_s())
            if verdict is Admission.WAIT:
                gives_up_at = now_s() + ADMISSION_WAIT_S
                while verdict is Admission.WAIT and (left_s := gives_up_at - now_s()) > 0:
                    self._changed.wait(left_s)
                    verdict = self._machine.admit(call_epoch, now_s())
            return verdict, self._machine.epoch

    def _may_answer(self, epoch: int) -> bool:
        """May the answer go? A lapsed lease may still be renewed; a new epoch ends the waiting."""
        with self._changed:
            gives_up_at = now_s() + self._orders.lease_duration_s
            while not self._machine.may_answer(epoch, now_s()):
                left_s = gives_up_at - now_s()
                if left_s <= 0 or not self._machine.may_serve_again(epoch):
                    return False
                self._changed.wait(left_s)
            return True

    def where(self) -> context.Context:
        """What `raphub.current()` says in this process."""
        orders, machine = self._orders, self._machine
        return context.Context(
            hub_id=orders.hub_id,
            child_id=orders.child_id,
            replica_id=orders.replica_id,
            node_id=orders.node_id,
            role=machine.role,
            epoch=machine.epoch,
        )

    # --- the machine's actions ----------------------------------------------------------------

    def handle(self, event: ReplicaEvent) -> None:
        """Feed the machine and do what it asks for. Runs on the wire's thread only."""
        with self._changed:
            for action in self._machine.handle(event, now_s()):
                match action:
                    case SendToHub(message):
                        self._wire.send(self._machine.term, message)
                    case CallBack():
                        self._callbacks.put(action)
                    case AbandonCallback():
                        self._object.gate.abandon()
                    case WakeCalls():
                        pass
            self._changed.notify_all()

    def _run_callbacks(self) -> None:
        context.enter(self.where)
        while True:
            asked = self._callbacks.get()
            trouble = self._object.change_role(asked.role)
            self._wire.feed(CallbackReturned(asked.role, asked.epoch, trouble))


class ReplicaWire:
    """The wire's thread of one copy: listens, feeds the machine, beats."""

    def __init__(self, actor: ReplicaActor, orders: ReplicaOrders) -> None:
        """Start the thread and wait until it listens; raises `OSError` if it cannot."""
        self._actor = actor
        self._orders = orders
        self._hubs: dict[Connection, int] = {}
        self._loop = asyncio.new_event_loop()
        started: queue.SimpleQueue[tuple[str, int] | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(started,), name="raphub-wire", daemon=True).start()
        address = started.get()
        if isinstance(address, BaseException):
            raise address
        self.address = address

    def feed(self, event: ReplicaEvent) -> None:
        """Hand the machine an event, from any thread."""
        self._loop.call_soon_threadsafe(self._actor.handle, event)

    def send(self, term: int, message: object) -> None:
        """Send to the hub actor of this term, if it is connected."""
        for connection, hub_term in self._hubs.items():
            if hub_term == term:
                connection.send(message)

    def _run(self, started: queue.SimpleQueue[tuple[str, int] | BaseException]) -> None:
        """A copy without its wire could neither serve nor be found dead: it ends its process."""
        try:
            self._loop.run_until_complete(self._live(started))
        except BaseException:  # noqa: BLE001 - whatever it is, the process must not outlive it
            traceback.print_exc()
        os._exit(1)

    async def _live(self, started: queue.SimpleQueue[tuple[str, int] | BaseException]) -> None:
        import ray  # noqa: PLC0415 - only where a copy runs

        orders = self._orders
        try:
            server, address = await listen(
                ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
                orders.wire_ports,
                orders.secret,
                orders.identity,
                self,
                frame_bytes_max=orders.frame_bytes_max,
            )
        except OSError as error:
            started.put(error)
            raise
        started.put(address)
        async with server:
            while True:
                await asyncio.sleep(orders.lease_renewal_s / TICKS_PER_RENEWAL)
                self._actor.handle(Ticked())

    # --- wire.Receiver ------------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        """The hub introduces itself in its first frame."""

    def received(self, connection: Connection, message: object) -> None:
        """A hub actor says who it is, or what this copy is to do."""
        match message:
            case HubConnected(term):
                self._hubs[connection] = term
                self._actor.handle(message)
            case FromHub() if connection in self._hubs:
                self._actor.handle(message)
            case _:
                connection.close()

    def closed(self, connection: Connection) -> None:
        """A hub actor has gone, or the link is cut: the lease decides what follows."""
        self._hubs.pop(connection, None)


def unpickle_payload(payload: bytes) -> tuple[type, tuple[Any, ...], dict[str, Any]]:
    """The class and its arguments, with the starter's import path in place for it."""
    pickle: Any = importlib.import_module("ray.cloudpickle")
    import_path, content = pickle.loads(payload)
    sys.path.extend(entry for entry in import_path if entry not in sys.path)
    return pickle.loads(content)  # type: ignore[no-any-return]


def portable(error: Exception) -> calling.Raised:
    """The exception as bytes, and the story of where it came from."""
    pickle: Any = importlib.import_module("ray.cloudpickle")
    story = "".join(traceback.format_exception(error)).rstrip()
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # noqa: BLE001 - the user's class decides what fails here
        data = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return calling.Raised(data, story)
