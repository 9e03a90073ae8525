"""What can happen to a machine, and what can a machine ask for?

Events are told in the past, actions asked in the imperative. Wire messages travel between the
hub and a replica: they arrive inside `FromReplica` or `FromHub` and leave inside `SendToReplica`
or `SendToHub`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from raphub.core.log import START, Position, Write
from raphub.core.model import (
    Address,
    ChildId,
    ChildPlan,
    Node,
    NodeId,
    Phase,
    ReplicaId,
    Role,
)
from raphub.core.records import Answer, Fact, RequestId
from raphub.core.shipments import FromActive, FromPassive

# --- Wire messages: from the hub to a replica -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Roster:
    """What is recorded of a child whose state is replicated, told to its active.

    `members` is the in-sync set of `version` in `epoch`, `copies` are all copies that listen, and
    where. No write is answered before the child `is_open`; until then, no copy's state counts.
    """

    epoch: int
    version: int
    members: tuple[ReplicaId, ...]
    copies: tuple[tuple[ReplicaId, Address], ...]
    is_open: bool


@dataclass(frozen=True, slots=True)
class TakeRole:
    """Be `role` in `epoch`. It carries no lease: an active serves only after its own renewal.

    An active whose state is replicated is told its roster with it.
    """

    role: Role
    epoch: int
    roster: Roster | None = None


@dataclass(frozen=True, slots=True)
class TellPosition:
    """Report at once: an heir is being chosen."""


@dataclass(frozen=True, slots=True)
class StepDown:
    """Stop serving in `epoch` and say so; counts for that epoch only.

    Calls that run are given `drain_s` seconds to come to their end; no other one begins.
    """

    epoch: int
    drain_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """The renewal that was sent at `sent_at_s`, on the replica's own clock, is granted."""

    epoch: int
    sent_at_s: float


@dataclass(frozen=True, slots=True)
class Fenced:
    """A higher epoch is recorded: whoever serves in a lower one stops for good."""

    epoch: int


@dataclass(frozen=True, slots=True)
class DrainNear:
    """The replica's node is being emptied; so many seconds are left."""

    deadline_s: float


HubMessage = TakeRole | StepDown | LeaseGranted | Fenced | Roster | TellPosition | DrainNear

# --- Wire messages: from a replica to the hub -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """What the replica is: its heartbeat. Sent on each connection, change of phase and renewal.

    `is_built` says that its constructor has returned; `tail` is the last write that it holds.
    """

    phase: Phase
    role: Role | None
    epoch: int
    pid: int
    is_built: bool = True
    tail: Position = START


@dataclass(frozen=True, slots=True)
class BuildFailed:
    """The user's constructor raised what `reason` says. Sent in place of reports, to every hub."""

    reason: str


@dataclass(frozen=True, slots=True)
class Renew:
    """The active asks to serve on; `sent_at_s` is its own clock and comes back in the answer."""

    epoch: int
    sent_at_s: float


@dataclass(frozen=True, slots=True)
class RoleTaken:
    """The role's callback has returned, raised (`trouble` says what), or was not wanted."""

    role: Role
    epoch: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class RoleOverdue:
    """The role's callback has passed its deadline and is still running."""

    role: Role
    epoch: int


@dataclass(frozen=True, slots=True)
class SteppedDown:
    """The replica will not serve in `epoch` any more."""

    epoch: int


@dataclass(frozen=True, slots=True)
class SetWanted:
    """The active asks for the in-sync set `members` in place of the one of `version`."""

    epoch: int
    version: int
    members: tuple[ReplicaId, ...]


@dataclass(frozen=True, slots=True)
class ShipmentSlow:
    """A shipment of so many bytes took so long to be acknowledged."""

    took_s: float
    size: int


@dataclass(frozen=True, slots=True)
class Diverged:
    """The replica's object does not do what the active's did; `reason` tells the story."""

    reason: str


@dataclass(frozen=True, slots=True)
class DrainTroubled:
    """The user's `on_drain` raised what `reason` says."""

    reason: str


@dataclass(frozen=True, slots=True)
class WritesLost:
    """The new active of `epoch` lacks up to `count` writes that may have been acknowledged."""

    epoch: int
    count: int


ReplicaMessage = (
    Report
    | BuildFailed
    | Renew
    | RoleTaken
    | RoleOverdue
    | SteppedDown
    | SetWanted
    | ShipmentSlow
    | Diverged
    | DrainTroubled
    | WritesLost
)

# --- Events of the hub machine ----------------------------------------------------------------


class Failure(StrEnum):
    """Why a replica did not come up."""

    CONSTRUCTOR = "constructor"
    DIED = "died"
    NO_ROOM = "no_room"


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """The journal was read and the term claimed."""


@dataclass(frozen=True, slots=True)
class CopiesFound:
    """The copies of this hub that the cluster holds anything of, counted or not.

    A hub actor that was superseded may still have started one.
    """

    replicas: tuple[ReplicaId, ...]


