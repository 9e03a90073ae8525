"""How does one seeded run go?

Faults for a while, then calm, and then everything must come right within a bounded time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from raphub.core.model import (
    Acks,
    ChildPlan,
    DistributionKind,
    Health,
    Model,
    Node,
    Phase,
    Role,
    Spread,
    State,
)
from raphub.core.placement import is_label_match
from raphub.core.quorum import MajorityRule
from raphub.core.records import Answer, Ledger, RequestId
from raphub.core.views import ChildView
from raphub.testing.history import History, check
from tests.simulation.checkers import Checkers, LawBrokenError
from tests.simulation.clients import Caller, Requester
from tests.simulation.cluster import Cluster, Process
from tests.simulation.faults import Faults
from tests.simulation.hub_life import HubLife
from tests.simulation.scenario import MACHINES, Scenario, scenario
from tests.simulation.short_of_nodes import ShortOfNodes
from tests.simulation.store import Store
from tests.simulation.world import World
from tests.simulation.writers import Writer

WRITERS = 3
STORM_S = 40.0
CALM_S = 60.0
NODES = 4


@dataclass
class Simulation:
    """One world, from its first second to its last."""

    seed: int
    storm_s: float = STORM_S
    circumstances: Scenario | None = None
    scenario: Scenario = field(init=False)

    def __post_init__(self) -> None:
        self.scenario = self.circumstances or scenario(self.seed)
        settings = self.scenario.settings
        self.world = World(self.seed, settings.clock_drift_max, self.scenario.copy_delay_max_s)
        self.cluster = Cluster(self.world, settings)
        self.store = Store()
        truth = Ledger(settings.tombstones_max, settings.answers_max)
        self.checkers = Checkers(self.world, self.cluster, truth)
        self.cluster.checkers = self.checkers
        self.store.watchers.append(self.checkers.at_rest)
        self.caller = Caller(self.world, self.cluster, self.checkers)
        self.histories = {
            plan.child_id: History(clock=lambda: self.world.now)
            for plan in self.scenario.plans
            if plan.state is not State.NONE
        }
        self.writers = [
            Writer(self.world, self.cluster, history, child_id, f"{child_id}-w{number}")
            for child_id, history in self.histories.items()
            for number in range(WRITERS)
        ]
        self.requester = Requester(self.world, self.cluster, "client")
        self.rival = Requester(self.world, self.cluster, "rival")

    def run(self) -> Counter[str]:
        """Run it; raises `LawBrokenError`. Returns what was counted."""
        for _ in range(NODES):
            self.cluster.add_node()
        self.begin_life()
        self.requester.start(*self.scenario.plans)
        self.caller.keep_calling()
        for writer in self.writers:
            writer.keep_writing()
        self._keep_checking()
        self._watch_quorum()
        faults = Faults(
            self.world,
            self.cluster,
            self.scenario,
            (self.requester, self.rival),
            self.begin_life,
        )
        self.world.at(1.0, faults.keep_striking)
        self.world.run_until(self.storm_s)
        self._calm_down()
        self.world.run_until(self.storm_s + CALM_S)
        self._check_convergence()
        return self.world.totals

    def begin_life(self) -> HubLife:
        """A hub actor starts; whoever starts last is the one that Ray knows."""
        number = len(self.cluster.lives) + 1
        life = HubLife(
            self.world, self.cluster, self.store, number, self._publish, self._reply, self._ended
        )
        self.cluster.lives.append(life)
        return life

    def _ended(self, life: HubLife) -> None:
        """Ray starts the next one, unless it has done so already."""
        self.world.totals["hub deaths"] += 1
        if life is self.cluster.lives[-1]:
            self.world.at(self.world.chance.uniform(0.3, 2.0), self._restart)

    def _restart(self) -> None:
        if not self.cluster.lives[-1].is_alive:
            self.begin_life()

    def _publish(self, life: HubLife, child_id: str, view: ChildView | None) -> None:
        if life is self.cluster.lives[-1]:
            told = [w.told for w in self.writers if w.child_id == child_id]
            if told:
                for one in told:
                    self.world.at(self.world.delay_s(), lambda one=one: one(view))  # type: ignore[misc]
            else:
                self.world.at(self.world.delay_s(), lambda: self.caller.told(child_id, view))

    def _reply(self, request: RequestId, answer: Answer) -> None:
        requester = self.rival if request.client == self.rival.name else self.requester
        self.world.at(self.world.delay_s(), lambda: requester.answered(request, answer))

    def _watch_quorum(self) -> None:
        rule = self.scenario.settings.partition_tolerance
        if rule is not None:
            self.checkers.short_of_nodes = ShortOfNodes(self.world, self.cluster, rule)
            self.checkers.short_of_nodes.keep_looking()

    def _keep_checking(self) -> None:
        self.checkers.bounds()
        for process in self.cluster.living():
            if process.runs and process.machine.may_read(process.own_now(), 0):
                self.checkers.reads(process)
        self.world.at(0.5, self._keep_checking)

    # --- the end ------------------------------------------------------------------------------

    def _calm_down(self) -> None:
        self.world.note("the storm is over")
        self.world.calm = True
        self.world.join_all()
        for node in self.cluster.nodes.values():
            node.is_paused = False
        for process in self.cluster.processes.values():
            process.is_paused = False
        while len(self._usable()) < NODES or (
            self.scenario.is_particular
            and len({node.address for node in self._usable()}) < MACHINES
        ):
            self.cluster.add_node()
        if self.scenario.moves:
            self.requester.pause(is_paused=False)
            for node in self.cluster.up_nodes():
                self.requester.drain(node.name, 0.0, is_undone=True)
        if isinstance(self.scenario.settings.partition_tolerance, MajorityRule):
            self.world.at(25, lambda: self.requester.set_cluster_size(NODES))
        self.world.at(5, self.cluster.end_jobs)
        # A start may have failed in the storm; what runs already is an error in the answer. Where
        # there is a rule, Ray's table and the rule's memory must have come right first.
        after_s = 30 if self.scenario.is_short_of_nodes else 10
        self.world.at(after_s, lambda: self.requester.start(*self.scenario.plans))

    def _usable(self) -> list[Node]:
        """The nodes that the hub may use, in truth."""
        nodes = [node.node() for node in self.cluster.up_nodes() if node.ray_sees]
        selector = self.scenario.settings.label_selector
        return [node for node in nodes if is_label_match(selector, node.labels)]

    def _check_convergence(self) -> None:
        """Law 11: every child whole, every request answered, nothing left over."""
        life = self.cluster.lives[-1]
        if not life.is_alive or life.machine is None:
            raise LawBrokenError("11", "there is no hub actor")
        unanswered = self.requester.unanswered | self.rival.unanswered
        if unanswered:
            raise LawBrokenError("11", f"not answered: {unanswered}")
        ledger = life.machine.ledger
        if set(ledger.children) != {plan.child_id for plan in self.scenario.plans}:
            raise LawBrokenError("11", f"children {set(ledger.children)}")
        if ledger.retired:
            raise LawBrokenError("11", f"not stopped: {list(ledger.retired)}")
        for plan in self.scenario.plans:
            self._check_child(life, plan)
        state = life.machine.state
        is_watched = state.timers or all(child.is_lost for child in ledger.children.values())
        if not (state.trust.heard_on.keys() <= state.on_node.keys() and is_watched):
            raise LawBrokenError("12", "nodes that left are still remembered")
        if len(state.avoided_until) > len(self.cluster.nodes) or len(state.timers) > 100:
            raise LawBrokenError("12", "what is over is still remembered")
        strays = [
            p.replica
            for p in self.cluster.living()
            if ledger.placed(p.plan.child_id, int(p.replica.rpartition("#")[2])) is None
        ]
        if strays:
            raise LawBrokenError("11", f"left over: {strays}")

    def _places(self, plan: ChildPlan) -> int:
        """How many copies a child of the size of the cluster has."""
        if self.scenario.settings.distribution.kind is DistributionKind.GUIDED:
            return len(self.scenario.settings.distribution.mapping[plan.child_id])
        return len(self._usable())

    def _check_history(self, plan: ChildPlan, active: Process) -> None:
        """All that was answered fits one list that nobody ever lost or doubled."""
        waiting = [w.lane.waiting for w in self.writers if w.child_id == plan.child_id]
        if any(waiting):
            raise LawBrokenError("11", f"not answered: {waiting}")
        items = active.data.items
        self.world.totals["writes"] += len(items)
        if len(set(items)) != len(items):
            raise LawBrokenError("3", f"{plan.child_id} has items twice")
        for process in self.cluster.of(plan.child_id):
            if process.data.items != items:
                raise LawBrokenError("2", f"{process.replica} has another list")
        for writer in self.writers:
            own = [int(i.rpartition("-")[2]) for i in items if i.startswith(f"{writer.name}-")]
            if own != sorted(own):
                raise LawBrokenError("order", f"{writer.name} asked in another order than {own}")
        if plan.acks is Acks.ACTIVE:
            ahead = self.checkers.answered_ahead.get(plan.child_id, set()) - set(items)
            if ahead:
                raise LawBrokenError("lag", f"lost without a failover: {sorted(ahead)}")
            return
        for violation in check(self.histories[plan.child_id], items):
            raise LawBrokenError("2", str(violation))
        for replica, length, seen in self.checkers.passive_reads.get(plan.child_id, []):
            if seen != hash(tuple(items[:length])):
                raise LawBrokenError("reads", f"{replica} read {length} items that came to nothing")

    def _check_child(self, life: HubLife, plan: ChildPlan) -> None:
        assert life.machine is not None
        child_id = plan.child_id
        view = life.machine.view(child_id, life.own_now())
        if view is not None and view.health is Health.LOST:
            return
        if view is None or view.health != "ok":
            raise LawBrokenError("11", f"{child_id} is {view}")
        processes = self.cluster.of(child_id)
        if len(processes) != (plan.factor or self._places(plan)):
            raise LawBrokenError("11", f"{child_id} has {len(processes)} copies")
        if any(process.machine.phase is not Phase.READY for process in processes):
            raise LawBrokenError("11", f"a copy of {child_id} is not ready")
        if len({process.node.name for process in processes}) != len(processes):
            raise LawBrokenError("6", f"copies of {child_id} share a node")
        nodes = [process.node.node() for process in processes]
        machines = {node.address for node in nodes}
        is_guided = self.scenario.settings.distribution.kind is DistributionKind.GUIDED
        if is_guided and len(machines) != len(nodes):
            raise LawBrokenError("guided", f"copies of {child_id} share an entry of the mapping")
        zones = {node.labels[plan.zone_label] for node in nodes} if plan.zone_label else set()
        if plan.zone_label and plan.spread is Spread.STRICT and len(zones) != len(nodes):
            raise LawBrokenError("zones", f"copies of {child_id} share a zone")
        serving = [process for process in processes if process.may_serve()]
        wanted = len(processes) if plan.model is Model.ACTIVE_ACTIVE else 1
        if len(serving) != wanted:
            raise LawBrokenError("11", f"{len(serving)} copies of {child_id} serve")
        if plan.state is not State.NONE:
            self._check_history(plan, serving[0])
        for process in processes:
            role = Role.ACTIVE if process in serving else Role.PASSIVE
            if process.machine.told is not role:
                raise LawBrokenError("10", f"{process.replica} believes {process.machine.told}")
