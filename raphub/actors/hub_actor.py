"""How does the coordinator live in a Ray actor?

Drives `HubMachine`. One thread with one asyncio loop does everything that decides: it takes events
from a queue, feeds the machine, puts the facts of the whole batch at rest with one append, and only
then performs the actions. The wire runs on the same loop, so that a broken connection becomes a
promotion without a change of threads. Whoever asks over Ray waits on other loops.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import ray

from raphub.actors import guardian
from raphub.actors.clock import now_s
from raphub.actors.custom_strategy import (
    CustomStrategy,
    StrategyNotLoadedError,
    load_strategy,
)
from raphub.actors.encoding import pack, unpack
from raphub.actors.history import History
from raphub.actors.journal import Charter, HubStore
from raphub.actors.launcher import Launcher, WireSettings
from raphub.actors.node_watch import NodeWatch
from raphub.actors.registry import Registry, Update, Version
from raphub.actors.replica_orders import wire_identity
from raphub.actors.wire import Connection, RefusedError, UnreachableError, dial, is_refused
from raphub.core.hub_machine import HubMachine
from raphub.core.journal import Journal
from raphub.core.messages import (
    ControlRequest,
    Dial,
    FromHub,
    FromReplica,
    HubAction,
    HubConnected,
    HubEvent,
    NodeRefused,
    NodesSeen,
    Note,
    ProbeNode,
    ProcessGone,
    Publish,
    PublishCluster,
    Record,
    Recovered,
    Reply,
    SendToReplica,
    StartReplica,
    StopReplica,
    TermHeld,
    Ticked,
    WireClosed,
)
from raphub.core.model import (
    Address,
    ChildId,
    Distribution,
    DistributionKind,
    HubSettings,
    NodeId,
    ReplicaId,
    replica_id,
)
from raphub.core.records import Ledger, RequestId
from raphub.core.views import ChildView

TICK_S = 0.05
TERM_CHECKS_PER_LIMIT = 4
COMPACT_AFTER_ENTRIES = 200
GUARDIAN_SILENCE_S = 1.0
POLL_TIMEOUT_S = 10.0
IMPORT_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class HubOrders:
    """What a hub actor is created with; a charter that exists already goes before it."""

    hub_id: str
    config_json: str
    settings: bytes
    events_max: int
    wire: WireSettings


@dataclass(frozen=True, slots=True)
class HubDescription:
    """What hub an actor coordinates: its configuration as JSON, and the actor's process.

    `trouble` says why the actor cannot use the strategy that is configured; empty if it can.
    """

    incarnation: str
    term: int
    config_json: str
    pid: int
    trouble: str = ""


class HubActor:
    """The Ray actor. Everything public is called over Ray and runs on Ray's own loops."""

    def __init__(self, orders: HubOrders) -> None:
        """Do nothing that can fail: Ray would count it as a death of the actor for good."""
        self._life = HubLife(orders)
        threading.Thread(target=self._life.run, name="raphub-hub", daemon=True).start()

    async def describe(self) -> HubDescription:
        """What hub this is, once it is up."""
        await self._life.until_up()
        charter, term = self._life.charter, self._life.machine.term
        trouble = self._life.strategy_trouble
        return HubDescription(charter.incarnation, term, charter.config_json, os.getpid(), trouble)

    @ray.method(concurrency_group="requests")
    async def request(self, packed: bytes) -> bytes:
        """A packed `ControlRequest`; returns its packed answer."""
        await self._life.until_up()
        event = unpack(packed)
        assert isinstance(event, ControlRequest)
        return pack(await self._life.answer_to(event))

    @ray.method(concurrency_group="polls", max_task_retries=0)
    async def poll(self, term: int, number: int) -> Update:
        """What the caller's copy of the registry does not have yet; waits for it."""
        await self._life.until_up()
        return await self._life.registry.poll(Version(term, number), POLL_TIMEOUT_S)

    async def events(self, since: int) -> bytes:
        """The packed lines of the history after this index."""
        await self._life.until_up()
        lines = self._life.history.since(since)
        return pack(tuple((line.index, line.time_s, line.note) for line in lines))

    async def dissolve(self) -> None:
        """Remove all keys of the hub. Its children have been stopped; the caller ends the actor."""
        await self._life.until_up()
        await asyncio.get_running_loop().run_in_executor(None, self._life.dissolve)