@dataclass(frozen=True, slots=True)
class TermHeld:
    """The journal still named this hub's term when it was asked at `asked_at_s`."""

    asked_at_s: float


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """Ray's table of living nodes, whole. A node that is missing is suspected, no more."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class LoadsSeen:
    """What Ray's figures say is free on each node, of each resource; what is missing is used up."""

    free: dict[NodeId, dict[str, float]]


@dataclass(frozen=True, slots=True)
class NodeRefused:
    """Nobody listens on the port of the node's raylet: Ray will call it dead, sooner or later."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class DrainNoticed:
    """Ray is going to take these nodes away, each in so many seconds."""

    nodes: tuple[tuple[NodeId, float], ...]


@dataclass(frozen=True, slots=True)
class JobsEnded:
    """These jobs are over; children that live with them end."""

    job_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChildrenRequested:
    """A client asks to start children."""

    request: RequestId
    plans: tuple[ChildPlan, ...]
    check_existing: bool = True
    rollback: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A client asks to stop children; None stands for all of them."""

    request: RequestId
    child_ids: tuple[ChildId, ...] | None


@dataclass(frozen=True, slots=True)
class SwitchoverRequested:
    """A client asks that the child's copy on this node be its active; None: any other copy."""

    request: RequestId
    child_id: ChildId
    node_id: NodeId | None = None


@dataclass(frozen=True, slots=True)
class MigrationRequested:
    """A client asks that the copy be replaced by one on this node; None: wherever it belongs."""

    request: RequestId
    replica: ReplicaId
    node_id: NodeId | None = None


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """A client asks that a node be emptied and stay so, or that it be used again."""

    request: RequestId
    node_id: NodeId
    deadline_s: float = 60.0
    is_undone: bool = False


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """A client asks that the hub heal and move nothing by itself, or that it do so again."""

    request: RequestId
    is_paused: bool


@dataclass(frozen=True, slots=True)
class ClusterSizeSet:
    """A client says how many nodes the whole cluster has from now on."""

    request: RequestId
    size: int


@dataclass(frozen=True, slots=True)
class ReplicaLocated:
    """The replica's process listens at `address`."""

    replica: ReplicaId
    address: Address
    pid: int


@dataclass(frozen=True, slots=True)
class ReplicaFailed:
    """The replica did not come up. `died` is a proof only with a cause in its own process."""

    replica: ReplicaId
    failure: Failure
    reason: str


@dataclass(frozen=True, slots=True)
class WireClosed:
    """The connection to the replica broke, or could not be made in time."""

    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class ProcessGone:
    """The replica's process is proved gone: its port refuses, or Ray reported the worker's exit."""

    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class ReplicaStopped:
    """Nothing of the replica is left in the cluster: actor, placement group and name are gone."""

    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class FromReplica:
    """A wire message arrived on the replica's present connection."""

    replica: ReplicaId
    message: ReplicaMessage


ControlRequest = (
    ChildrenRequested
    | StopRequested
    | SwitchoverRequested
    | MigrationRequested
    | DrainRequested
    | PauseRequested
    | ClusterSizeSet
)

HubEvent = (
    Ticked
    | Recovered
    | CopiesFound
    | TermHeld
    | NodesSeen
    | LoadsSeen
    | NodeRefused
    | DrainNoticed
    | JobsEnded
    | ControlRequest
    | ReplicaLocated
    | ReplicaFailed
    | WireClosed
    | ProcessGone
    | ReplicaStopped
    | FromReplica
)

# --- Actions of the hub machine ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """Put these facts at rest; nothing that follows is performed before they are."""

    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class StartReplica:
    """Reserve room on the node and start the copy there; find it if it was started before."""

    replica: ReplicaId
    node_id: NodeId
    plan: ChildPlan


@dataclass(frozen=True, slots=True)
class StopReplica:
    """End the copy and free all that it holds, then report `ReplicaStopped`."""

    replica: ReplicaId


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to the replica; answers are its `Report`, `WireClosed` or `ProcessGone`."""

    replica: ReplicaId
    address: Address


@dataclass(frozen=True, slots=True)
class ProbeNode:
    """Ask the port of the node's raylet whether anybody listens; if not, `NodeRefused` follows."""

    node_id: NodeId
    address: Address


@dataclass(frozen=True, slots=True)
class SendToReplica:
    """Send a wire message, if there is a connection; a lost one is sent again by the machine."""

    replica: ReplicaId
    message: HubMessage


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell every process that uses the hub what this child is now."""

    child_id: ChildId


@dataclass(frozen=True, slots=True)
class PublishCluster:
    """Tell every process which nodes there are, and whether the hub stands still for want of them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a client's request."""

    request: RequestId
    answer: Answer


@dataclass(frozen=True, slots=True)
class Note:
    """Add a line to the hub's history of events."""

    kind: str
    text: str
    child_id: ChildId | None = None
    replica: ReplicaId | None = None
    node_id: NodeId | None = None


HubAction = (
    Record
    | StartReplica
    | StopReplica
    | Dial
    | ProbeNode
    | SendToReplica
    | Publish
    | PublishCluster
    | Reply
    | Note
)

# --- Events and actions of the replica machine ------------------------------------------------


