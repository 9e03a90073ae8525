"""How does a copy talk to hub actors and to the other copies of its child?

One thread with one asyncio loop listens, dials and hears hub actors; what other copies say is read by
whichever thread waits for it. What is heard goes to the machine at once. Any thread may send.
"""

from __future__ import annotations

import asyncio
import os
import queue
import traceback
from collections.abc import Callable
from dataclasses import replace
from threading import Thread
from typing import Any, cast

from raphub.actors.encoding import Outside, pack, pack_apart, unpack
from raphub.actors.peer_reader import PeerReader
from raphub.actors.replica_orders import ReplicaOrders, wire_identity
from raphub.actors.replicated_object import kept
from raphub.actors.wire import Connection, RefusedError, UnreachableError, dial, listen
from raphub.core.messages import (
    FromHub,
    FromPeer,
    HubConnected,
    PeerClosed,
    PeerConnected,
    ReplicaEvent,
    TakeRole,
    Ticked,
)
from raphub.core.model import Address, ReplicaId
from raphub.core.shipments import Acked, Began, EpochOver, Pulse, Ship, Snapshot, Standing

TICKS_PER_RENEWAL = 5


class ReplicaWire:
    """The wire's thread of one copy: listens, feeds the machine, beats."""

    def __init__(self, handle: Callable[[ReplicaEvent], None], orders: ReplicaOrders) -> None:
        """Start the thread and wait until it listens; raises `OSError` if it cannot."""
        self._handle = handle
        self._orders = orders
        self._hubs: dict[Connection, int] = {}
        self._callers: dict[Connection, ReplicaId] = {}
        self._answering: dict[ReplicaId, Connection] = {}
        self._dialled: dict[ReplicaId, Connection] = {}
        self.peers = PeerReader()
        self._common: Ship | Began | None = None
        self._common_packed = b""
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        started: queue.SimpleQueue[tuple[str, int] | BaseException] = queue.SimpleQueue()
        Thread(target=self._run, args=(started,), name="raphub-wire", daemon=True).start()
        address = started.get()
        if isinstance(address, BaseException):
            raise address
        self.address = address

    # --- from any thread ----------------------------------------------------------------------

    def send_to_hub(self, term: int, message: object) -> None:
        """Send to the hub actor of this term, if it is connected."""
        for connection, hub_term in list(self._hubs.items()):
            if hub_term == term:
                connection.send(message)

    def send_to_peer(self, peer: ReplicaId, message: object) -> None:
        """Send to another copy, if it is connected: a passive answers on its active's connection."""
        is_answer = isinstance(message, Standing | Acked | Pulse | EpochOver)
        connection = (self._answering if is_answer else self._dialled).get(peer)
        if connection is None:
            return
        if isinstance(message, Snapshot):
            message = replace(message, answers=Outside(pack(message.answers)))
        if isinstance(message, Ship | Began):
            # The same for all passives, and packed once. Sent under the machine's lock, so by one
            # thread at a time; what has data apart is not held on to.
            if message is not self._common:
                packed, apart = pack_apart(message)
                if apart:
                    connection.send_packed(packed, apart)
                    return
                self._common, self._common_packed = message, packed
            connection.send_packed(self._common_packed, ())
        else:
            connection.send(message)

    def dial_peer(self, peer: ReplicaId, address: Address) -> None:
        """Connect to another copy; an event says what came of it."""
        self._loop.call_soon_threadsafe(self._spawn_dial, peer, address)

    def hang_up(self, peer: ReplicaId) -> None:
        """End the connection to a passive; nobody is told."""
        connection = self._dialled.pop(peer, None)
        if connection is not None:
            connection.close()

    # --- the thread ---------------------------------------------------------------------------

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
                self._handle(Ticked())

    def _spawn_dial(self, peer: ReplicaId, address: Address) -> None:
        task = self._loop.create_task(self._dial(peer, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, peer: ReplicaId, address: Address) -> None:
        orders = self._orders
        try:
            await dial(
                address,
                orders.secret,
                wire_identity(orders.incarnation, peer),
                PeerLink(self, peer),
                timeout_s=orders.dial_timeout_s,
                frame_bytes_max=orders.frame_bytes_max,
            )
        except (RefusedError, UnreachableError):
            self._handle(PeerClosed(peer))

    # --- connections to passives --------------------------------------------------------------

    def peer_connected(self, peer: ReplicaId, connection: Connection) -> None:
        """The passive has proved itself; it is told who calls."""
        old = self._dialled.get(peer)
        self._dialled[peer] = connection
        if old is not None:
            old.close()
        self._loop.call_soon(self.peers.take, connection)
        connection.send(PeerConnected(ReplicaId(self._orders.replica_id)))
        self._handle(PeerConnected(peer))

    def peer_said(self, peer: ReplicaId, connection: Connection, message: Any) -> None:  # noqa: ANN401
        """A passive answers."""
        if self._dialled.get(peer) is connection:
            self._handle(FromPeer(peer, message))

    def peer_closed(self, peer: ReplicaId, connection: Connection) -> None:
        """The connection to a passive broke."""
        if self._dialled.get(peer) is connection:
            del self._dialled[peer]
            self._handle(PeerClosed(peer))

    # --- wire.Receiver: whoever dials this copy -----------------------------------------------

    def connected(self, connection: Connection) -> None:
        """The other end introduces itself in its first frame."""

    def received(self, connection: Connection, message: Any) -> None:  # noqa: ANN401 - any message
        """A hub actor or an active says who it is, or what this copy is to do."""
        caller = self._callers.get(connection)
        match message:
            case HubConnected(term):
                self._hubs[connection] = term
                self._handle(message)
            case FromHub() if connection in self._hubs:
                if isinstance(message.message, TakeRole):
                    # Which call the last active had begun has come before, and on another thread.
                    self.peers.catch_up()
                self._handle(message)
            case PeerConnected(peer):
                self._callers[connection] = peer
                self._answering[peer] = connection
                self._loop.call_soon(self.peers.take, connection)
            case Snapshot() if caller is not None:
                self._handle(
                    FromPeer(
                        caller,
                        replace(message, answers=unpack(cast("memoryview", message.answers))),
                    )
                )
            case Ship() if caller is not None:
                writes = tuple(map(kept, message.entries))
                if writes != message.entries:
                    message = replace(message, entries=writes)
                self._handle(FromPeer(caller, message))
            case _ if caller is not None:
                self._handle(FromPeer(caller, message))
            case _:
                connection.close()

    def closed(self, connection: Connection) -> None:
        """Somebody has gone, or the link is cut: the lease decides what follows."""
        self._hubs.pop(connection, None)
        caller = self._callers.pop(connection, None)
        if caller is not None and self._answering.get(caller) is connection:
            del self._answering[caller]


class PeerLink:
    """The receiver of one connection to a passive."""

    def __init__(self, wire: ReplicaWire, peer: ReplicaId) -> None:
        """Made for one attempt to connect."""
        self._wire = wire
        self._peer = peer

    def connected(self, connection: Connection) -> None:
        """Both sides are proved."""
        self._wire.peer_connected(self._peer, connection)

    def received(self, connection: Connection, message: object) -> None:
        """The passive has said something."""
        self._wire.peer_said(self._peer, connection, message)

    def closed(self, connection: Connection) -> None:
        """The connection is over."""
        self._wire.peer_closed(self._peer, connection)
