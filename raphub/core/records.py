"""What does the hub remember for good, and what follows from it?

Facts are appended to the journal and never changed; the `Ledger` is their fold. It holds goals
and role facts only, never observations: a hub actor that starts again rebuilds it from the
journal and observes anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import assert_never

from raphub.core.model import (
    Address,
    ChildId,
    ChildPlan,
    NodeId,
    ReplicaId,
    replica_id,
    split_replica_id,
)

# --- Requests and their answers ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestId:
    """One control request of one client process.

    `number` counts a client's requests from 1. All requests below `settled_below` have been
    answered and read, so whatever else is below `number` must be seen before it runs.
    """

    client: str
    number: int
    settled_below: int = 1

    @property
    def key(self) -> tuple[str, int]:
        """What names the request, however often it is sent."""
        return (self.client, self.number)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a child did not start or stop: `kind` names the error, `reason` tells the story."""

    child_id: ChildId
    kind: str
    reason: str
    node_id: NodeId | None = None


@dataclass(frozen=True, slots=True)
class StartAnswer:
    """What became of a request to start: the replicas of each child that runs, and the troubles."""

    started: dict[ChildId, tuple[ReplicaId, ...]]
    troubles: tuple[Trouble, ...] = ()
    rolled_back: bool = False


@dataclass(frozen=True, slots=True)
class StopAnswer:
    """What became of a request to stop."""

    stopped: tuple[ChildId, ...]
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class MoveAnswer:
    """What became of a planned move. `left` are copies that are still where they were.

    A trouble of kind "no_room" says that the hub goes on as soon as there is room.
    """

    left: tuple[ReplicaId, ...] = ()
    troubles: tuple[Trouble, ...] = ()


@dataclass(frozen=True, slots=True)
class SizeAnswer:
    """The size of the cluster that counts from now on; None if the hub's rule knows none."""

    size: int | None


Answer = StartAnswer | StopAnswer | MoveAnswer | SizeAnswer


class MoveKind(StrEnum):
    """What is moved: the role of active, one copy, or all copies of a node."""

    SWITCHOVER = "switchover"
    MIGRATION = "migration"
    DRAIN = "drain"


# --- Facts ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TermClaimed:
    """A hub actor took over; whoever wrote a lower term is superseded."""

    term: int


@dataclass(frozen=True, slots=True)
class FloorsRaised:
    """No child may use an epoch or a number at or below these (kept for forgotten children)."""

    epoch: int
    number: int


@dataclass(frozen=True, slots=True)
class ChildAdded:
    """A child is wanted."""

    plan: ChildPlan
    epoch: int
    number: int


@dataclass(frozen=True, slots=True)
class ChildRemoved:
    """A child is not wanted any more; all its replicas are retired with it."""

    child_id: ChildId


@dataclass(frozen=True, slots=True)
class ChildGivenUp:
    """The hub starts no further copies of the child, for this reason."""

    child_id: ChildId
    reason: str


@dataclass(frozen=True, slots=True)
class ReplicaPlaced:
    """A copy is to run on this node."""

    child_id: ChildId
    number: int
    node_id: NodeId


@dataclass(frozen=True, slots=True)
class AddressLearned:
    """Where the copy's process listens, for whoever must prove later that it is gone."""

    child_id: ChildId
    number: int
    address: Address


@dataclass(frozen=True, slots=True)
class ReplicaPromoted:
    """The copy is the active of `epoch`; `in_sync` are the copies that hold the state, if any do."""

    child_id: ChildId
    number: int
    epoch: int
    in_sync: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplicaRetired:
    """The copy is out: never promoted again, and to be stopped."""

    child_id: ChildId
    number: int


@dataclass(frozen=True, slots=True)
class InSyncChanged:
    """All and only these copies hold every acknowledged write from now on."""

    child_id: ChildId
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChildOpened:
    """Writes may be answered from now on; before, no copy's state counted."""

    child_id: ChildId