@dataclass(frozen=True, slots=True)
class FromHub:
    """A wire message arrived from the hub actor that claimed `term`."""

    term: int
    message: HubMessage


@dataclass(frozen=True, slots=True)
class HubConnected:
    """A hub actor of `term` has connected."""

    term: int


@dataclass(frozen=True, slots=True)
class BuildBegan:
    """The user's constructor has been entered."""


@dataclass(frozen=True, slots=True)
class Built:
    """The user's object stands."""


@dataclass(frozen=True, slots=True)
class CallbackReturned:
    """`on_role_change` has returned, or raised what `trouble` says."""

    role: Role
    epoch: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class BuildRaised:
    """The user's constructor raised; there will be no object."""

    reason: str


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A connection to a passive stands, as this copy asked for."""

    peer: ReplicaId


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The connection to a passive broke, or could not be made."""

    peer: ReplicaId


@dataclass(frozen=True, slots=True)
class FromPeer:
    """Another copy of the child has said something."""

    peer: ReplicaId
    message: FromActive | FromPassive


@dataclass(frozen=True, slots=True)
class CallBegan:
    """A call that was admitted enters the user's object."""

    client: str
    number: int


@dataclass(frozen=True, slots=True)
class CallWrote:
    """A call admitted in `epoch` has left the user's object. Sizes in bytes; see `log.Write`."""

    epoch: int
    client: str
    number: int
    settled_below: int
    answer: Any
    change: Any
    answer_bytes: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class CallRead:
    """A call has left the user's object, which it did not change."""

    client: str
    number: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call that was admitted is over: answered, withheld or failed. One for each."""


@dataclass(frozen=True, slots=True)
class DrainTold:
    """The user's `on_drain` has returned, or raised what `trouble` says."""

    trouble: str = ""


@dataclass(frozen=True, slots=True)
class ApplyDue:
    """The moment that `ApplySoon` spoke of has come."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The user's object has taken in every write up to `position`."""

    position: Position


@dataclass(frozen=True, slots=True)
class Installed:
    """The user's object has taken in the snapshot of `position`."""

    position: Position


@dataclass(frozen=True, slots=True)
class ApplyFailed:
    """The user's object could not take in a write or a snapshot, or made something else of it."""

    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The whole state as of the last write was taken for `peer`; no call ran meanwhile."""

    peer: ReplicaId
    image: Any
    size: int = 0


@dataclass(frozen=True, slots=True)
class StateBroken:
    """The active's state cannot be shipped any more; what the last call did to it is not told."""

    reason: str


ReplicaEvent = (
    Ticked
    | FromHub
    | HubConnected
    | BuildBegan
    | Built
    | BuildRaised
    | CallbackReturned
    | PeerConnected
    | PeerClosed
    | FromPeer
    | CallBegan
    | CallWrote
    | CallRead
    | CallEnded
    | DrainTold
    | ApplyDue
    | Applied
    | Installed
    | ApplyFailed
    | SnapshotTaken
    | StateBroken
)


@dataclass(frozen=True, slots=True)
class SendToHub:
    """Send a wire message to the hub actor of the highest term seen."""

    message: ReplicaMessage


@dataclass(frozen=True, slots=True)
class CallBack:
    """Call the user's `on_role_change`, never at the same time as a call of the user's."""

    role: Role
    epoch: int


@dataclass(frozen=True, slots=True)
class TellDrain:
    """Call the user's `on_drain`, as `on_role_change` is called; `DrainTold` follows."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class AbandonCallback:
    """The running `on_role_change` no longer keeps calls waiting."""


@dataclass(frozen=True, slots=True)
class WakeCalls:
    """Calls that wait for this replica to serve should ask again."""


@dataclass(frozen=True, slots=True)
class DialPeer:
    """Connect to a passive; the answer is `PeerConnected` or `PeerClosed`."""

    peer: ReplicaId
    address: Address


@dataclass(frozen=True, slots=True)
class HangUpPeer:
    """End the connection to a passive, if there is one."""

    peer: ReplicaId


@dataclass(frozen=True, slots=True)
class SendToPeer:
    """Send to another copy, if there is a connection."""

    peer: ReplicaId
    message: FromActive | FromPassive


@dataclass(frozen=True, slots=True)
class ApplySoon:
    """Feed `ApplyDue` in a moment, or at once if somebody waits for the object to be new."""


@dataclass(frozen=True, slots=True)
class ApplyNow:
    """Whoever is about to feed `ApplyDue`, or to take something in, is to wait no longer."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Have the user's object take in these writes, in order; `Applied` follows."""

    entries: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Install:
    """Have the user's object take in the whole state; `Installed` follows."""

    position: Position
    image: Any


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Take the whole state for a passive between two calls; `SnapshotTaken` follows."""

    peer: ReplicaId


ReplicaAction = (
    SendToHub
    | CallBack
    | TellDrain
    | AbandonCallback
    | WakeCalls
    | DialPeer
    | HangUpPeer
    | SendToPeer
    | ApplySoon
    | ApplyNow
    | Apply
    | Install
    | TakeSnapshot
)
