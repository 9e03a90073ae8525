"""Which nodes and copies are there in the simulated cluster, whatever anybody believes?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from raphub.core.holding import state_bounds
from raphub.core.messages import (
    AbandonCallback,
    BuildBegan,
    BuildRaised,
    Built,
    CallBack,
    CallbackReturned,
    FromHub,
    HubConnected,
    JobsEnded,
    ReplicaAction,
    ReplicaEvent,
    ReplicaMessage,
    SendToHub,
    SteppedDown,
    Ticked,
)
from raphub.core.model import (
    ChildPlan,
    HubSettings,
    Model,
    Node,
    NodeId,
    Phase,
    ReplicaId,
    State,
    replica_id,
)
from raphub.core.replica_machine import ReplicaMachine
from raphub.core.replication import Replication
from tests.simulation.copy_data import CopyData
from tests.simulation.scenario import MACHINES
from tests.simulation.world import HEAD, World

if TYPE_CHECKING:
    from tests.simulation.checkers import Checkers
    from tests.simulation.hub_life import HubLife

REPLICA_TICK_S = 0.1


@dataclass
class SimNode:
    """One node. `ray_sees` is what Ray's table says, which is not what is so."""

    name: str
    is_up: bool = True
    has_kernel: bool = True
    is_paused: bool = False
    ray_sees: bool = True

    def node(self) -> Node:
        """The node as the hub is told of it."""
        number = int(self.name[1:])
        labels = {"zone": f"z{number % 2}", "disk": "slow" if number % 5 == 4 else "fast"}
        machine = f"machine{number % MACHINES}"
        return Node(NodeId(self.name), machine, labels, {"CPU": 8.0}, port=1)


