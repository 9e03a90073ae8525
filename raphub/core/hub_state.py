"""What does the hub know at this moment, and what has it decided to do about it?

The `Ledger` is what the journal says, the rest is observed. The parts of the hub machine (roles,
copies, requests) read and change this one state and leave facts and actions in it; the machine
hands them out, facts first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from raphub.core import placement
from raphub.core.loads import Loads
from raphub.core.messages import Dial, HubAction, Note, Publish, Record
from raphub.core.model import (
    Address,
    ChildId,
    ChildPlan,
    DistributionKind,
    HubSettings,
    Model,
    Node,
    NodeId,
    Phase,
    ReplicaId,
    Role,
    Spread,
    replica_id,
    split_replica_id,
)
from raphub.core.quorum import View
from raphub.core.records import Child, Fact, Ledger, Placed
from raphub.core.sightings import NEVER, Crashes, Leases, Sighting, Trust

AVOIDED_S = 30.0
"""How long other nodes are preferred to one where a copy was lost."""


@dataclass(slots=True)
class HubState:
    """One life of a hub actor. `began_at` is when it claimed its term, on its own clock.

    `standstill` says why a partitioned hub stands still. It is empty while the hub goes on, and None
    until the nodes were counted for the first time. `cluster` is how they were counted last.
    `custom` is the user's strategy, where the settings name one and it could be loaded.
    """

    settings: HubSettings
    ledger: Ledger
    term: int
    began_at: float
    custom: placement.Custom | None = None
    leases: Leases = field(init=False)
    trust: Trust = field(init=False)
    term_held_at: float = field(init=False)
    nodes: dict[NodeId, Node] = field(default_factory=dict)
    vanished_at: dict[NodeId, float] = field(default_factory=dict)
    refused: set[NodeId] = field(default_factory=set)
    avoided_until: dict[NodeId, float] = field(default_factory=dict)
    sightings: dict[ReplicaId, Sighting] = field(default_factory=dict)
    crashes: dict[ChildId, Crashes] = field(default_factory=dict)
    on_node: dict[NodeId, set[ReplicaId]] = field(default_factory=dict)
    unsettled: dict[ChildId, None] = field(default_factory=dict)
    short: set[ChildId] = field(default_factory=set)
    queued: dict[ChildId, None] = field(default_factory=dict)
    elections: dict[ChildId, float] = field(default_factory=dict)
    grace_ends_at: dict[ChildId, float] = field(default_factory=dict)
    timers: list[tuple[float, ChildId]] = field(default_factory=list)
    timed: dict[ChildId, float] = field(default_factory=dict)
    facts: list[Fact] = field(default_factory=list)
    actions: list[HubAction] = field(default_factory=list)
    starting_count: int = 0
    cluster: View | None = None
    standstill: str | None = None
    loads: Loads = field(default_factory=Loads)
    strategy_trouble: str = ""

    def __post_init__(self) -> None:
        lease_unknown_s = self.settings.term_check_s + self.settings.lease_certain_s
        self.leases = Leases(self.settings, self.began_at + lease_unknown_s)
        self.trust = Trust(self.settings, self.began_at)
        # Not `began_at`: between the claim and now this life may have stood still, and lost it.
        self.term_held_at = NEVER
        self.standstill = "" if self.settings.partition_tolerance is None else None

    @property
    def goes_on(self) -> bool:
        """May the hub decide about its children, and let them serve? Else it is partitioned."""
        return self.standstill == ""

    # --- what was decided ---------------------------------------------------------------------

    def record(self, fact: Fact) -> None:
        """Decide a durable fact: it counts here at once, and nowhere else before it is at rest."""
        self.ledger.apply(fact)
        self.facts.append(fact)

    def do(self, action: HubAction) -> None:
        """Decide an action; it is performed after all facts decided with it are at rest."""
        self.actions.append(action)

    def note(
        self,
        kind: str,
        text: str,
        child_id: ChildId | None = None,
        number: int | None = None,
        node_id: NodeId | None = None,
    ) -> None:
        """Decide a line in the hub's history."""
        replica = None if number is None or child_id is None else replica_id(child_id, number)
        self.do(Note(kind, text, child_id, replica, node_id))

    def take_decisions(self) -> list[HubAction]:
        """All that was decided since the last call: one record, then the actions in order."""
        actions = [*([Record(tuple(self.facts))] if self.facts else []), *self.actions]
        self.facts.clear()
        self.actions.clear()
        return actions

    # --- which children need a look -----------------------------------------------------------

    def touch(self, child_id: ChildId) -> None:
        """Something about the child has changed; it is settled before the event is over."""
        self.unsettled[child_id] = None

    def take_unsettled(self) -> ChildId | None:
        """The next child that needs a look: a touched one, else one that waited for its turn."""
        if not self.unsettled and self.starting_count < self.settings.replicas_starting_max:
            waiting = self.queued
        else:
            waiting = self.unsettled
        child_id = next(iter(waiting), None)
        if child_id is not None:
            del waiting[child_id]
        return child_id

    def wake_at(self, child_id: ChildId, at: float) -> None:
        """Settle the child again at this time, or earlier if it is woken earlier."""
        if at < self.timed.get(child_id, float("inf")):
            self.timed[child_id] = at
            heapq.heappush(self.timers, (at, child_id))

    def touch_due(self, now: float) -> None:
        """Touch every child whose time has come."""
        while self.timers and self.timers[0][0] <= now:
            at, child_id = heapq.heappop(self.timers)
            if self.timed.get(child_id) == at:
                del self.timed[child_id]
                self.touch(child_id)

    # --- copies -------------------------------------------------------------------------------

    def sighting(self, replica: ReplicaId, now: float) -> Sighting:
        """What was observed of the copy; begins with nothing observed."""
        seen = self.sightings.get(replica)
        if seen is None:
            seen = self.sightings[replica] = Sighting(began_at=now, heard_at=now)
        return seen

    def copies(self, child: Child, now: float) -> Iterator[tuple[Placed, Sighting]]:
        """The child's copies that are not retired, in the order of their numbers."""
        for number in sorted(child.replicas):
            yield (
                child.replicas[number],
                self.sighting(replica_id(child.plan.child_id, number), now),
            )

    def is_silent(self, seen: Sighting, now: float) -> bool:
        """Has nothing been heard of the copy for too long?"""
        return now >= self.silent_at(seen)

    def silent_at(self, seen: Sighting) -> float:
        """When the copy counts as silent, if nothing more is heard of it.

        After one lease; a copy that is not ready gets ten, for a constructor may hold the
        interpreter lock, and nobody depends on it yet, unless it was promoted before this life.
        """
        patience = 1 if seen.phase is Phase.READY or seen.was_active else 10
        return seen.heard_at + patience * self.settings.lease_certain_s

    def may_believe_silence(self, now: float) -> bool:
        """May the hub act on silence at all? See `Trust`."""
        return now >= self.silence_believed_at()

    def silence_believed_at(self) -> float:
        """From when on silence may be believed, as things stand."""
        return max(self.leases.unknown_until, self.trust.distrusted_until)

    def is_counted(self, placed: Placed, seen: Sighting, now: float) -> bool:
        """Does the copy count towards the factor?"""
        if seen.is_gone or placed.node_id not in self.nodes:
            return False
        is_up = placed.address is not None
        return not (is_up and self.is_silent(seen, now) and self.may_believe_silence(now))

    def counted(self, child: Child, now: float) -> list[tuple[Placed, Sighting]]:
        """All and only the copies that count towards the factor."""
        return [copy for copy in self.copies(child, now) if self.is_counted(*copy, now)]

    def usable_nodes(self, child: Child) -> list[Node]:
        """The nodes that could get a copy of the child, free capacity aside."""
        draining = self.ledger.draining
        return [node for node in self._fit_nodes(child) if node.node_id not in draining]

    def _fit_nodes(self, child: Child) -> list[Node]:
        """Those, and the nodes that are being emptied.

        Those of a guided child are all and only the mapped ones, in the order of the mapping. Where
        copies must not share a zone, a node without the label is in no zone that is known.
        """
        plan, selector = child.plan, self.settings.label_selector
        nodes = [n for n in self.nodes.values() if placement.is_usable(plan, n, selector)]
        if plan.zone_label and plan.spread is Spread.STRICT:
            nodes = [node for node in nodes if plan.zone_label in node.labels]
        if not self.is_guided:
            return nodes
        entries = self.settings.distribution.mapping.get(plan.child_id, ())
        taken = {placed.node_id: 1 for placed in child.replicas.values()}
        return placement.by_mapping(entries, nodes, taken)

    @property
    def is_guided(self) -> bool:
        """Does a mapping say where copies go?"""
        return self.settings.distribution.kind is DistributionKind.GUIDED

    def zone_of(self, plan: ChildPlan) -> Callable[[NodeId], str | None]:
        """How to tell in which zone a node is, for this child; None if that is not known."""
        label = plan.zone_label or ""

        def zone(node_id: NodeId) -> str | None:
            node = self.nodes.get(node_id)
            return None if node is None else node.labels.get(label)

        return zone

    def places(self, child: Child) -> int:
        """How many copies of the child could stand, each as far from the others as it must be.

        A node that is being emptied counts until it is: a copy there waits for room elsewhere. One
        copy on each node is a different matter.
        """
        is_one_a_node = child.plan.factor is None
        nodes = self.usable_nodes(child) if is_one_a_node else self._fit_nodes(child)
        if not has_strict_zones(child):
            return len(nodes)
        zone_of = self.zone_of(child.plan)
        return len({zone_of(node.node_id) for node in nodes})

    def wanted(self, child: Child) -> int:
        """How many copies the child should have on the nodes there are."""
        places = self.places(child)
        if child.plan.factor is None:
            return max(1, places)
        if self.is_guided or child.plan.spread is Spread.STRICT:
            return min(child.plan.factor, places)
        return child.plan.factor if places else 0

    def dial(self, replica: ReplicaId, seen: Sighting, address: Address) -> None:
        """Try to connect; the outcome is an event."""
        seen.is_dialing = True
        self.do(Dial(replica, address))

    def publish(self, child_id: ChildId) -> None:
        """Tell every process what the child is now."""
        self.do(Publish(child_id))

    def forget_copy(self, replica: ReplicaId, node_id: NodeId) -> None:
        """The copy does not count any more; drop what was observed of it."""
        seen = self.sightings.pop(replica, None)
        self.loads.forget(replica, node_id)
        if seen is not None:
            self.end_starting(seen)
        held = self.on_node.get(node_id)
        if held is not None:
            held.discard(replica)
            if not held:
                del self.on_node[node_id]

    def begin_starting(self, seen: Sighting) -> None:
        """One more copy is on its way up; the count of those is bounded."""
        seen.is_starting = True
        self.starting_count += 1

    def end_starting(self, seen: Sighting) -> None:
        """The copy is up or out, and makes room for one that waits for its turn."""
        if seen.is_starting:
            seen.is_starting = False
            self.starting_count -= 1

    def place_copy(
        self, replica: ReplicaId, node_id: NodeId, plan: ChildPlan, *, is_up: bool = False
    ) -> None:
        """The copy stands, or is to stand, on this node."""
        self.on_node.setdefault(node_id, set()).add(replica)
        self.loads.place(replica, node_id, plan, is_up=is_up)

    def avoid(self, node_id: NodeId, now: float) -> None:
        """Prefer other nodes for a while: a copy died, fell silent, or found no room here."""
        self.avoided_until[node_id] = now + AVOIDED_S

    def forget_child(self, child_id: ChildId) -> None:
        """The child is gone; drop what was observed of it as a whole."""
        self.elections.pop(child_id, None)
        self.grace_ends_at.pop(child_id, None)

    def forget_avoided(self, now: float) -> None:
        """Drop what is over."""
        for node_id in [n for n, until in self.avoided_until.items() if until <= now]:
            del self.avoided_until[node_id]

    def crashes_of(self, child_id: ChildId) -> Crashes:
        """The deaths of this child's copies lately."""
        return self.crashes.setdefault(child_id, Crashes())


def has_strict_zones(child: Child) -> bool:
    """May two copies never share a zone?"""
    return bool(child.plan.zone_label) and child.plan.spread is Spread.STRICT


def is_led(child: Child) -> bool:
    """Does one copy serve for all, under a lease?"""
    return child.plan.model is Model.ACTIVE_PASSIVE


def role_of(child: Child, number: int) -> Role:
    """The role that the journal gives to the copy."""
    is_serving = number == child.active or not is_led(child)
    return Role.ACTIVE if is_serving else Role.PASSIVE


def is_role_taken(child: Child, placed: Placed, seen: Sighting) -> bool:
    """Has the copy said that it has the role which the journal gives it?"""
    if is_led(child) and placed.number == child.active:
        return seen.role is Role.ACTIVE and seen.epoch == child.epoch
    return seen.role is role_of(child, placed.number)


def child_of(replica: ReplicaId) -> ChildId:
    """The child that the copy belongs to."""
    return split_replica_id(replica)[0]
