"""What goes wrong in the simulated world, and when is it mended?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raphub.core.model import ChildId, ChildPlan, State
from tests.simulation.clients import Requester
from tests.simulation.cluster import Cluster, Process, SimNode
from tests.simulation.hub_life import HubLife
from tests.simulation.scenario import Scenario
from tests.simulation.world import CLIENTS, HEAD, World

NODES_SEEN_MIN = 3
NODES_MAX = 5


@dataclass
class Faults:
    """Strikes again and again until the world is calm."""

    world: World
    cluster: Cluster
    scenario: Scenario
    requesters: tuple[Requester, ...]
    begin_life: Callable[[], HubLife]

    def keep_striking(self) -> None:
        """One fault now, the next before long."""
        if self.world.calm:
            return
        strike = self.world.chance.choices(*zip(*self._kinds(), strict=True))[0]
        strike()
        self.world.at(
            self.world.chance.uniform(0.2, 1.8) * self.scenario.fault_every_s, self.keep_striking
        )

    def _kinds(self) -> list[tuple[Callable[[], None], int]]:
        of_copies = [
            (self.kill_process, 5),
            (self.pause_process, 5),
            (self.kill_node, 2),
            (self.vanish_node, 1),
            (self.pause_node, 2),
            (self.join_node, 2),
        ]
        if self.scenario.moves:
            of_copies += [(self.move, 8)]
        if self.scenario.has_state:
            of_copies += [(self.cut_copies, 4), (self.break_link, 2)]
        if self.scenario.is_short_of_nodes:
            return [*of_copies, (self.kill_node, 3), (self.slander_node, 1), (self.kill_hub, 1)]
        if self.scenario.is_head_spared:
            return [*of_copies, (self.kill_process, 8), (self.break_link, 6)]
        return [
            *of_copies,
            (self.slander_node, 2),
            (self.cut_link, 7),
            (self.kill_hub, 6),
            (self.pause_hub, 3),
            (self.replace_hub, 2),
            (self.restart_child, 2),
            (self.start_bad_child, 1),
            (self.break_wire, 2),
            (self.cut_all, 1),
            (self.black_out, 1),
            (self.start_job, 1),
            (self.cluster.end_jobs, 1),
        ]

    def _lasts_s(self, least_s: float, most_s: float) -> float:
        return self.world.chance.uniform(least_s, most_s) * self.scenario.fault_length

    # --- copies -------------------------------------------------------------------------------

    def _process(self) -> Process | None:
        living = self.cluster.living()
        actives = [process for process in living if process.may_serve()]
        chosen = actives if actives and self.world.likely(0.7) else living
        return self.world.chance.choice(chosen) if chosen else None

    def kill_process(self) -> None:
        """SIGKILL."""
        process = self._process()
        if process is not None and self.cluster.may_lose([process]):
            self.world.note("fault: kill", process.replica)
            process.die()

    def pause_process(self) -> None:
        """SIGSTOP, and SIGCONT some time later."""
        process = self._process()
        if process is not None and not process.is_paused:
            for_s = self._lasts_s(0.1, 9.0)
            self.world.note("fault: pause", process.replica, f"for {for_s:.1f} s")
            process.is_paused = True
            process.faulted_at = self.world.now + for_s
            self.world.at(for_s, lambda: self._wake(process))

    def _wake(self, process: Process) -> None:
        process.is_paused = False

    # --- nodes --------------------------------------------------------------------------------

    def _node(self) -> SimNode | None:
        nodes = self.cluster.up_nodes()
        return self.world.chance.choice(nodes) if nodes else None

    def kill_node(self) -> None:
        """SIGKILL of everything on a node; its kernel lives."""
        self._lose_node(with_kernel=False)

    def vanish_node(self) -> None:
        """The machine is gone, without a word."""
        self._lose_node(with_kernel=True)

    def _lose_node(self, *, with_kernel: bool) -> None:
        node = self._node()
        if node is not None and self.cluster.may_lose(list(self.cluster.on(node))):
            self.world.note("fault: node", node.name, "vanishes" if with_kernel else "is killed")
            self.cluster.kill_node(node, with_kernel=with_kernel)
            self._keep_enough()

    def pause_node(self) -> None:
        """SIGSTOP of everything on a node."""
        node = self._node()
        if node is not None and not node.is_paused:
            for_s = self._lasts_s(0.2, 8.0)
            self.world.note("fault: node", node.name, f"stands still for {for_s:.1f} s")
            node.is_paused = True
            for process in self.cluster.on(node):
                process.faulted_at = self.world.now + for_s
            self.world.at(for_s, lambda: setattr(node, "is_paused", False))

    def move(self) -> None:
        """Somebody wants something to be elsewhere."""
        chance, requester = self.world.chance, self.requesters[1]
        living, nodes = self.cluster.living(), self.cluster.up_nodes()
        if not living or not nodes:
            return
        process, node = chance.choice(living), chance.choice(nodes).name
        where = chance.choice([None, node])
        match chance.choice(("switch", "switch", "migrate", "migrate", "drain", "undo", "pause")):
            case "switch":
                requester.switch(process.plan.child_id, where)
            case "migrate":
                requester.migrate(process.replica, where)
            case "drain":
                requester.drain(node, chance.choice([2.0, 20.0]))
            case "undo":
                requester.drain(node, 0.0, is_undone=True)
            case _:
                requester.pause(is_paused=chance.choice([True, False, False]))

    def slander_node(self) -> None:
        """Ray calls a node dead that lives on."""
        node = self._node()
        if node is not None and node.ray_sees:
            self.world.note("fault: Ray calls", node.name, "dead")
            self.cluster.slander(node, self.world.chance.uniform(1, 10))
            self._keep_enough()

    def join_node(self) -> None:
        """A node joins."""
        if len(self.cluster.up_nodes()) < NODES_MAX:
            self.world.note("fault: join", self.cluster.add_node().name)

    def _keep_enough(self) -> None:
        usable = [node for node in self.cluster.up_nodes() if node.ray_sees]
        if len(usable) < self.scenario.nodes_min:
            self.world.at(self.world.chance.uniform(*self.scenario.node_comes_s), self.join_node)

    # --- network ------------------------------------------------------------------------------

    def cut_link(self) -> None:
        """Between the head, a node and the clients, in one direction or both."""
        node = self._node()
        if node is None:
            return
        for_s = self.world.chance.uniform(0.1, 8.0)
        other = HEAD if self.world.likely(0.75) else CLIENTS
        both = [(other, node.name), (node.name, other)]
        ways = both if self.world.likely(0.7) else [self.world.chance.choice(both)]
        self.world.totals["cuts"] += 1
        self.world.note("fault: cut", ways, f"for {for_s:.1f} s")
        for here, there in ways:
            self.world.cut(here, there)
            self.world.at(for_s, lambda here=here, there=there: self.world.join(here, there))  # type: ignore[misc]
        for process in self.cluster.on(node):
            process.faulted_at = max(process.faulted_at, self.world.now + for_s)

    def cut_copies(self) -> None:
        """Between two nodes, whose copies the head and the clients still reach."""
        names = [node.name for node in self.cluster.up_nodes()]
        if len(names) < NODES_SEEN_MIN:
            return
        here, there = self.world.chance.sample(names, 2)
        for_s = self._lasts_s(0.1, 6.0)
        self.world.note("fault: cut", here, "from", there, f"for {for_s:.1f} s")
        ways = [(here, there), (there, here)]
        for one, other in ways if self.world.likely(0.7) else ways[:1]:
            self.world.cut(one, other)
            self.world.at(for_s, lambda one=one, other=other: self.world.join(one, other))  # type: ignore[misc]

    def break_link(self) -> None:
        """The connection between two copies breaks."""
        links = [
            link for process in self.cluster.living() for link in process.data.dialled.values()
        ]
        if links:
            link = self.world.chance.choice(links)
            ends = [end.process.replica for end in (link.opener, link.acceptor)]
            self.world.note("fault: break the link of", *ends)
            link.is_ended = True
            link.close()

    def break_wire(self) -> None:
        """A connection breaks, though both its ends live on."""
        process = self._process()
        if process is not None and process.runs:
            self.world.note("fault: break the wire of", process.replica)
            process.lose_links()

    def cut_all(self) -> None:
        """The head hears nobody for a while; no copy may be replaced for it (law 14)."""
        for_s = self.world.chance.uniform(1.0, 6.0)
        self.world.note(f"fault: the head is cut off for {for_s:.1f} s")
        self.world.totals["cuts"] += 1
        self.world.deafen(+1)
        self.world.at(for_s, lambda: self.world.deafen(-1))

    def black_out(self) -> None:
        """Ray's table loses most nodes for a while, and finds them again (law 14)."""
        for_s = self.world.chance.uniform(0.5, 1.5)
        life = self._life()
        if life is None or life.machine is None or len(life.machine.state.nodes) < NODES_SEEN_MIN:
            return
        self.world.note(f"fault: Ray sees one node for {for_s:.1f} s")
        self._show_nodes(is_blacked_out=True)
        self.world.at(for_s, lambda: self._show_nodes(is_blacked_out=False))

    def _show_nodes(self, *, is_blacked_out: bool) -> None:
        self.cluster.is_blacked_out = is_blacked_out
        self.cluster.tell_nodes()

    # --- the hub actor ------------------------------------------------------------------------

    def kill_hub(self) -> None:
        """The hub actor dies: at once, or between two of its next steps."""
        life = self._life()
        if life is not None:
            life.steps_left = self.world.chance.randint(1, 12)
            self.world.note("fault: life", life.number, "will die in", life.steps_left, "steps")

    def pause_hub(self) -> None:
        """The hub actor stands still for a while."""
        life = self._life()
        if life is not None:
            self._pause(life, self.world.chance.uniform(0.3, 6.0))

    def replace_hub(self) -> None:
        """The hub actor stands still, another life begins, and the first one wakes up."""
        life = self._life()
        if life is not None and not life.is_paused:
            self._pause(life, self.world.chance.uniform(1.0, 9.0))
            self.world.at(self.world.chance.uniform(0.3, 2.0), self.begin_life)

    def _life(self) -> HubLife | None:
        living = [life for life in self.cluster.lives if life.is_alive and not life.is_paused]
        return living[-1] if living else None

    def _pause(self, life: HubLife, for_s: float) -> None:
        self.world.note("fault: life", life.number, f"stands still for {for_s:.1f} s")
        self.world.totals["hub pauses"] += 1
        life.is_paused = True
        self.world.at(for_s, life.wake)

    # --- requests -----------------------------------------------------------------------------

    def restart_child(self) -> None:
        """Stop a child and start it again, without waiting for the one before the other."""
        plan = self.world.chance.choice(self.scenario.plans)
        if plan.state is not State.NONE:
            return
        self.world.note("fault: restart child", plan.child_id)
        requester = self._requester()
        requester.stop(plan.child_id)
        requester.start(plan)

    def start_bad_child(self) -> None:
        """Start a child whose constructor raises, perhaps with a good one, perhaps all or none."""
        requester = self._requester()
        child_id = f"bad-{requester.name}-{requester.number}"
        self.cluster.bad_classes.add(child_id)
        plans = [self.scenario.plan(child_id)]
        if self.world.likely(0.5):
            plans.append(self.scenario.plans[0])
        requester.start(*plans, rollback=self.world.likely(0.5))

    def start_job(self) -> None:
        """A job starts a child that ends with it."""
        job_id = f"job{len(self.cluster.jobs)}"
        self.cluster.jobs[job_id] = False
        self._requester().start(ChildPlan(ChildId(f"of-{job_id}"), factor=1, job_id=job_id))

    def _requester(self) -> Requester:
        return self.world.chance.choice(self.requesters)