class HubLife:
    """One life of a hub actor, from reading the journal to the end of the process."""

    def __init__(self, orders: HubOrders) -> None:
        """Everything real happens in `run`."""
        self._orders = orders
        self._is_up = threading.Event()
        self._up_waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, int], list[Callable[[object], None]]] = {}
        self._connections: dict[ReplicaId, Connection] = {}
        self._dialing: dict[Connection, ReplicaId] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_dissolving = False
        self.strategy_trouble = ""
        self.history = History(orders.events_max)

    # --- for Ray's loops ----------------------------------------------------------------------

    async def until_up(self) -> None:
        """Wait until the journal is read and the registry is whole."""
        if self._is_up.is_set():
            return
        event = asyncio.Event()
        with self._lock:
            self._up_waiters.append((asyncio.get_running_loop(), event))
        if not self._is_up.is_set():
            await event.wait()

    async def answer_to(self, event: ControlRequest) -> object:
        """Hand the request to the machine and wait for its answer, however long that takes."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()

        def answered(answer: object) -> None:
            loop.call_soon_threadsafe(_set_answer, future, answer)

        with self._lock:
            self._answers.setdefault(event.request.key, []).append(answered)
        self.report(event)
        return await future

    def report(self, event: HubEvent) -> None:
        """Hand the machine an event, from any thread."""
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def dissolve(self) -> None:
        """Remove every key; from now on this actor is nobody's hub."""
        self._is_dissolving = True
        self.store.erase()

    # --- the life -----------------------------------------------------------------------------

    def run(self) -> None:
        """Live until superseded; whatever ends it ends the process, and Ray starts the next."""
        try:
            self._start_guardian()
            asyncio.run(self._live())
        except BaseException:  # noqa: BLE001 - the next life starts afresh
            traceback.print_exc()
        os._exit(1)

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[HubEvent] = asyncio.Queue()
        settings = self._read_charter()
        self._recover(settings, await self._load_strategy(settings.distribution))
        await asyncio.to_thread(self._look_around)
        await self._drain_events()
        self._process([Recovered()])
        self._adopt_handles()
        await self._serve()

    def _look_around(self) -> None:
        """What is in the cluster: its nodes and the copies that are there, from now on."""
        has_loads = self.machine.settings.distribution.has_loads
        NodeWatch(self.report, has_loads=has_loads).start()
        self.launcher.keep_looking()

    def _read_charter(self) -> HubSettings:
        """The settings of the hub, which were kept when it was first started."""
        orders = self._orders
        self.store = HubStore(orders.hub_id, self._beat)
        self.charter: Charter = self.store.charter(orders.config_json, orders.settings)
        settings: HubSettings = unpack(self.charter.settings)
        return settings

    async def _load_strategy(self, distribution: Distribution) -> CustomStrategy | None:
        """The user's strategy, if there is one; an import that is slow does not look like a death."""
        if distribution.kind is not DistributionKind.CUSTOM:
            return None
        gives_up_at = now_s() + IMPORT_PATIENCE_S
        loading = asyncio.create_task(asyncio.to_thread(load_strategy, distribution, self._beat))
        while not loading.done() and now_s() < gives_up_at:
            self._beat()
            await asyncio.wait([loading], timeout=TICK_S)
        try:
            if loading.done():
                return loading.result()
            self.strategy_trouble = f"the import of {distribution.cls!r} takes too long"
        except StrategyNotLoadedError as error:
            self.strategy_trouble = str(error)
        text = f"consistent hashing decides: {self.strategy_trouble}"
        self.history.add(Note("strategy_failed", text))
        return None

    def _recover(self, settings: HubSettings, strategy: CustomStrategy | None) -> None:
        """Read the journal, claim the term, and be ready to decide."""
        orders = self._orders
        self.journal = Journal(secrets.token_hex(6))
        ledger = Ledger(tombs_max=settings.tombstones_max, answers_max=settings.answers_max)
        began_at = now_s()
        for fact in self.store.perform(self.journal.recover()):
            ledger.apply(fact)
        for fact in self.store.perform(self.journal.claim()):
            ledger.apply(fact)
        began_at = now_s()
        self.machine = HubMachine(settings, ledger, self.journal.term, began_at, strategy)
        self.launcher = Launcher(
            orders.hub_id,
            self.charter.incarnation,
            self.charter.secret,
            settings,
            orders.wire,
            self.report,
        )
        self.registry = Registry(self.charter.incarnation, self.journal.term, self.launcher.handles)

    def _adopt_handles(self) -> None:
        """Find the handles of all copies in the background; the hub is up when they are known."""
        known = [
            replica_id(child_id, number)
            for child_id, child in self.machine.ledger.children.items()
            for number, placed in child.replicas.items()
            if placed.address is not None
        ]
        threading.Thread(target=self._find_then_up, args=(known,), daemon=True).start()

    def _find_then_up(self, known: list[ReplicaId]) -> None:
        self.launcher.find_all(known)
        with self._lock:
            self._is_up.set()
            waiters, self._up_waiters = self._up_waiters, []
        for loop, event in waiters:
            loop.call_soon_threadsafe(event.set)

    async def _serve(self) -> None:
        check_every_s = self.machine.settings.term_check_s / TERM_CHECKS_PER_LIMIT
        checked_at = now_s()
        while True:
            batch = await self._next_batch()
            if self._is_dissolving:
                await asyncio.sleep(3600)
                continue
            now = now_s()
            if now - checked_at >= check_every_s:
                checked_at = now
                self.store.perform(self.journal.check())
                batch.append(TermHeld(now))
            self._process(batch)
            self._beat()

    async def _next_batch(self) -> list[HubEvent]:
        """All events that wait, or a tick when none comes in time."""
        batch: list[HubEvent] = []
        wakes_at = self.machine.wakes_at()
        tick_at = self._ticked_at + TICK_S
        wait_s = min(tick_at, tick_at if wakes_at is None else wakes_at) - now_s()
        try:
            async with asyncio.timeout(max(0.0, wait_s)):
                batch.append(await self._events.get())
        except TimeoutError:
            batch.append(Ticked())
            self._ticked_at = now_s()
        while not self._events.empty():
            batch.append(self._events.get_nowait())
        return batch

    _ticked_at = 0.0

    async def _drain_events(self) -> None:
        """Take in what the first looks found before anything is decided."""
        await asyncio.sleep(0)
        batch: list[HubEvent] = []
        while not self._events.empty():
            batch.append(self._events.get_nowait())
        self._process(batch)

    def _process(self, batch: list[HubEvent]) -> None:
        """Decide on all events, put the facts at rest, then do the rest in order."""
        facts: list[Any] = []
        actions: list[HubAction] = []
        for event in batch:
            for action in self.machine.handle(event, now_s()):
                if isinstance(action, Record):
                    facts.extend(action.facts)
                else:
                    actions.append(action)
        if facts:
            began_at = now_s()
            self.store.perform(self.journal.append(tuple(facts)))
            actions.extend(self.machine.handle(TermHeld(began_at), now_s()))
        self._perform(actions)
        if any(isinstance(event, NodesSeen) for event in batch):
            self._publish_cluster()
        if self.journal.entries_since_snapshot >= COMPACT_AFTER_ENTRIES:
            self.store.perform(self.journal.compact(tuple(self.machine.ledger.facts())))

    # --- actions ------------------------------------------------------------------------------

    def _perform(self, actions: list[HubAction]) -> None:  # noqa: PLR0912 - one case an action
        changed: dict[ChildId, ChildView | None] = {}
        for action in actions:
            match action:
                case SendToReplica(replica, message):
                    connection = self._connections.get(replica)
                    if connection is not None:
                        connection.send(FromHub(self.machine.term, message))
                case Publish(child_id):
                    changed[child_id] = self.machine.view(child_id, now_s())
                case Dial(replica, address):
                    self._spawn(self._dial(replica, address))
                case ProbeNode(node_id, address):
                    self._spawn(self._probe(node_id, address))
                case StartReplica():
                    self.launcher.start(action)
                case StopReplica(replica):
                    self.launcher.stop(replica)
                case PublishCluster():
                    self._publish_cluster()
                case Reply(request, answer):
                    self._reply(request, answer)
                case Note():
                    self.history.add(action)
                case Record():
                    raise AssertionError("a record was not put at rest first")
        if changed:
            self.registry.publish(changed)

    def _reply(self, request: RequestId, answer: object) -> None:
        with self._lock:
            waiting = self._answers.pop(request.key, [])
        for answered in waiting:
            answered(answer)

    def _publish_cluster(self) -> None:
        nodes = tuple(self.machine.state.nodes.values())
        usable = tuple(node.node_id for node in nodes if self.machine.is_usable(node))
        self.registry.publish_cluster(pack((nodes, usable, self.machine.state.standstill or "")))

    # --- the wire -----------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self, node_id: NodeId, address: Address) -> None:
        if await is_refused(address, timeout_s=self.machine.settings.dial_timeout_s):
            self._events.put_nowait(NodeRefused(node_id))

    async def _dial(self, replica: ReplicaId, address: Address) -> None:
        wire = ReplicaLink(self, replica)
        try:
            await dial(
                address,
                self.charter.secret,
                wire_identity(self.charter.incarnation, replica),
                wire,
                timeout_s=self.machine.settings.dial_timeout_s,
                frame_bytes_max=self._orders.wire.frame_bytes_max,
            )
        except RefusedError:
            self._events.put_nowait(ProcessGone(replica))
        except UnreachableError:
            self._events.put_nowait(WireClosed(replica))

    def link_connected(self, replica: ReplicaId, connection: Connection) -> None:
        """The replica has proved itself; it reports next."""
        old = self._connections.get(replica)
        self._connections[replica] = connection
        if old is not None:
            old.close()
        connection.send(HubConnected(self.machine.term))

    def link_received(self, replica: ReplicaId, connection: Connection, message: Any) -> None:  # noqa: ANN401 - checked by the machine
        """A message counts on the replica's present connection only."""
        if self._connections.get(replica) is connection:
            self._events.put_nowait(FromReplica(replica, message))

    def link_closed(self, replica: ReplicaId, connection: Connection) -> None:
        """Only the present connection's end means something."""
        if self._connections.get(replica) is connection:
            del self._connections[replica]
            self._events.put_nowait(WireClosed(replica))

    # --- the guardian -------------------------------------------------------------------------

    def _start_guardian(self) -> None:
        self._guardian = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                guardian.__file__,
                str(os.getpid()),
                str(GUARDIAN_SILENCE_S),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.set_blocking(self._guardian.stdin.fileno(), False)  # type: ignore[union-attr]

    def _beat(self) -> None:
        """Tell the guardian that this life goes on."""
        now = now_s()
        if now - self._beat_at < GUARDIAN_SILENCE_S / 10:
            return
        self._beat_at = now
        try:
            os.write(self._guardian.stdin.fileno(), b".")  # type: ignore[union-attr]
        except OSError:
            return

    _beat_at = 0.0


def _set_answer(future: asyncio.Future[object], answer: object) -> None:
    if not future.done():
        future.set_result(answer)


class ReplicaLink:
    """The hub's end of one connection, which knows whose it is."""

    def __init__(self, life: HubLife, replica: ReplicaId) -> None:
        """Everything is handed on to the life."""
        self._life = life
        self._replica = replica

    def connected(self, connection: Connection) -> None:
        """Both sides have proved who they are."""
        self._life.link_connected(self._replica, connection)

    def received(self, connection: Connection, message: object) -> None:
        """A frame has arrived."""
        self._life.link_received(self._replica, connection, message)

    def closed(self, connection: Connection) -> None:
        """The connection is over."""
        self._life.link_closed(self._replica, connection)
