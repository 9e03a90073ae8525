"""How does one life of the hub actor run in the simulated world?

As the shell does: batches of events, all facts at rest first, then the actions in order. It may die
or be paused between any two store operations and between any two actions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raphub.core.hub_machine import HubMachine
from raphub.core.journal import NO_ANSWER, Delete, Journal, Operation, SupersededError
from raphub.core.messages import (
    CopiesFound,
    Dial,
    Failure,
    FromHub,
    FromReplica,
    HubAction,
    HubEvent,
    JobsEnded,
    LoadsSeen,
    NodeRefused,
    NodesSeen,
    Note,
    ProbeNode,
    ProcessGone,
    Publish,
    PublishCluster,
    Record,
    Recovered,
    ReplicaFailed,
    ReplicaLocated,
    ReplicaMessage,
    ReplicaStopped,
    Reply,
    SendToReplica,
    StartReplica,
    StopReplica,
    TermHeld,
    Ticked,
    WireClosed,
)
from raphub.core.model import DistributionKind, NodeId, ReplicaId
from raphub.core.placement import Candidate
from raphub.core.records import Answer, Fact, Ledger, RequestId
from raphub.core.views import ChildView
from tests.simulation.cluster import Cluster, Process
from tests.simulation.store import Store
from tests.simulation.world import HEAD, World

TICK_S = 0.1
COMPACT_AFTER_ENTRIES = 25
LOOK_EVERY_S = 20.0
LOADS_EVERY_S = 2.0
STEPS_FOR_EVER = 1 << 60


@dataclass
class HubLife:
    """One life. `number` tells lives apart; `steps_left` is after how many steps it dies."""

    world: World
    cluster: Cluster
    store: Store
    number: int
    on_publish: Callable[[HubLife, str, ChildView | None], None]
    on_reply: Callable[[RequestId, Answer], None]
    on_end: Callable[[HubLife], None]
    is_alive: bool = True
    is_paused: bool = False
    steps_left: int = STEPS_FOR_EVER
    machine: HubMachine | None = None
    events: list[HubEvent] = field(default_factory=list)
    unread: list[FromReplica] = field(default_factory=list)
    links: set[ReplicaId] = field(default_factory=set)
    ending: set[ReplicaId] = field(default_factory=set)
    woke_at: float = float("-inf")
    _due: bool = False

    def __post_init__(self) -> None:
        self.clock = self.world.clock()
        self.journal = Journal(f"life-{self.number}")
        self._work = self._live()
        self.world.at(0, self._go_on)

    # --- the thread ---------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Run until the next wait, unless dead or paused; a paused one goes on when it wakes."""
        if not self.is_alive:
            return
        if self.is_paused:
            self._due = True
            return
        try:
            wait_s = next(self._work)
        except SupersededError as reason:
            self.world.note("life", self.number, "steps down:", reason)
            self.world.totals["superseded"] += 1
            self.end()
            return
        except StopIteration:
            return
        self.world.at(wait_s, self._go_on)

    def wake(self) -> None:
        """Go on after a pause."""
        self.is_paused = False
        self.woke_at = self.world.now
        self.world.at(0.02, self._read)
        if self._due:
            self._due = False
            self._go_on()

    def _read(self) -> None:
        """What waited in the sockets during a pause is read after the first look at the clock."""
        unread, self.unread = self.unread, []
        for heard in unread:
            self.report(heard)

    def end(self) -> None:
        """The process ends, with its connections."""
        if not self.is_alive:
            return
        self.is_alive = False
        for process in self.cluster.living():
            process.links.pop(self.number, None)
        self.on_end(self)

    def _step(self) -> None:
        """One more thing was done; perhaps it was the last."""
        self.steps_left -= 1
        if self.steps_left <= 0:
            self.world.note("life", self.number, "dies between two steps")
            self.end()

    def own_now(self) -> float:
        """Its own clock."""
        return self.clock.own(self.world.now)

    def _perform(self, steps: Generator[Operation, Any, Any]) -> Generator[float, None, Any]:
        """Drive a procedure of the journal, with delays, lost answers and deaths in between."""
        outcome: Any = None
        while self.is_alive:
            try:
                operation = steps.send(outcome)
            except StopIteration as stop:
                return stop.value
            yield self.world.chance.uniform(0.0002, 0.001)
            if self.world.likely(0.01):
                outcome = NO_ANSWER
                if self.world.likely(0.5):
                    self.store.perform(operation)
                yield 0.5
            else:
                outcome = self.store.perform(operation)
            if not isinstance(operation, Delete):
                self._step()
        yield 0.0
        return None

    def _live(self) -> Generator[float, None, None]:
        settings = self.cluster.settings
        ledger = Ledger(settings.tombstones_max, settings.answers_max)
        facts: list[Fact] = yield from self._perform(self.journal.recover())
        missed: list[Fact] = yield from self._perform(self.journal.claim())
        for fact in (*facts, *missed):
            ledger.apply(fact)
        self.machine = HubMachine(
            settings, ledger, self.journal.term, self.own_now(), self._moody_strategy
        )
        self.world.note("life", self.number, "has term", self.journal.term)
        self.cluster.checkers.life_began(self)
        yield from self._process([NodesSeen(self.cluster.seen_nodes())])
        if ended := self.cluster.ended_jobs():
            self.report(JobsEnded(ended))
        yield from self._process([self._copies_found(), Recovered()])
        checked_at = looked_at = loads_at = self.own_now()
        while True:
            yield min(TICK_S, 0.002 if self.events else TICK_S)
            batch, self.events = [*self.events, Ticked()], []
            now = self.own_now()
            if now - checked_at >= settings.term_check_s / 4:
                checked_at = now
                yield from self._perform(self.journal.check())
                batch.append(TermHeld(now))
            if now - looked_at >= LOOK_EVERY_S:
                looked_at = now
                batch.append(self._copies_found())
            if now - loads_at >= LOADS_EVERY_S and self._has_loads():
                loads_at = now
                batch.append(self._loads_seen())
            yield from self._process(batch)
            if self.journal.entries_since_snapshot >= COMPACT_AFTER_ENTRIES:
                snapshot = tuple(self.machine.ledger.facts())
                self.cluster.checkers.compacts(self, snapshot)
                yield from self._perform(self.journal.compact(snapshot))

    def _copies_found(self) -> CopiesFound:
        return CopiesFound(tuple(p.replica for p in self.cluster.living()))

    def _has_loads(self) -> bool:
        return self.cluster.settings.distribution.kind is DistributionKind.LEAST_LOADED

    def _loads_seen(self) -> LoadsSeen:
        """Ray's figures, from what runs; now and then a node is missing in them."""
        free: dict[NodeId, dict[str, float]] = {}
        for node in self.cluster.seen_nodes():
            on = [p for p in self.cluster.living() if p.node.name == node.node_id]
            used = sum(p.plan.resources.get("CPU", 0.001) for p in on)
            if not self.world.likely(0.1):
                free[node.node_id] = {"CPU": node.resources["CPU"] - used}
        return LoadsSeen(free)

    def _moody_strategy(
        self, child_id: str, nodes: Sequence[Candidate], taken: Mapping[str, int]
    ) -> object:
        """A user's strategy that now and then raises, errs, or does not like a node."""
        if self.world.likely(0.1):
            raise ValueError(f"no idea where to put {child_id}")
        if self.world.likely(0.2):
            return [node.node_id for node in self.cluster.seen_nodes()][::-1]
        liked = sorted((node.node_id for node in nodes), reverse=True)
        return liked[:1] if self.world.likely(0.3) else liked

    def _process(self, batch: list[HubEvent]) -> Generator[float, None, None]:
        assert self.machine is not None
        facts: list[Fact] = []
        actions: list[HubAction] = []
        for event in batch:
            for action in self.machine.handle(event, self.own_now()):
                if isinstance(action, Record):
                    self.cluster.checkers.decided(self, action.facts)
                    facts.extend(action.facts)
                else:
                    if isinstance(action, SendToReplica):
                        self.cluster.checkers.sends(self, action)
                    actions.append(action)
        yield from self._rest_then_act(facts, actions)

    def _rest_then_act(
        self, facts: list[Fact], actions: list[HubAction]
    ) -> Generator[float, None, None]:
        """The order that everything depends on; a planted bug turns it round."""
        assert self.machine is not None
        if facts:
            asked_at = self.own_now()
            yield from self._perform(self.journal.append(tuple(facts)))
            if not self.is_alive:
                return
            actions.extend(self.machine.handle(TermHeld(asked_at), self.own_now()))
        self._act(actions)

    def _act(self, actions: list[HubAction]) -> None:
        for action in actions:
            if not self.is_alive:
                return
            self._do(action)
            self._step()

    # --- actions ------------------------------------------------------------------------------

    def _do(self, action: HubAction) -> None:
        assert self.machine is not None
        match action:
            case SendToReplica(replica, message):
                process = self.cluster.processes.get(replica)
                if process is not None and replica in self.links:
                    frame = FromHub(self.machine.term, message)
                    came = self.world.carry(
                        HEAD, process.node.name, lambda: process.receive(self, frame)
                    )
                    process.lost_at = process.lost_at if came else self.world.now
            case Publish(child_id):
                self.on_publish(self, child_id, self.machine.view(child_id, self.own_now()))
            case Reply(request, answer):
                self.on_reply(request, answer)
            case StartReplica():
                self.world.at(self.world.chance.uniform(0.02, 0.4), lambda: self._start(action))
            case StopReplica(replica):
                self.cluster.checkers.stops(self, replica)
                if replica not in self.ending:
                    self.ending.add(replica)
                    self.world.at(self.world.chance.uniform(0.01, 0.1), lambda: self._stop(replica))
            case Dial(replica, _):
                self._dial(replica)
            case ProbeNode(node_id, _):
                self._probe(node_id)
            case PublishCluster():
                pass
            case Note(kind, text, _, replica, _):
                self.world.note("life", self.number, kind, replica or "", text)
            case Record():
                raise AssertionError("a record among the actions")

    def report(self, event: HubEvent) -> None:
        """Something has happened; a dead life hears nothing."""
        if self.is_alive:
            self.events.append(event)

    def _start(self, order: StartReplica, waited_s: float = 0.0) -> None:
        if not self.is_alive or order.replica in self.ending:
            return
        process = self.cluster.processes.get(order.replica)
        if process is None:
            node = self.cluster.nodes[order.node_id]
            reached = self.world.arrives(HEAD, node.name) and self.world.arrives(node.name, HEAD)
            if not (node.is_up and node.ray_sees and reached) or node.is_paused:
                self._wait_for_room(order, waited_s)
                return
            process = self.cluster.spawn(order.replica, node, order.plan)
        if process.is_alive:
            self.report(ReplicaLocated(order.replica, (process.node.name, 1), process.machine.pid))
            self.world.at(0.05, lambda: self._build(process))
        else:
            self.report(ReplicaFailed(order.replica, Failure.DIED, "its process has ended"))

    def _wait_for_room(self, order: StartReplica, waited_s: float) -> None:
        if waited_s > self.cluster.settings.placement_deadline_s:
            self.report(ReplicaFailed(order.replica, Failure.NO_ROOM, "no room"))
        else:
            self.world.at(1.0, lambda: self._start(order, waited_s + 1.0))

    def _build(self, process: Process) -> None:
        if self.is_alive and process.replica not in self.ending:
            self.cluster.build(process)

    def _stop(self, replica: ReplicaId) -> None:
        """Kill the process and report its end; Ray also believes so where it sees no node."""
        if not self.is_alive:
            return
        process = self.cluster.processes.get(replica)
        if process is not None and process.is_alive and process.node.ray_sees:
            name = process.node.name
            if process.node.is_paused or not self.world.arrives(HEAD, name):
                self.world.at(1.0, lambda: self._stop(replica))
                return
            process.die()
        elif process is not None and process.node.ray_sees and not process.node.is_up:
            self.world.at(1.0, lambda: self._stop(replica))
            return
        self.ending.discard(replica)
        self.report(ReplicaStopped(replica))

    # --- the wire -----------------------------------------------------------------------------

    def _dial(self, replica: ReplicaId) -> None:
        process = self.cluster.processes[replica]
        node = process.node
        is_open = self.world.arrives(HEAD, node.name) and self.world.arrives(node.name, HEAD)
        limit_s = self.cluster.settings.dial_timeout_s
        if not is_open or not node.has_kernel or (process.is_alive and not process.runs):
            self.world.at(limit_s, lambda: self.report(WireClosed(replica)))
        elif not process.is_alive:
            gone = WireClosed(replica) if self.world.likely(0.1) else ProcessGone(replica)
            self.world.at(0.001, lambda: self.report(gone))
        else:
            self.world.at(0.001, lambda: self._connect(process))

    def _connect(self, process: Process) -> None:
        if not self.is_alive:
            return
        if not process.runs or self.machine is None:
            self.report(WireClosed(process.replica))
            return
        self.links.add(process.replica)
        process.connect(self, self.machine.term)

    def _probe(self, node_id: str) -> None:
        node = self.cluster.nodes[node_id]
        is_open = self.world.arrives(HEAD, node_id) and self.world.arrives(node_id, HEAD)
        if not node.is_up and node.has_kernel and is_open:
            self.world.at(0.002, lambda: self.report(NodeRefused(node.node().node_id)))

    def receive(self, process: Process, message: ReplicaMessage) -> None:
        """A frame arrives, if its connection still stands."""
        if process.replica in self.links:
            heard = FromReplica(process.replica, message)
            if self.is_paused:
                self.unread.append(heard)
            else:
                self.report(heard)

    def lose_link(self, process: Process) -> None:
        """The connection has broken."""
        if process.replica in self.links:
            self.links.discard(process.replica)
            self.report(WireClosed(process.replica))

    def see_nodes(self) -> None:
        """Look at Ray's table."""
        self.report(NodesSeen(self.cluster.seen_nodes()))