@dataclass
class Process:
    """The process of one copy. `faulted_at` is when it was last paused or cut off, in true time.

    `lost_at` is when a message from or to it was last lost.
    """

    world: World
    cluster: Cluster
    replica: ReplicaId
    node: SimNode
    plan: ChildPlan
    machine: ReplicaMachine
    is_alive: bool = True
    is_paused: bool = False
    is_built: bool = False
    faulted_at: float = float("-inf")
    died_at: float = float("-inf")
    lost_at: float = float("-inf")
    term_heard: int = 0
    ready_at: float = float("inf")
    told: list[str] = field(default_factory=list)
    links: dict[int, tuple[HubLife, int]] = field(default_factory=dict)
    waiting: list[ReplicaEvent] = field(default_factory=list)
    had_lease: bool = False
    stepped_down: bool = False

    data: CopyData = field(init=False)

    def __post_init__(self) -> None:
        self.clock = self.world.clock()
        self.data = CopyData(self.world, self)

    @property
    def runs(self) -> bool:
        """Is it alive and on its feet?"""
        return self.is_alive and not self.is_paused and not self.node.is_paused

    def own_now(self) -> float:
        """Its own clock."""
        return self.clock.own(self.world.now)

    def may_serve(self) -> bool:
        """Would it serve at this moment? A paused one is asked as if it woke right now."""
        return self.is_alive and self.machine.may_serve(self.own_now())

    def tick(self) -> None:
        """Feed it the time for as long as it lives."""
        if self.is_alive:
            self.handle(Ticked())
            self.world.at(REPLICA_TICK_S, self.tick)

    def handle(self, event: ReplicaEvent) -> None:
        """Feed the machine; a paused process finds its events when it wakes."""
        if not self.is_alive:
            return
        if not self.runs:
            if not isinstance(event, Ticked):
                self.waiting.append(event)
            return
        waiting, self.waiting = self.waiting, []
        for one in (*waiting, event):
            for action in self._decide(one):
                match action:
                    case SendToHub(message):
                        self._send(message)
                    case CallBack():
                        self._call_back(action)
                    case AbandonCallback():
                        self.world.totals["abandoned callbacks"] += 1
                    case _:
                        self.data.do(action)
        if self.machine.phase is Phase.READY:
            self.ready_at = min(self.ready_at, self.world.now)
        self._watch_lease()
        self.cluster.checkers.after_replica(self)

    def _decide(self, event: ReplicaEvent) -> list[ReplicaAction]:
        """Let the machine decide; the checkers see what a superseded life of the hub moves it to."""
        before = replace(self.machine)
        actions = self.machine.handle(event, self.own_now())
        if isinstance(event, FromHub | HubConnected):
            if event.term < self.term_heard and (actions or self.machine != before):
                self.cluster.checkers.obeys_a_lower_term(self, event.term)
            self.term_heard = max(self.term_heard, event.term)
        return actions

    def _watch_lease(self) -> None:
        serves = self.machine.may_serve(self.own_now())
        if self.had_lease and not serves and self.machine.may_serve_again(self.machine.epoch):
            self.world.totals["lease expiries"] += 1
        self.had_lease = serves

    def _send(self, message: ReplicaMessage) -> None:
        self.stepped_down |= isinstance(message, SteppedDown)
        for life, term in list(self.links.values()):
            if term == self.machine.term:
                came = self.world.carry(
                    self.node.name,
                    HEAD,
                    lambda life=life: life.receive(self, message),  # type: ignore[misc]
                )
                self.lost_at = self.lost_at if came else self.world.now

    def _call_back(self, asked: CallBack) -> None:
        self.told.append(asked.role.value)
        takes_s = self.world.chance.uniform(0, 0.02)
        if self.world.likely(0.02):
            takes_s = self.world.chance.uniform(0.5, 8.0)
            self.faulted_at = max(self.faulted_at, self.world.now + takes_s)
            self.world.totals["slow callbacks"] += 1
        trouble = "raised" if self.world.likely(0.05) else ""
        returned = CallbackReturned(asked.role, asked.epoch, trouble)
        self.world.at(takes_s, lambda: self.handle(returned))

    # --- links to lives of the hub ------------------------------------------------------------

    def connect(self, life: HubLife, term: int) -> None:
        """A life of the hub has dialled and proved itself."""
        self.links[life.number] = (life, term)
        self.handle(HubConnected(term))

    def receive(self, life: HubLife, message: FromHub) -> None:
        """A frame arrives, if its connection still stands."""
        if life.number in self.links:
            self.handle(message)

    def die(self) -> None:
        """The process ends; where the kernel lives, its connections break at once."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.died_at = self.world.now
        self.lose_links()
        self.data.die()

    def lose_links(self) -> None:
        """All connections break; where the kernel lives, the other ends are told."""
        links, self.links = self.links, {}
        if self.node.has_kernel:
            for life, _ in links.values():
                self.world.carry_surely(
                    self.node.name,
                    HEAD,
                    lambda life=life: life.lose_link(self),  # type: ignore[misc]
                )


@dataclass
class Cluster:
    """All nodes and processes there ever were; dead ones stay in the list."""

    world: World
    settings: HubSettings
    nodes: dict[str, SimNode] = field(default_factory=dict)
    processes: dict[ReplicaId, Process] = field(default_factory=dict)
    bad_classes: set[str] = field(default_factory=set)
    jobs: dict[str, bool] = field(default_factory=dict)
    is_blacked_out: bool = False
    lives: list[HubLife] = field(default_factory=list)
    checkers: Checkers = field(init=False)

    def add_node(self) -> SimNode:
        """A node joins."""
        node = SimNode(f"n{len(self.nodes)}")
        self.nodes[node.name] = node
        self.tell_nodes()
        return node

    def up_nodes(self) -> list[SimNode]:
        """The nodes that run."""
        return [node for node in self.nodes.values() if node.is_up]

    def seen_nodes(self) -> tuple[Node, ...]:
        """Ray's table; in a blackout only one node is left in it.

        If only one that runs is missing then, whoever looks sees one node called dead, not most.
        """
        seen = [node for node in self.nodes.values() if node.ray_sees]
        if self.is_blacked_out:
            hidden, seen = [node for node in seen[1:] if node.is_up], seen[:1]
            for process in self.on(hidden[0]) if len(hidden) == 1 else ():
                process.faulted_at = max(process.faulted_at, self.world.now)
        return tuple(node.node() for node in seen)

    def tell_nodes(self) -> None:
        """Every life of the hub looks at Ray's table before long."""
        for life in self.lives:
            self.world.at(self.world.chance.uniform(0, 0.3), life.see_nodes)

    def ended_jobs(self) -> tuple[str, ...]:
        """The jobs that are over."""
        return tuple(job_id for job_id, is_over in self.jobs.items() if is_over)

    def end_jobs(self) -> None:
        """All jobs that run end; the newest life of the hub is told."""
        ended = [job_id for job_id, is_over in self.jobs.items() if not is_over]
        self.jobs.update(dict.fromkeys(ended, True))
        if ended and self.lives:
            self.lives[-1].report(JobsEnded(tuple(ended)))

    def on(self, node: SimNode) -> list[Process]:
        """The living processes of a node."""
        return [p for p in self.processes.values() if p.node is node and p.is_alive]

    def of(self, child_id: str) -> list[Process]:
        """The living processes of a child."""
        return [p for p in self.living() if p.plan.child_id == child_id]

    def living(self) -> list[Process]:
        """All living processes."""
        return [p for p in self.processes.values() if p.is_alive]

    def spawn(self, replica: ReplicaId, node: SimNode, plan: ChildPlan) -> Process:
        """The process of a copy comes up and listens."""
        process = Process(
            self.world,
            self,
            replica,
            node,
            plan,
            ReplicaMachine(
                replica,
                pid=len(self.processes) + 1,
                is_led=plan.model is Model.ACTIVE_PASSIVE,
                is_bound=self.settings.partition_tolerance is not None,
                signal=plan.signal,
                lease_duration_s=self.settings.lease_duration_s,
                lease_renewal_s=self.settings.lease_renewal_s,
                role_deadline_s=self.settings.role_deadline_s,
                replication=self._replication(replica, plan),
            ),
        )
        self.processes[replica] = process
        process.tick()
        return process

    def _replication(self, replica: ReplicaId, plan: ChildPlan) -> Replication | None:
        if plan.state is State.NONE:
            return None
        bounds = replace(
            state_bounds(self.settings, plan), log_entries_max=6, log_bytes_max=200, unapplied_max=4
        )
        slow_s = self.settings.lease_duration_s / 3
        return Replication(replica, bounds, plan.acks, plan.min_in_sync, slow_s)

    def build(self, process: Process) -> None:
        """The user's constructor runs, once; a bad class never gets through it."""
        if process.is_built:
            return
        process.is_built = True
        process.handle(BuildBegan())
        is_bad = process.plan.child_id in self.bad_classes
        built = BuildRaised("it raises") if is_bad else Built()
        self.world.at(self.world.chance.uniform(0.02, 0.6), lambda: process.handle(built))

    def kill_node(self, node: SimNode, *, with_kernel: bool) -> None:
        """All processes of the node die; without its kernel nobody is told."""
        node.is_up = False
        node.has_kernel = not with_kernel
        for process in self.on(node):
            process.die()
        self.world.at(self.world.chance.uniform(1, 12), lambda: self._ray_notices(node))

    def _ray_notices(self, node: SimNode) -> None:
        node.ray_sees = False
        self.tell_nodes()

    def may_lose(self, lost: list[Process]) -> bool:
        """Would a copy of every child be left that holds its state?"""
        for child in self.checkers.truth.children.values():
            members = [replica_id(child.plan.child_id, number) for number in child.in_sync]
            holders = [self.processes[replica] for replica in members]
            for process in lost:
                # What a dying active has asked for may be recorded after its death.
                replication = process.machine.replication
                if process in holders and replication and replication.shipping:
                    wanted = replication.shipping.wanted or members
                    holders = [p for p in holders if p.replica in wanted]
            if holders and not any(p.is_alive and p not in lost for p in holders):
                return False
        return True

    def slander(self, node: SimNode, for_s: float) -> None:
        """Ray calls a working node dead. When it is heard again, its raylet ends its workers."""
        node.ray_sees = False
        self.tell_nodes()

        def heard_again() -> None:
            if not self.may_lose(list(self.on(node))):
                self.world.at(1.0, heard_again)
                return
            node.is_up = False
            for process in self.on(node):
                process.die()

        self.world.at(for_s, heard_again)