@dataclass(frozen=True, slots=True)
class DataLost:
    """No copy that held the state is left. The child ends there, or begins anew and empty."""

    child_id: ChildId
    restart_empty: bool


@dataclass(frozen=True, slots=True)
class SwitchWanted:
    """This copy is to become the active; None: nobody is asked to any more."""

    child_id: ChildId
    number: int | None


@dataclass(frozen=True, slots=True)
class MoveWanted:
    """The copy is to be replaced by one on this node; None: on whichever it belongs."""

    child_id: ChildId
    number: int
    node_id: NodeId | None


@dataclass(frozen=True, slots=True)
class MoveDropped:
    """The copy stays where it is."""

    child_id: ChildId
    number: int


@dataclass(frozen=True, slots=True)
class DrainChanged:
    """The node is to be emptied and gets no more copies, or it may hold copies again."""

    node_id: NodeId
    is_draining: bool


@dataclass(frozen=True, slots=True)
class PauseChanged:
    """The hub heals and moves nothing by itself, or does so again."""

    is_paused: bool


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """Whoever was promoted last is proved to serve no more: gone, or stepped down."""

    child_id: ChildId


@dataclass(frozen=True, slots=True)
class ReplicaForgotten:
    """Nothing of the retired copy is left."""

    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class Move:
    """What a request to move something waits for.

    A switchover: that copy `number` of the child is its active. A migration: that copy `number` is
    out. A drain, without a child: that no copy is on the node, for at most `deadline_s` seconds.
    """

    kind: MoveKind
    child_id: ChildId | None = None
    number: int = 0
    node_id: NodeId | None = None
    deadline_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ClusterSized:
    """So many usable nodes count as the whole cluster; see `quorum`."""

    size: int


