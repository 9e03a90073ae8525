"""How does the process of one simulated copy run its object, its calls and its links to others?

As the shell does: one call at a time, from its admission until its answer may go; what was shipped
is applied in order beside it; links keep the order of what is sent, break, and may deliver what was
under way after their end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from raphub.core.log import Write
from raphub.core.messages import (
    Applied,
    Apply,
    ApplyDue,
    ApplySoon,
    CallBegan,
    CallEnded,
    CallRead,
    CallWrote,
    DialPeer,
    FromPeer,
    HangUpPeer,
    Install,
    Installed,
    PeerClosed,
    PeerConnected,
    ReplicaAction,
    SendToPeer,
    SnapshotTaken,
    TakeSnapshot,
)
from raphub.core.model import ReplicaId
from raphub.core.replication import Admission, Call
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.cluster import Process

ADMISSION_WAIT_S = 1.0
ASK_AGAIN_S = 0.05
PAUSED_S = 0.1
DIAL_TIMEOUT_S = 1.0


@dataclass
class Link:
    """One connection from an active to a passive; both directions keep their order."""

    world: World
    opener: CopyData
    acceptor: CopyData
    is_open: bool = True
    is_ended: bool = False
    last_at: dict[str, float] = field(default_factory=dict)
    held_up: dict[str, deque[object]] = field(default_factory=dict)
    under_way: int = 0

    def send(self, sender: CopyData, message: object) -> None:
        """Bytes on their way; over a cut they wait, and come in order when it is healed."""
        receiver = self.acceptor if sender is self.opener else self.opener
        if self.is_open:
            self.under_way += 1
            held_up = self.held_up.setdefault(receiver.process.replica, deque())
            held_up.append(message)
            if len(held_up) == 1:
                self._carry(sender, receiver, held_up)

    def _carry(self, sender: CopyData, receiver: CopyData, held_up: deque[object]) -> None:
        here, there = sender.process.node.name, receiver.process.node.name
        if not self.world.arrives(here, there) or receiver.process.node.is_paused:
            if self.is_open or self.world.likely(0.5):
                self.world.at(PAUSED_S, lambda: self._carry(sender, receiver, held_up))
            return
        while held_up:
            self._carry_one(sender, receiver, held_up.popleft())

    def _carry_one(self, sender: CopyData, receiver: CopyData, message: object) -> None:
        name = receiver.process.replica
        at = max(self.last_at.get(name, 0.0) + 1e-6, self.world.now + self.world.copy_delay_s())
        self.last_at[name] = at
        delay_s = at - self.world.now
        self.world.at(delay_s, lambda: self._deliver(sender, receiver, message))

    def _deliver(self, sender: CopyData, receiver: CopyData, message: object) -> None:
        """What was sent before the end may still be read, by whoever has not ended it."""
        self.under_way -= 1
        is_left = receiver is self.acceptor and (self.is_ended or self.world.likely(0.5))
        if self.is_open or is_left:
            event = FromPeer(sender.process.replica, message)  # type: ignore[arg-type]
            receiver.process.handle(event)

    def close(self) -> None:
        """Both ends notice, the opener as an event."""
        if self.is_open:
            self.is_open = False
            self.world.at(self.world.delay_s(), lambda: self.opener.lose(self))


@dataclass
class Arrival:
    """A call that has reached the copy. `reply` is told what became of it."""

    call: Call
    item: str | None
    reply: Callable[[str, object], None]
    waited_s: float = 0.0
    is_counted: bool = False


@dataclass
class CopyData:
    """The object of one copy: a list, and what is done with it."""

    world: World
    process: Process
    items: list[str] = field(default_factory=list)
    dialled: dict[ReplicaId, Link] = field(default_factory=dict)
    accepted: dict[ReplicaId, Link] = field(default_factory=dict)
    jobs: deque[Apply | Install | TakeSnapshot] = field(default_factory=deque)
    calls: deque[Arrival] = field(default_factory=deque)
    is_busy: bool = False
    is_calling: bool = False
    has_image: bool = False

    # --- questions ----------------------------------------------------------------------------

    def held_items(self) -> list[str]:
        """The list as it will be once everything that the copy holds is in its object."""
        assert self.process.machine.replication is not None
        images = [job.image for job in self.jobs if isinstance(job, Install)]
        items = list(images[-1] if images else self.items)
        for entry in self.process.machine.replication.holding.log.entries:
            if entry.change is not None and entry.change[0] == len(items):
                items.append(entry.change[1])
        return items

    # --- actions ------------------------------------------------------------------------------

    def do(self, action: ReplicaAction) -> None:
        """Do what the machine asks for, if it has to do with state."""
        match action:
            case DialPeer(peer, _):
                self._dial(peer)
            case HangUpPeer(peer):
                link = self.dialled.pop(peer, None)
                if link is not None:
                    link.is_open = False
            case SendToPeer(peer, message):
                self._send(peer, message)
            case ApplySoon():
                self._later(self.world.chance.choice((0.0, 0.001, 0.02, 0.1)), self._due)
            case Apply() | Install() | TakeSnapshot():
                self.jobs.append(action)
                self._work()

    def die(self) -> None:
        """The process ends, and with it its links and calls."""
        if self.is_calling:
            self.process.cluster.checkers.dies_in(self.process, self.calls[0].call)
        for link in (*self.dialled.values(), *self.accepted.values()):
            if self.process.node.has_kernel:
                link.is_ended = True
                link.close()
        calls, self.calls = self.calls, deque()
        for arrival in calls:
            self.world.at(self.world.delay_s(), lambda a=arrival: a.reply("died", None))  # type: ignore[misc]

    # --- links --------------------------------------------------------------------------------

    def _dial(self, peer: ReplicaId) -> None:
        other = self.process.cluster.processes.get(peer)
        if other is None:
            self.world.at(DIAL_TIMEOUT_S, lambda: self.process.handle(PeerClosed(peer)))
            return
        here, there = self.process.node.name, other.node.name
        is_way = self.world.arrives(here, there) and self.world.arrives(there, here)
        if is_way and other.runs and not self.world.likely(0.02):
            self.world.at(self.world.delay_s(), lambda: self._connect(other))
        else:
            is_refused = is_way and other.node.has_kernel and not other.is_alive
            limit_s = 0.001 if is_refused else DIAL_TIMEOUT_S
            self.world.at(limit_s, lambda: self.process.handle(PeerClosed(peer)))

    def _connect(self, other: Process) -> None:
        if not self.process.is_alive:
            return
        if not other.is_alive:
            self.process.handle(PeerClosed(other.replica))
            return
        link = Link(self.world, self, other.data)
        self.dialled[other.replica] = link
        other.data.accepted[self.process.replica] = link
        self.process.handle(PeerConnected(other.replica))

    def lose(self, link: Link) -> None:
        """A link that this copy opened has ended."""
        peer = link.acceptor.process.replica
        if self.dialled.get(peer) is link:
            del self.dialled[peer]
            self.process.handle(PeerClosed(peer))

    def _send(self, peer: ReplicaId, message: object) -> None:
        shipping = self.process.machine.replication and self.process.machine.replication.shipping
        link = self.dialled.get(peer) if shipping else None
        link = link or self.accepted.get(peer) or self.dialled.get(peer)
        if link is not None:
            link.send(self, message)

    # --- the object ---------------------------------------------------------------------------

    def _due(self) -> None:
        self.process.handle(ApplyDue())

    def _work(self) -> None:
        """Take the next job, unless one is under way or a call has the object."""
        if self.is_busy or not self.jobs or not self.process.is_alive:
            return
        if self.is_calling and isinstance(self.jobs[0], TakeSnapshot):
            return
        self.is_busy = True
        takes_s = self.world.chance.choice((0.0, 0.0005, 0.002, 0.05))
        self.world.at(0.3 if self.world.likely(0.1) else takes_s, self._finish)

    def _finish(self) -> None:
        if not self.process.is_alive:
            return
        if not self.process.runs or not self.process.is_built or self.is_calling:
            self.world.at(PAUSED_S if not self.is_calling else 0.002, self._finish)
            return
        job = self.jobs.popleft()
        self.is_busy = False
        match job:
            case Apply(entries):
                self._apply(entries)
                self.process.handle(Applied(entries[-1].position))
            case Install(position, image):
                self.items, self.has_image = list(image), True
                self.process.handle(Installed(position))
            case TakeSnapshot(peer):
                self.process.handle(SnapshotTaken(peer, tuple(self.items), len(self.items)))
        self._work()

    def _apply(self, entries: tuple[Write, ...]) -> None:
        for entry in entries:
            if entry.change is not None:
                place, item = entry.change
                checkers = self.process.cluster.checkers
                checkers.applies(self.process, len(self.items), place, entry.position)
                self.items.append(item)

    # --- calls --------------------------------------------------------------------------------

    def arrive(self, arrival: Arrival) -> None:
        """A call has come, and stands behind those that came before, or reads beside them."""
        if not self.process.is_alive:
            self.world.at(self.world.delay_s(), lambda: arrival.reply("died", None))
            return
        # The same may arrive twice, and each time is one of its own.
        arrival = replace(arrival)
        if arrival.item is None and self.world.likely(0.5):
            self._read_beside(arrival)
            return
        self.calls.append(arrival)
        if len(self.calls) == 1:
            self._admit()

    def _later(self, delay_s: float, go_on: Callable[[], None]) -> None:
        """Go on with the call that is running, unless the process has died meanwhile."""

        def step() -> None:
            if self.process.is_alive:
                if self.process.runs:
                    go_on()
                else:
                    self._later(PAUSED_S, go_on)

        self.world.at(delay_s, step)

    def _admit(self) -> None:
        if not self.calls:
            return
        if not self.process.runs:
            self._later(PAUSED_S, self._admit)
            return
        arrival = self.calls[0]
        machine, now = self.process.machine, self.process.own_now()
        verdict, kept = machine.admit_call(arrival.call, now)
        self.process.cluster.checkers.after_replica(self.process)
        match verdict:
            case Admission.SERVE:
                arrival.is_counted = True
                self.process.cluster.checkers.admits(self.process, arrival.call)
                self._begin(arrival)
            case Admission.ANSWERED:
                assert kept is not None
                self._await_release(arrival, machine.epoch, kept.seq, kept.answer, now)
            case Admission.WAIT if arrival.waited_s < ADMISSION_WAIT_S:
                arrival.waited_s += ASK_AGAIN_S
                self._later(ASK_AGAIN_S, self._admit)
            case Admission.FORGOTTEN | Admission.KILLED:
                self._end(arrival, verdict.value, None)
            case _:
                self._end(arrival, "refused", None)

    def _read_beside(self, arrival: Arrival) -> None:
        """A read that waits for no other call sees writes that are not answered yet."""
        if not self.process.runs:
            self._later(PAUSED_S, lambda: self._read_beside(arrival))
            return
        now = self.process.own_now()
        verdict, _ = self.process.machine.admit_call(arrival.call, now)
        self.process.cluster.checkers.after_replica(self.process)
        if verdict is Admission.SERVE:
            replication = self.process.machine.replication
            assert replication is not None
            seq = replication.holding.log.tail.seq
            epoch = self.process.machine.epoch
            arrival.is_counted = True
            self._await_release(arrival, epoch, seq, tuple(self.items), now)
        else:
            self._end(arrival, "refused", None)

    def _begin(self, arrival: Arrival) -> None:
        call, machine = arrival.call, self.process.machine
        self.is_calling = True
        self.process.handle(CallBegan(call.client, call.number))
        epoch = machine.epoch
        self.process.cluster.checkers.runs(self.process, call)
        takes_s = self.world.chance.choice((0.0, 0.0, 0.003, 0.003, 0.3, 0.3, 1.0))
        self._later(takes_s, lambda: self._execute(arrival, epoch))

    def _execute(self, arrival: Arrival, epoch: int) -> None:
        call, machine = arrival.call, self.process.machine
        replication = machine.replication
        assert replication is not None
        answer: object
        if arrival.item is None:
            answer = tuple(self.items)
            self.process.cluster.checkers.has_read(self.process, call)
            self.process.handle(CallRead(call.client, call.number))
        else:
            change = (len(self.items), arrival.item)
            self.items.append(arrival.item)
            answer = len(self.items)
            self.process.handle(
                CallWrote(epoch, call.client, call.number, call.settled_below, answer, change, 8, 8)
            )
        self.is_calling = False
        self._work()
        seq = replication.holding.log.tail.seq
        self._await_release(arrival, epoch, seq, answer, self.process.own_now())

    def _await_release(
        self, arrival: Arrival, epoch: int, seq: int, answer: object, since: float
    ) -> None:
        machine, now = self.process.machine, self.process.own_now()
        is_read = arrival.item is None
        if machine.may_release(epoch, seq, now, is_read=is_read):
            self.process.cluster.checkers.acknowledges(self.process, epoch)
            length = answer if isinstance(answer, int) else len(answer)  # type: ignore[arg-type]
            self.process.cluster.checkers.releases(self.process, seq, length, is_read=is_read)
            self._end(arrival, "answered", answer)
        elif not machine.may_serve_again(epoch) or now - since > machine.lease_duration_s:
            self._end(arrival, "withheld", None)
        else:
            self._later(0.003, lambda: self._await_release(arrival, epoch, seq, answer, since))

    def _end(self, arrival: Arrival, outcome: str, answer: object) -> None:
        self.world.at(self.world.delay_s(), lambda: arrival.reply(outcome, answer))
        if arrival.is_counted:
            self.process.handle(CallEnded())
        if not (self.calls and self.calls[0] is arrival):
            return
        self.calls.popleft()
        if self.calls:
            self._later(0.0005, self._admit)
