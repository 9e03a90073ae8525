"""Does what happens obey the laws?

One checker a law, each judging by the truth of the simulated world and by what came to rest in the
journal, never by what a machine believes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raphub.core.hub_state import HubState, is_led
from raphub.core.journal import Entry, index_of
from raphub.core.log import Position
from raphub.core.messages import Apply, Install, LeaseGranted, SendToReplica
from raphub.core.model import (
    Acks,
    ChildId,
    DeathProof,
    DistributionKind,
    Model,
    NodeId,
    Phase,
    ReplicaId,
    Role,
    Signal,
    Spread,
    State,
    replica_id,
)
from raphub.core.moves import is_outgoing
from raphub.core.placement import is_label_match
from raphub.core.records import (
    Child,
    ChildRemoved,
    DataLost,
    Fact,
    InSyncChanged,
    LeaseReleased,
    Ledger,
    ReplicaPlaced,
    ReplicaPromoted,
    ReplicaRetired,
    RequestAnswered,
    RequestOpened,
    TermClaimed,
)
from raphub.core.replication import Call
from raphub.core.shipping import Link
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster, Process
    from tests.simulation.hub_life import HubLife
    from tests.simulation.short_of_nodes import ShortOfNodes

NEWS_TRAVELS_S = 2.0
"""How long it may take until a hub actor that is on its feet knows that a copy is ready."""

EXCUSED_FOR_S = 9.0
"""How long after a pause or a cut a copy may still be replaced because of it."""


class LawBrokenError(AssertionError):
    """A law was broken: the name of the law, and the story."""

    def __init__(self, law: str, story: str) -> None:
        super().__init__(f"law {law}: {story}")
        self.law = law


@dataclass
class Checkers:
    """All of them, and the truth that they go by."""

    world: World
    cluster: Cluster
    truth: Ledger
    epochs: dict[str, int] = field(default_factory=dict)
    actives: dict[str, int] = field(default_factory=dict)
    recorded: dict[tuple[str, int], int] = field(default_factory=dict)
    acked: dict[str, tuple[int, str]] = field(default_factory=dict)
    numbers: set[tuple[str, int]] = field(default_factory=set)
    claimed_at: dict[int, float] = field(default_factory=dict)
    answers: dict[tuple[str, int], object] = field(default_factory=dict)
    opened: set[tuple[str, int]] = field(default_factory=set)
    deaths: dict[tuple[str, str, int], int] = field(default_factory=dict)
    alone_since: dict[str, float] = field(default_factory=dict)
    answered: dict[str, list[str]] = field(default_factory=dict)
    answered_ahead: dict[str, set[str]] = field(default_factory=dict)
    answered_at: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    passive_reads: dict[str, list[tuple[ReplicaId, int, int]]] = field(default_factory=dict)
    next_index: int = 0
    short_of_nodes: ShortOfNodes | None = None

    # --- what comes to rest -------------------------------------------------------------------

    def at_rest(self, key: str, entry: Entry) -> None:
        """An entry was put. One below the floor does not count, and its writer must find out."""
        if not key.startswith("log/"):
            return
        index = index_of(key)
        if index != self.next_index:
            return
        self.next_index += 1
        highest = max(self.claimed_at, default=0)
        for fact in entry.facts:
            if isinstance(fact, TermClaimed):
                self.claimed_at[fact.term] = self.world.now
            elif entry.term < highest:
                raise LawBrokenError("13", f"term {entry.term} records {fact} after {highest}")
            self._check_fact(fact)
            if self.short_of_nodes is not None:
                self.short_of_nodes.decides(fact)
            self.truth.apply(fact)
            if (child_id := getattr(fact, "child_id", None)) in self.truth.children:
                self._see_set(child_id)

    def _see_set(self, child_id: ChildId) -> None:
        if len(self.truth.children[child_id].in_sync) >= 2:
            self.alone_since.pop(child_id, None)
        else:
            self.alone_since.setdefault(child_id, self.world.now)

    def _check_fact(self, fact: Fact) -> None:  # noqa: PLR0912 - one case a fact
        match fact:
            case ReplicaPromoted(child_id, number, epoch):
                self._check_promotion(child_id, number, epoch)
            case ReplicaPlaced(child_id, number, node_id):
                if node_id in self.truth.draining:
                    story = f"{child_id}#{number} is placed on {node_id}, which is to be empty"
                    raise LawBrokenError("drain", story)
                if (child_id, number) in self.numbers:
                    raise LawBrokenError("numbers", f"{child_id}#{number} is used twice")
                self.numbers.add((child_id, number))
            case ReplicaRetired(child_id, number):
                self._check_last_ready(child_id, number)
                self._check_room(child_id, number)
            case LeaseReleased(child_id):
                self._check_release(child_id)
            case DataLost(child_id):
                self._check_loss(child_id)
            case InSyncChanged(child_id, in_sync):
                self._check_members(child_id, in_sync)
            case ChildRemoved(child_id):
                self.actives.pop(child_id, None)
            case RequestOpened(request):
                if request.key in self.opened:
                    raise LawBrokenError("3", f"the request {request.key} runs twice")
                self.opened.add(request.key)
            case RequestAnswered(request, answer):
                if request.key in self.answers:
                    raise LawBrokenError("3", f"the request {request.key} is answered twice")
                self.answers[request.key] = answer

    def _check_promotion(self, child_id: str, number: int, epoch: int) -> None:
        self.world.totals["promotions"] += 1
        if epoch <= self.epochs.get(child_id, 0):
            raise LawBrokenError("1", f"epoch {epoch} of {child_id} does not grow")
        self.epochs[child_id] = epoch
        self.recorded[child_id, epoch] = number
        child = self.truth.children[child_id]  # type: ignore[index]
        if not is_led(child):
            return
        for process in self.cluster.of(child_id):
            if process.replica != replica_id(child.plan.child_id, number) and process.may_serve():
                raise LawBrokenError(
                    "4", f"{child_id}#{number} is promoted while {process.replica} may serve"
                )
        self._check_heir(child, number)
        old = self.actives.get(child_id, number)
        self.actives[child_id] = number
        if old != number:
            process = self.cluster.processes[replica_id(child.plan.child_id, old)]
            self._check_sticky(process)
            self._check_demoted(process, child.epoch)

    def _check_heir(self, child: Child, number: int) -> None:
        """Only a copy that holds what was answered is promoted, once any state counts (law 2)."""
        if child.plan.state is State.NONE or not child.is_open:
            return
        heir = self.cluster.processes[replica_id(child.plan.child_id, number)]
        if number not in child.in_sync:
            raise LawBrokenError("2", f"{heir.replica} is promoted without the state")
        held = heir.data.held_items()
        if child.plan.acks is Acks.ACTIVE:
            self._check_lag(child, heir, set(held))
            return
        answered = self.answered.get(child.plan.child_id, [])
        if held[: len(answered)] != answered:
            story = f"{heir.replica} is promoted without all of the {len(answered)} answered writes"
            raise LawBrokenError("2", story)

    def _check_lag(self, child: Child, heir: Process, held: set[str]) -> None:
        """With `acks="active"`, a failover loses no more answered writes than it may."""
        ahead = self.answered_ahead.setdefault(child.plan.child_id, set())
        lost = ahead - held
        ahead -= lost
        self.world.totals["writes lost by acks='active'"] += len(lost)
        if len(lost) > child.plan.max_lag_writes:
            raise LawBrokenError("lag", f"{len(lost)} answered writes are lost with {heir.replica}")

    def _check_members(self, child_id: ChildId, in_sync: tuple[int, ...]) -> None:
        """Whoever is taken into the set is there, and has had the whole state in its object (law 8)."""
        child = self.truth.children.get(child_id)
        for number in in_sync:
            if child is not None and number not in child.replicas:
                raise LawBrokenError("8", f"{child_id}#{number} is in sync, and out")
            if child is not None and number not in child.in_sync:
                process = self.cluster.processes[replica_id(child_id, number)]
                if not process.data.has_image:
                    raise LawBrokenError("8", f"{process.replica} is in sync before it has a state")

    def _check_release(self, child_id: str) -> None:
        """What is taken for a proof that the holder serves no more has to be one (law 4)."""
        holder = self.truth.holder(ChildId(child_id))
        process = self.cluster.processes.get(ReplicaId(f"{child_id}#{holder}"))
        if process is not None and process.is_alive:
            if process.machine.may_serve_again(process.machine.epoch) or process.may_serve():
                raise LawBrokenError("4", f"{process.replica} is released, and may serve")
            if self.cluster.settings.death_proof is DeathProof.LEASE and not process.stepped_down:
                raise LawBrokenError("4", f"{process.replica} is released without its word")

    def _check_loss(self, child_id: str) -> None:
        """The faults spare one copy that holds the state, but Ray may call its node dead (law 2)."""
        child = self.truth.children[ChildId(child_id)]
        members = [replica_id(child.plan.child_id, number) for number in child.in_sync]
        for process in map(self.cluster.processes.__getitem__, members):
            if process.is_alive and process.node.ray_sees:
                raise LawBrokenError(
                    "2", f"{child_id} is taken for lost, and {process.replica} lives"
                )
        self.world.totals["losses"] += 1
        self.deaths = {key: count for key, count in self.deaths.items() if key[0] != child_id}

    def _check_demoted(self, old: Process, epoch: int) -> None:
        """An active that can be reached has acknowledged before another one follows (law 10)."""
        life = self._life()
        is_reached = (
            life is not None
            and life.machine is not None
            and old.replica in life.links
            and life.number in old.links
            and self._is_well(old)
            and old.machine.callback is None
            and self.world.now - self.world.hears_since > NEWS_TRAVELS_S
            and self.world.now - old.lost_at > NEWS_TRAVELS_S
        )
        if is_reached and old.machine.may_serve_again(epoch):
            raise LawBrokenError("10", f"{old.replica} is replaced before it has stepped down")

    def _check_sticky(self, process: Process) -> None:
        excused = (
            not process.runs
            or not process.node.ray_sees
            or process.machine.callback is not None
            or self.world.now - process.faulted_at < EXCUSED_FOR_S
            or self._is_lone(process)
            or self._was_asked_to_move(process)
        )
        if not excused:
            raise LawBrokenError("7", f"{process.replica} was replaced, though nothing ailed it")

    def _was_asked_to_move(self, process: Process) -> bool:
        child = self.truth.children[process.plan.child_id]
        number = int(process.replica.rpartition("#")[2])
        is_drained = process.node.name in self.truth.draining
        return child.heir is not None or number in child.moves or is_drained

    def _is_lone(self, process: Process) -> bool:
        """Could a head that was deaf lately take that for the silence of this one node?

        It can if it knew of ready copies on no other one: law 14 speaks of most nodes.
        """
        was_deaf = self.world.now - self.world.hears_since < EXCUSED_FOR_S
        life = self._life()
        seen = {} if life is None or life.machine is None else life.machine.state.sightings
        known = {
            p.node.name
            for p in self.cluster.living()
            if p.ready_at < self.world.deaf_since
            and self._is_counted(p)
            and p.replica in seen
            and seen[p.replica].phase is Phase.READY
        }
        return was_deaf and known <= {process.node.name}

    def _check_last_ready(self, child_id: str, number: int) -> None:
        child = self.truth.children.get(child_id)  # type: ignore[call-overload]
        process = self.cluster.processes.get(ReplicaId(f"{child_id}#{number}"))
        if child is None or process is None or (is_led(child) and number == child.active):
            return
        life = self._life()
        woke_at = life.woke_at if life else process.ready_at
        told_at = max(process.ready_at, woke_at, self.world.hears_since)
        is_news = self.world.now - told_at < NEWS_TRAVELS_S
        if process.machine.phase is not Phase.READY or is_news or not self._is_well(process):
            return
        others = [
            p
            for p in self.cluster.processes.values()
            if p.plan.child_id == child_id and p is not process and self._seems_ready(p)
        ]
        if not others:
            raise LawBrokenError("9", f"{process.replica} was the last ready copy, and is retired")

    def _check_room(self, child_id: ChildId, number: int) -> None:
        """A copy that is well and has the state goes only when enough others have it."""
        child = self.truth.children.get(child_id)
        process = self.cluster.processes.get(replica_id(child_id, number))
        if child is None or process is None or not self._is_well(process):
            return
        is_spare = number in child.in_sync and number != child.active
        is_heard = self.world.now - self.world.hears_since > EXCUSED_FOR_S
        if not (is_spare and is_heard and process.node.ray_sees and child.plan.factor):
            return
        if process.machine.callback is None and len(child.in_sync) <= child.plan.factor:
            story = (
                f"{process.replica} is retired, and only {len(child.in_sync)} copies were in sync"
            )
            raise LawBrokenError("room", story)

    def _seems_ready(self, process: Process) -> bool:
        """Is it ready, or was it so lately that nobody can know better?"""
        lately = process.is_alive or self.world.now - process.died_at < EXCUSED_FOR_S
        return lately and self._is_counted(process) and process.machine.phase is Phase.READY

    def _is_counted(self, process: Process) -> bool:
        number = int(process.replica.rpartition("#")[2])
        return self.truth.placed(process.plan.child_id, number) is not None

    def _is_well(self, process: Process) -> bool:
        return process.runs and self.world.now - process.faulted_at > EXCUSED_FOR_S

    def _life(self) -> HubLife | None:
        living = [life for life in self.cluster.lives if life.is_alive and life.machine]
        return max(living, key=lambda life: life.journal.term, default=None)

    # --- what copies do -----------------------------------------------------------------------

    def after_replica(self, process: Process) -> None:
        """At no instant may two copies serve, nor one whose epoch is over; roles come in turn."""
        if process.machine.role is Role.ACTIVE and process.machine.is_taken:
            process.data.has_image = True
        told = process.told
        is_told_all = process.plan.signal is Signal.ALL
        if is_told_all and len(told) > 1 and told[-1] == told[-2]:
            raise LawBrokenError("10", f"{process.replica} was told {told[-1]} twice")
        if process.plan.model is not Model.ACTIVE_PASSIVE or not process.may_serve():
            return
        child_id, epoch = process.plan.child_id, process.machine.epoch
        if epoch < self.epochs.get(child_id, 0):
            raise LawBrokenError("5", f"{process.replica} serves in an epoch that is over")
        named = self.recorded.get((child_id, epoch))
        if process.replica != f"{child_id}#{named}":
            raise LawBrokenError("1", f"{process.replica} serves, and epoch {epoch} is {named}'s")
        for other in self.cluster.of(process.plan.child_id):
            if other is not process and other.may_serve():
                raise LawBrokenError("1", f"{process.replica} and {other.replica} both may serve")

    def obeys_a_lower_term(self, process: Process, term: int) -> None:
        """No copy is moved by a life of the hub, once it has heard of a later one (law 13)."""
        story = f"{process.replica} obeys term {term} after {process.term_heard}"
        raise LawBrokenError("13", story)

    def acknowledges(self, process: Process, epoch: int) -> None:
        """A copy answers a call."""
        self.world.totals["answers"] += 1
        if process.plan.model is not Model.ACTIVE_PASSIVE:
            return
        last_epoch, last_copy = self.acked.get(process.plan.child_id, (0, ""))
        if epoch < last_epoch or (epoch == last_epoch and process.replica != last_copy):
            raise LawBrokenError(
                "1",
                f"{process.replica} answers in epoch {epoch} after {last_copy} in {last_epoch}",
            )
        self.acked[process.plan.child_id] = epoch, process.replica

    # --- state --------------------------------------------------------------------------------

    def releases(self, process: Process, seq: int, length: int, *, is_read: bool) -> None:
        """Everybody whom the journal names holds what an answer reflects (laws 2 and 8).

        That are `seq` writes, and the first `length` items of the list.
        """
        self.world.totals["releases"] += 1
        child = self.truth.children.get(process.plan.child_id)
        own = process.machine.replication
        if child is None or own is None or child.epoch != process.machine.epoch:
            return
        items = process.data.items[:length]
        if process.plan.acks is Acks.ACTIVE:
            self.answered_ahead.setdefault(child.plan.child_id, set()).update(items[-1:])
            return
        for number in child.in_sync:
            other = self.cluster.processes[replica_id(child.plan.child_id, number)]
            if not self._is_held(other, own.holding.log.position_of(seq), seq):
                raise LawBrokenError("8", f"{process.replica} answers, {other.replica} lacks it")
            if other.data.held_items()[:length] != items:
                raise LawBrokenError("8", f"{process.replica} and {other.replica} hold other items")
        holders = [p for p in self.cluster.processes.values() if p.plan is process.plan]
        count = sum(p.data.held_items()[:length] == items for p in holders)
        if count < child.plan.min_in_sync and not is_read:
            story = f"{process.replica} answers, and {count} copies hold it"
            raise LawBrokenError("min_in_sync", story)
        if length > len(self.answered.get(child.plan.child_id, [])):
            self.answered[child.plan.child_id] = items
            self.answered_at.setdefault(child.plan.child_id, []).append((self.world.now, length))

    def _is_held(self, other: Process, place: Position | None, seq: int) -> bool:
        assert other.machine.replication is not None
        log = other.machine.replication.holding.log
        is_there = log.tail.seq >= seq if place is None else log.holds(place)
        return log.floor.seq >= seq or is_there

    def reads(self, process: Process) -> None:
        """A passive may answer a read: what it saw must stay true, and not be too old."""
        self.world.totals["passive reads"] += 1
        child_id, length = process.plan.child_id, len(process.data.items)
        seen = (process.replica, length, hash(tuple(process.data.items)))
        self.passive_reads.setdefault(child_id, []).append(seen)
        since = self.world.now - 1.1 * self.cluster.settings.read_staleness_s
        older = [answered for at, answered in self.answered_at.get(child_id, []) if at < since]
        if older and length < older[-1]:
            story = f"{process.replica} reads {length} items, of {older[-1]} that were answered"
            raise LawBrokenError("reads", story)

    def applies(self, process: Process, length: int, place: int, position: Position) -> None:
        """Writes reach an object in order, each once (law 3), and none that could be lost (law 8)."""
        if length != place:
            raise LawBrokenError("3", f"{process.replica} applies write {place} after {length}")
        own = process.machine.replication
        child = self.truth.children.get(process.plan.child_id)
        if child is None or not child.is_open or own is None or own.shipping is not None:
            return
        for number in child.in_sync:
            other = self.cluster.processes[replica_id(child.plan.child_id, number)]
            if not self._is_held(other, position, position.seq):
                story = f"{process.replica} applies {position}, which {other.replica} lacks"
                raise LawBrokenError("8", story)

    def runs(self, process: Process, call: Call) -> None:
        """A call in which a copy died runs once more, while another copy stands by (law 15)."""
        if any(isinstance(job, Apply | Install) for job in process.data.jobs):
            raise LawBrokenError("2", f"{process.replica} serves before it has applied everything")
        key = (process.plan.child_id, call.client, call.number)
        deaths = self.deaths.get(key, 0)
        child = self.truth.children.get(process.plan.child_id)
        if deaths > 1:
            raise LawBrokenError("15", f"{key} runs though {deaths} copies died in it")
        replication = process.machine.replication
        suspects = (
            {} if not replication or not replication.shipping else replication.shipping.suspects
        )
        if deaths > suspects.get((call.client, call.number), 0):
            raise LawBrokenError("15", f"{process.replica} runs {key}, and knows of no death in it")
        # The active may not have been told yet that the other one is out.
        alone_for_s = self.world.now - self.alone_since.get(process.plan.child_id, self.world.now)
        if child is not None and deaths and alone_for_s > EXCUSED_FOR_S:
            raise LawBrokenError("15", f"{key} runs again, and no other copy stands by")

    def has_read(self, process: Process, call: Call) -> None:
        """A read has ended, and has no effect that could be lost."""
        self.deaths.pop((process.plan.child_id, call.client, call.number), None)

    def admits(self, process: Process, call: Call) -> None:
        """Whoever may inherit can hear which call is entered, as far as the copy can know (law 15)."""
        shipping = process.machine.replication and process.machine.replication.shipping
        for replica in shipping.roster.members if shipping else ():
            follower = shipping.followers.get(replica) if shipping else None
            if replica != process.replica and (follower is None or follower.is_deaf):
                story = (
                    f"{process.replica} enters {call.client}:{call.number}, {replica} cannot hear"
                )
                raise LawBrokenError("15", story)

    def dies_in(self, process: Process, call: Call) -> None:
        """The copy dies while a call runs in it, and the others have heard all that it said."""
        replication = process.machine.replication
        if replication is None or replication.shipping is None or not process.node.has_kernel:
            return
        child = self.truth.children.get(process.plan.child_id)
        if child is None or not child.is_open:
            return
        shipping = replication.shipping
        told = [shipping.followers.get(replica) for replica in shipping.awaited()]
        is_told = all(
            follower is not None
            and follower.link is Link.FED
            and (link := process.data.dialled.get(follower.replica)) is not None
            and link.is_open
            and not link.under_way
            and self.cluster.processes[follower.replica].runs
            and self.world.arrives(
                process.node.name, self.cluster.processes[follower.replica].node.name
            )
            for follower in told
        )
        if is_told and told:
            key = (process.plan.child_id, call.client, call.number)
            self.deaths[key] = self.deaths.get(key, 0) + 1

    # --- what lives of the hub do -------------------------------------------------------------

    def life_began(self, life: HubLife) -> None:
        """A life's ledger is what the journal says, unless it was overtaken while it read."""
        assert life.machine is not None
        if self._is_newest(life) and not _is_same(life.machine.ledger, self.truth):
            raise LawBrokenError("journal", f"life {life.number} begins with another ledger")

    def decided(self, life: HubLife, facts: tuple[Fact, ...]) -> None:
        """No copy is placed beside another one while the life knows of a free node (law 6)."""
        assert life.machine is not None
        for fact in facts:
            if not isinstance(fact, ReplicaPlaced):
                continue
            child = life.machine.ledger.children.get(fact.child_id)
            placed = [] if child is None else [p.node_id for p in child.replicas.values()]
            free = set() if child is None else _usable(life.machine.state, child) - set(placed)
            if placed.count(fact.node_id) > 1 and free:
                story = f"{fact.child_id} shares {fact.node_id} though {sorted(free)} are free"
                raise LawBrokenError("6", story)
            if child is not None:
                self._check_place(life, child, fact)

    def _check_place(self, life: HubLife, child: Child, fact: ReplicaPlaced) -> None:
        """What the hub's labels, a mapping and strict zones forbid is done by no strategy."""
        assert life.machine is not None
        settings, plan = self.cluster.settings, child.plan
        node = self.cluster.nodes[fact.node_id].node()
        story = f"{fact.child_id}#{fact.number} is placed on {node}"
        self.world.totals["placements"] += 1
        if not is_label_match(settings.label_selector, node.labels):
            raise LawBrokenError("labels", story)
        if settings.distribution.kind is DistributionKind.GUIDED:
            entries = settings.distribution.mapping[plan.child_id]
            if node.address not in entries:
                raise LawBrokenError("guided", f"{story}, which is not in {entries}")
        if plan.zone_label and plan.spread is Spread.STRICT:
            others = [
                self.cluster.nodes[placed.node_id].node().labels[plan.zone_label]
                for placed, _ in life.machine.state.counted(child, life.own_now())
                if placed.number != fact.number
                and not is_outgoing(life.machine.state, child, placed)
            ]
            if node.labels[plan.zone_label] in others:
                raise LawBrokenError("zones", f"{story}, whose zone has a copy")

    def compacts(self, life: HubLife, snapshot: tuple[Fact, ...]) -> None:
        """The facts of a snapshot say what the ledger says."""
        assert life.machine is not None
        settings = self.cluster.settings
        folded = Ledger(settings.tombstones_max, settings.answers_max)
        for fact in snapshot:
            folded.apply(fact)
        if not _is_same(folded, life.machine.ledger):
            raise LawBrokenError("journal", "a snapshot says something else than the ledger")

    def sends(self, life: HubLife, action: SendToReplica) -> None:
        """A life that was superseded long enough ago decides to grant nothing (law 13).

        When the grant arrives does not matter: its holder counts from when it asked.
        """
        assert life.machine is not None
        if not isinstance(action.message, LeaseGranted):
            return
        self.world.totals["leases"] += 1
        later = [at for term, at in self.claimed_at.items() if term > life.machine.term]
        limit_s = self.cluster.settings.term_check_s * (
            1 + 3 * self.cluster.settings.clock_drift_max
        )
        if later and self.world.now > min(later) + limit_s:
            raise LawBrokenError("13", f"life {life.number} grants {action.replica} a lease")

    def stops(self, life: HubLife, replica: ReplicaId) -> None:
        """Nothing that counts is stopped (law 9)."""
        child_id = replica.rpartition("#")[0]
        child = self.truth.children.get(child_id)  # type: ignore[call-overload]
        number = int(replica.rpartition("#")[2])
        if child is not None and number in child.replicas and self._is_newest(life):
            raise LawBrokenError("9", f"life {life.number} stops {replica}, which counts")

    def _is_newest(self, life: HubLife) -> bool:
        return life.machine is not None and life.machine.term == max(self.claimed_at, default=0)

    def bounds(self) -> None:
        """Every count keeps its bound (law 12)."""
        life = self._life()
        if life is None or life.machine is None:
            return
        state, settings = life.machine.state, self.cluster.settings
        if not 0 <= state.starting_count <= settings.replicas_starting_max:
            raise LawBrokenError("12", f"{state.starting_count} copies start at once")
        if life.machine.requests.held_back_count > settings.requests_waiting_max:
            raise LawBrokenError("12", "too many requests wait")
        placed = sum(len(child.replicas) for child in life.machine.ledger.children.values())
        if len(state.sightings) > placed:
            raise LawBrokenError("12", "what is gone is still watched")


def _is_same(one: Ledger, other: Ledger) -> bool:
    """Do they say the same? The order of what is dropped first counts, too."""
    return one == other and list(one.tombs) == list(other.tombs)


def _usable(state: HubState, child: Child) -> set[NodeId]:
    return {node.node_id for node in state.usable_nodes(child)}