@dataclass(frozen=True, slots=True)
class RequestOpened:
    """A request runs; it is answered when its children have started, or its replicas are gone."""

    request: RequestId
    child_ids: tuple[ChildId, ...]
    awaited: tuple[ReplicaId, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    is_stop: bool = False
    rollback: bool = False
    is_move: bool = False
    move: Move | None = None


@dataclass(frozen=True, slots=True)
class RequestTroubled:
    """One child of a running request failed; its request now also awaits these replicas' end."""

    request: RequestId
    trouble: Trouble
    awaited: tuple[ReplicaId, ...]


@dataclass(frozen=True, slots=True)
class RequestRolledBack:
    """All children of a running request were removed again; it awaits these replicas' end."""

    request: RequestId
    awaited: tuple[ReplicaId, ...]


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """The answer is kept for retries."""

    request: RequestId
    answer: Answer


@dataclass(frozen=True, slots=True)
class ChildKept:
    """In a snapshot: a child as it stood."""

    plan: ChildPlan
    epoch: int
    number: int
    active: int | None
    holder: int | None
    given_up: str | None
    born_epoch: int
    in_sync: tuple[int, ...] = ()
    set_version: int = 0
    is_open: bool = False
    is_lost: bool = False
    heir: int | None = None
    born_number: int = 0


@dataclass(frozen=True, slots=True)
class RetiredKept:
    """In a snapshot: a copy that is out, and perhaps still somewhere."""

    replica: ReplicaId
    node_id: NodeId
    address: Address | None


@dataclass(frozen=True, slots=True)
class TombKept:
    """In a snapshot: where a removed child goes on if it is started again."""

    child_id: ChildId
    epoch: int
    number: int
    holder: int | None


Fact = (
    TermClaimed
    | FloorsRaised
    | ChildAdded
    | ChildRemoved
    | ChildGivenUp
    | ReplicaPlaced
    | AddressLearned
    | ReplicaPromoted
    | ReplicaRetired
    | InSyncChanged
    | ChildOpened
    | DataLost
    | SwitchWanted
    | MoveWanted
    | MoveDropped
    | DrainChanged
    | PauseChanged
    | LeaseReleased
    | ReplicaForgotten
    | ClusterSized
    | RequestOpened
    | RequestTroubled
    | RequestRolledBack
    | RequestAnswered
    | ChildKept
    | RetiredKept
    | TombKept
)

# --- Their fold -------------------------------------------------------------------------------


@dataclass(slots=True)
class Placed:
    """A copy that was placed, and where it listens once that is known."""

    number: int
    node_id: NodeId
    address: Address | None = None


@dataclass(slots=True)
class Child:
    """A wanted child. `active` is the number of the copy that the journal names active.

    `holder` is the number of the copy that was promoted last, until it is proved to serve no more:
    all and only what may hold a lease. `in_sync` are the numbers of the copies that hold every
    acknowledged write, of `set_version`, which grows with each change. Until the child `is_open`, no
    write is acknowledged and no state counts; once `is_lost`, there is none.

    Epochs and numbers of this child are above `born_epoch` and `born_number`. `heir` is the copy that
    is to become the active; `moves` are the copies that are to be replaced,
    and by one on which node, if that was said.
    """

    plan: ChildPlan
    epoch: int
    number: int
    active: int | None = None
    holder: int | None = None
    given_up: str | None = None
    born_epoch: int = 0
    in_sync: tuple[int, ...] = ()
    set_version: int = 0
    is_open: bool = False
    is_lost: bool = False
    heir: int | None = None
    born_number: int = 0
    replicas: dict[int, Placed] = field(default_factory=dict)
    moves: dict[int, NodeId | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tomb:
    """Where a removed child goes on if it is ever started again."""

    epoch: int
    number: int
    holder: int | None


@dataclass(slots=True)
class OpenRequest:
    """A request that has not been answered."""

    request: RequestId
    child_ids: tuple[ChildId, ...]
    awaited: set[ReplicaId]
    troubles: list[Trouble]
    is_stop: bool
    rollback: bool
    is_move: bool = False
    move: Move | None = None
    rolled_back: bool = False


@dataclass(slots=True)
class Ledger:
    """Everything that the journal says. `apply` is its only way to change.

    `retired` are the copies that are out but perhaps still somewhere in the cluster. `tombs` keeps
    the epoch and number where a removed child has to go on; when it is full, the oldest ones are
    merged into the two floors, which bind every new child. `cluster_size` is 0 until one counts.
    """

    tombs_max: int = 1000
    answers_max: int = 1000
    term: int = 0
    epoch_floor: int = 0
    number_floor: int = 0
    cluster_size: int = 0
    children: dict[ChildId, Child] = field(default_factory=dict)
    retired: dict[ReplicaId, Placed] = field(default_factory=dict)
    draining: dict[NodeId, None] = field(default_factory=dict)
    is_paused: bool = False
    tombs: dict[ChildId, Tomb] = field(default_factory=dict)
    requests: dict[tuple[str, int], OpenRequest] = field(default_factory=dict)
    answers: dict[tuple[str, int], Answer] = field(default_factory=dict)

    def beginning(self, child_id: ChildId) -> tuple[int, int]:
        """The epoch and the number above which a child of this id begins."""
        tomb = self.tombs.get(child_id, Tomb(0, 0, None))
        return max(tomb.epoch, self.epoch_floor), max(tomb.number, self.number_floor)

    def holder(self, child_id: ChildId) -> int | None:
        """The number of the copy that may hold the child's lease, of a removed child as well."""
        record = self.children.get(child_id) or self.tombs.get(child_id)
        return None if record is None else record.holder

    def placed(self, child_id: ChildId, number: int) -> Placed | None:
        """The copy, if it is one that counts."""
        child = self.children.get(child_id)
        return None if child is None else child.replicas.get(number)

    def apply(self, fact: Fact) -> None:  # noqa: C901, PLR0912, PLR0915 - one case a fact is the clearest
        """Fold one fact in. Total: a fact about what is gone changes nothing."""
        match fact:
            case TermClaimed(term):
                self.term = max(self.term, term)
            case FloorsRaised(epoch, number):
                self._raise_floors(epoch, number)
            case ChildAdded(plan, epoch, number):
                tomb = self.tombs.pop(plan.child_id, Tomb(0, 0, None))
                self.children[plan.child_id] = Child(
                    plan,
                    epoch,
                    number,
                    holder=tomb.holder,
                    born_epoch=epoch,
                    born_number=number,
                )
            case ChildRemoved(child_id):
                self._remove_child(child_id)
            case ChildGivenUp(child_id, reason):
                if child_id in self.children:
                    self.children[child_id].given_up = reason
            case ReplicaPlaced(child_id, number, node_id):
                child = self.children[child_id]
                child.number = max(child.number, number)
                child.replicas[number] = Placed(number, node_id)
            case AddressLearned(child_id, number, address):
                placed = self.placed(child_id, number) or self.retired.get(
                    replica_id(child_id, number)
                )
                if placed is not None:
                    placed.address = address
            case ReplicaPromoted(child_id, number, epoch, in_sync):
                child = self.children[child_id]
                child.active, child.epoch, child.holder = number, epoch, number
                child.heir = None
                self._change_set(child, in_sync)
            case InSyncChanged(child_id, in_sync):
                if child_id in self.children:
                    self._change_set(self.children[child_id], in_sync)
            case ChildOpened(child_id):
                if child_id in self.children:
                    self.children[child_id].is_open = True
            case DataLost(child_id, restart_empty):
                self._lose(child_id, restart_empty=restart_empty)
            case ReplicaRetired(child_id, number):
                self._retire(child_id, number)
            case SwitchWanted() | MoveWanted() | MoveDropped() | DrainChanged() | PauseChanged():
                self._plan_move(fact)
            case LeaseReleased(child_id):
                self._release(child_id)
            case ReplicaForgotten(replica):
                self.retired.pop(replica, None)
                for request in self.requests.values():
                    request.awaited.discard(replica)
            case ClusterSized(size):
                self.cluster_size = size
            case RequestOpened(request, child_ids, awaited, troubles):
                self.requests[request.key] = OpenRequest(
                    request,
                    child_ids,
                    set(awaited),
                    list(troubles),
                    fact.is_stop,
                    fact.rollback,
                    fact.is_move,
                    fact.move,
                )
            case RequestTroubled(request, trouble, awaited):
                opened = self.requests[request.key]
                opened.troubles.append(trouble)
                opened.awaited.update(awaited)
            case RequestRolledBack(request, awaited):
                opened = self.requests[request.key]
                opened.rolled_back = True
                opened.awaited.update(awaited)
            case RequestAnswered(request, answer):
                self.requests.pop(request.key, None)
                self.answers[request.key] = answer
                while len(self.answers) > self.answers_max:
                    del self.answers[next(iter(self.answers))]
            case ChildKept():
                kept = {f.name: getattr(fact, f.name) for f in fields(fact)}
                self.children[fact.plan.child_id] = Child(**kept)
            case RetiredKept(replica, node_id, address):
                number = split_replica_id(replica)[1]
                self.retired[replica] = Placed(number, node_id, address)
            case TombKept(child_id, epoch, number, holder):
                self.tombs[child_id] = Tomb(epoch, number, holder)
            case _:
                assert_never(fact)

    def facts(self) -> Iterator[Fact]:
        """A short list of facts whose fold is this ledger: what a snapshot holds."""
        yield TermClaimed(self.term)
        yield FloorsRaised(self.epoch_floor, self.number_floor)
        yield PauseChanged(self.is_paused)
        for node_id in self.draining:
            yield DrainChanged(node_id, is_draining=True)
        yield ClusterSized(self.cluster_size)
        for child_id, tomb in self.tombs.items():
            yield TombKept(child_id, tomb.epoch, tomb.number, tomb.holder)
        for replica, placed in self.retired.items():
            yield RetiredKept(replica, placed.node_id, placed.address)
        for child in self.children.values():
            yield ChildKept(
                child.plan,
                child.epoch,
                child.number,
                child.active,
                child.holder,
                child.given_up,
                child.born_epoch,
                child.in_sync,
                child.set_version,
                child.is_open,
                child.is_lost,
                child.heir,
                child.born_number,
            )
            for placed in child.replicas.values():
                yield ReplicaPlaced(child.plan.child_id, placed.number, placed.node_id)
                if placed.address is not None:
                    yield AddressLearned(child.plan.child_id, placed.number, placed.address)
            for number, wanted in child.moves.items():
                yield MoveWanted(child.plan.child_id, number, wanted)
        for opened in self.requests.values():
            yield RequestOpened(
                opened.request,
                opened.child_ids,
                tuple(sorted(opened.awaited)),
                tuple(opened.troubles),
                opened.is_stop,
                opened.rollback,
                opened.is_move,
                opened.move,
            )
            if opened.rolled_back:
                yield RequestRolledBack(opened.request, ())
        for (client, number), answer in self.answers.items():
            yield RequestAnswered(RequestId(client, number), answer)

    def _raise_floors(self, epoch: int, number: int) -> None:
        self.epoch_floor = max(self.epoch_floor, epoch)
        self.number_floor = max(self.number_floor, number)

    def _retire(self, child_id: ChildId, number: int) -> None:
        child = self.children.get(child_id)
        placed = None if child is None else child.replicas.pop(number, None)
        if child is None or placed is None:
            return
        self.retired[replica_id(child_id, number)] = placed
        child.moves.pop(number, None)
        if child.heir == number:
            child.heir = None
        if child.active == number:
            child.active = None
        if number in child.in_sync:
            self._change_set(child, tuple(n for n in child.in_sync if n != number))

    def _plan_move(
        self, fact: SwitchWanted | MoveWanted | MoveDropped | DrainChanged | PauseChanged
    ) -> None:
        match fact:
            case SwitchWanted(child_id, number):
                if child_id in self.children:
                    self.children[child_id].heir = number
            case MoveWanted(child_id, number, node_id):
                if self.placed(child_id, number) is not None:
                    self.children[child_id].moves[number] = node_id
            case MoveDropped(child_id, number):
                if child_id in self.children:
                    self.children[child_id].moves.pop(number, None)
            case DrainChanged(node_id, True):
                self.draining[node_id] = None
            case DrainChanged(node_id, _):
                self.draining.pop(node_id, None)
            case PauseChanged(is_paused):
                self.is_paused = is_paused
            case _:
                assert_never(fact)

    def _change_set(self, child: Child, in_sync: tuple[int, ...]) -> None:
        child.in_sync = in_sync
        child.set_version += 1

    def _lose(self, child_id: ChildId, *, restart_empty: bool) -> None:
        child = self.children.get(child_id)
        if child is not None:
            self._change_set(child, ())
            child.is_open, child.is_lost = False, not restart_empty

    def _remove_child(self, child_id: ChildId) -> None:
        child = self.children.get(child_id)
        if child is None:
            return
        for number in list(child.replicas):
            self._retire(child_id, number)
        del self.children[child_id]
        self.tombs[child_id] = Tomb(child.epoch, child.number, child.holder)
        self._merge_tombs()

    def _release(self, child_id: ChildId) -> None:
        if child_id in self.children:
            self.children[child_id].holder = None
        elif child_id in self.tombs:
            self.tombs[child_id] = replace(self.tombs[child_id], holder=None)
            self._merge_tombs()

    def _merge_tombs(self) -> None:
        """Keep the tombs few; one whose holder may still serve is never merged away."""
        if len(self.tombs) <= self.tombs_max:
            return
        for child_id, tomb in list(self.tombs.items()):
            if tomb.holder is None:
                del self.tombs[child_id]
                self._raise_floors(tomb.epoch, tomb.number)
                return
