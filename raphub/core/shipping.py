"""Who has to hold a write before it is answered, and how does it get there?

The active's half of replication. The method is that of Lin et al., PacificA (MSR-TR-2008-25): the
hub's journal names the in-sync set, and what the active awaits always contains what the journal
names. To take a copy in, the active first waits for it on every write and then asks for the record;
to leave one out, it waits until that is recorded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from raphub.core.holding import Holding
from raphub.core.log import START, Position, Write
from raphub.core.messages import (
    DialPeer,
    HangUpPeer,
    ReplicaAction,
    Roster,
    SendToHub,
    SendToPeer,
    SetWanted,
    ShipmentSlow,
    TakeSnapshot,
    WakeCalls,
)
from raphub.core.model import Address, ReplicaId
from raphub.core.shipments import (
    Acked,
    Beat,
    Began,
    Follow,
    FromPassive,
    Pulse,
    Ship,
    Snapshot,
    Standing,
)

NEVER = float("-inf")
DIAL_AGAIN_S = 0.2
DIAL_AGAIN_MIN_S = 0.01
ASK_AGAIN_S = 0.5
SLOW_AGAIN_S = 10.0
SAME_AGAIN_BYTES_MAX = 64 * 1024


class Link(StrEnum):
    """How far the conversation with a passive has come."""

    DOWN = "down"
    DIALING = "dialing"
    ASKED = "asked"
    FED = "fed"
    COPYING = "copying"


@dataclass(slots=True)
class Follower:
    """One passive as its active sees it.

    It certainly holds everything up to `acked` (-1: nothing is known). It was sent everything up to
    `shipped`, of which `under_way` are the positions, sizes and times that are not acknowledged.
    `waits_since` is when something that it is to acknowledge, or to hear of, began to wait for it.
    """

    replica: ReplicaId
    address: Address
    link: Link = Link.DOWN
    dial_at: float = NEVER
    failures: int = 0
    acked: int = -1
    shipped: Position = START
    under_way: deque[tuple[Position, int, float]] = field(default_factory=deque)
    under_way_bytes: int = 0
    waits_since: float | None = None
    is_installing: bool = False
    rejoin_at: float = NEVER

    @property
    def is_deaf(self) -> bool:
        """Is there no connection to it?"""
        return self.link in (Link.DOWN, Link.DIALING)

    def forget_stream(self) -> None:
        """The conversation begins anew; what was acknowledged stays so."""
        self.under_way.clear()
        self.under_way_bytes = 0
        self.is_installing = False


@dataclass(slots=True)
class Shipping:
    """The active half of one copy, in one epoch that began at `base`.

    `joining` are the copies that are awaited though the journal does not name them yet; `wanted` is
    the set that the hub was asked to record, of the version after `roster`'s. `suspects` counts the
    copies that died in a call that has not come to its end; `running` is the call that was entered
    last, which every passive is told of, also one that connects later.
    """

    me: ReplicaId
    holding: Holding
    epoch: int
    base: Position
    roster: Roster
    slow_after_s: float
    suspects: dict[tuple[str, int], int] = field(default_factory=dict)
    running: Began | None = None
    entered_count: int = 0
    followers: dict[ReplicaId, Follower] = field(default_factory=dict)
    joining: set[ReplicaId] = field(default_factory=set)
    wanted: tuple[ReplicaId, ...] | None = None
    asked_at: float = NEVER
    slow_at: float = NEVER
    last_ship: Ship | None = None

    # --- questions ----------------------------------------------------------------------------

    @property
    def in_sync_count(self) -> int:
        """How many copies the journal names, this one included."""
        return len(self.roster.members)

    def awaited(self) -> list[ReplicaId]:
        """All and only the passives that have to hold a write before it is answered."""
        named = [replica for replica in self.roster.members if replica != self.me]
        return [*named, *(r for r in sorted(self.joining) if r not in named)]

    def can_be_heard(self, now: float) -> bool:
        """Can whoever may inherit hear which call is entered? Who cannot is waited for, not for long."""
        deaf = [
            follower
            for replica in self.roster.members
            if replica != self.me and (follower := self.followers.get(replica)) and follower.is_deaf
        ]
        for follower in deaf:
            if follower.waits_since is None:
                follower.waits_since = now
        return not deaf

    # --- events -------------------------------------------------------------------------------

    def take_roster(self, roster: Roster, now: float) -> list[ReplicaAction]:
        """The hub tells what is recorded, and which copies there are."""
        if roster.epoch != self.epoch or roster.version < self.roster.version:
            return []
        if roster.version > self.roster.version:
            for replica in [r for r in self.joining if r not in roster.members]:
                self._put_off(replica, now)
            self.joining.clear()
            self.wanted = None
        self.roster = roster
        actions = self._meet(roster)
        return [*actions, *self._dial(now), *self._advance(), *self._ask(now), WakeCalls()]

    def began(self, client: str, number: int) -> list[ReplicaAction]:
        """Tell the others which call is being entered, in case that it kills this copy."""
        deaths = self.suspects.get((client, number), 0)
        self.entered_count += 1
        self.running = Began(self.epoch, client, number, deaths, self.entered_count)
        return [
            SendToPeer(follower.replica, self.running)
            for follower in self.followers.values()
            if not follower.is_deaf
        ]

    def ended(self, client: str, number: int) -> None:
        """The call has come to its end: it killed nobody this time."""
        if self.running and (self.running.client, self.running.number) == (client, number):
            self.running = None

    def append(self, entry: Write, now: float) -> list[ReplicaAction]:
        """Ship a write that this copy has executed."""
        self.holding.execute(entry)
        actions: list[ReplicaAction] = []
        for follower in self.followers.values():
            actions += self._feed(follower, now)
        return [*actions, *self._advance()]

    def receive(self, peer: ReplicaId, message: FromPassive, now: float) -> list[ReplicaAction]:
        """A passive answers in this epoch."""
        follower = self.followers.get(peer)
        if follower is None or message.epoch != self.epoch:
            return []
        match message:
            case Standing():
                return self._start_stream(follower, message, now)
            case Acked(_, tail):
                return self._take_ack(follower, tail, now)
            case Pulse(_, pulsed_at):
                holding = self.holding
                tail_seq, committed = holding.log.tail.seq, holding.committed
                return [SendToPeer(peer, Beat(self.epoch, tail_seq, committed, pulsed_at))]
            case _:
                raise AssertionError(f"{peer} sent {message!r} to its active")

    def connected(self, peer: ReplicaId) -> list[ReplicaAction]:
        """A connection to the passive stands: ask what it holds."""
        follower = self.followers.get(peer)
        if follower is None:
            return [HangUpPeer(peer)]
        follower.forget_stream()
        follower.link, follower.failures = Link.ASKED, 0
        if not self._is_behind(follower):
            follower.waits_since = None
        suspects = tuple((*call, deaths) for call, deaths in self.suspects.items())
        follow = SendToPeer(peer, Follow(self.epoch, self.base, suspects))
        return [follow, *([SendToPeer(peer, self.running)] if self.running else [])]

    def closed(self, peer: ReplicaId, now: float) -> list[ReplicaAction]:
        """The connection broke or could not be made: try again soon."""
        follower = self.followers.get(peer)
        if follower is None:
            return []
        follower.forget_stream()
        follower.link = Link.DOWN
        follower.failures += 1
        wait_s = DIAL_AGAIN_MIN_S * 2.0 ** min(follower.failures, 10)
        follower.dial_at = now + min(DIAL_AGAIN_S, wait_s)
        return self._dial(now)

    def snapshot_taken(
        self, peer: ReplicaId, image: object, size: int, now: float
    ) -> list[ReplicaAction]:
        """The state as of the last write was taken for a passive."""
        follower = self.followers.get(peer)
        if follower is None or follower.link is not Link.COPYING:
            return []
        position = self.holding.log.tail
        follower.link, follower.is_installing = Link.FED, True
        self._send_off(follower, position, size, now)
        answers, committed = self.holding.answers.kept(), self.holding.committed
        return [SendToPeer(peer, Snapshot(self.epoch, position, image, answers, committed))]

    def tick(self, now: float) -> list[ReplicaAction]:
        """Dial again, and ask out of the set who keeps writes waiting."""
        for replica in self.awaited():
            follower = self.followers.get(replica)
            if follower is not None and follower.waits_since is None and self._is_behind(follower):
                follower.waits_since = now
        actions = [*self._dial(now), *self._ask(now)]
        for follower in self.followers.values():
            actions += self._consider_joining(follower, now)
        return actions

    def hang_up(self) -> list[ReplicaAction]:
        """End all conversations."""
        return [HangUpPeer(replica) for replica in self.followers]

    # --- the set ------------------------------------------------------------------------------

    def _ask(self, now: float) -> list[ReplicaAction]:
        """Have the hub record who belongs to the set now; at most one wish is open at a time."""
        if self.wanted is None:
            out = {r for r in self.awaited() if self._is_overdue(r, now)}
            members = (*self.roster.members, *sorted(self.joining))
            wanted = tuple(dict.fromkeys(r for r in members if r not in out))
            if set(wanted) == set(self.roster.members) and not (out & self.joining):
                return []
            self.wanted = wanted
            self.asked_at = NEVER
        if now - self.asked_at < ASK_AGAIN_S:
            return []
        self.asked_at = now
        return [SendToHub(SetWanted(self.epoch, self.roster.version, self.wanted))]

    def _is_overdue(self, replica: ReplicaId, now: float) -> bool:
        """Has the passive kept a write, or a call, waiting for too long?"""
        follower = self.followers.get(replica)
        if follower is None or follower.waits_since is None:
            return False
        if not (follower.is_deaf or self._is_behind(follower)):
            return False
        bounds = self.holding.bounds
        patience_s = follower.under_way_bytes / bounds.ship_bytes_per_s_min + bounds.ack_timeout_s
        return now - follower.waits_since > patience_s

    def _is_behind(self, follower: Follower) -> bool:
        return follower.acked < self.holding.log.tail.seq

    def _consider_joining(self, follower: Follower, now: float) -> list[ReplicaAction]:
        """A passive that holds everything is waited for from now on, and then asked in."""
        replica = follower.replica
        is_in = replica in self.roster.members or replica in self.joining
        is_fed = follower.link is Link.FED and not follower.is_installing
        if is_in or not is_fed or self._is_behind(follower) or now < follower.rejoin_at:
            return []
        self.joining.add(replica)
        return self._ask(now)

    def _put_off(self, replica: ReplicaId, now: float) -> None:
        follower = self.followers.get(replica)
        if follower is not None:
            follower.rejoin_at = now + self.holding.bounds.rejoin_s

    def _meet(self, roster: Roster) -> list[ReplicaAction]:
        """Know all and only the copies that there are.

        One that is joining stays awaited, whatever becomes of it: the hub may have been asked for
        it, and may have granted that. Only a set of a later version ends the wait.
        """
        actions: list[ReplicaAction] = []
        there = {replica: address for replica, address in roster.copies if replica != self.me}
        for replica in [r for r in self.followers if r not in there]:
            del self.followers[replica]
            actions.append(HangUpPeer(replica))
        for replica, address in there.items():
            if replica not in self.followers:
                self.followers[replica] = Follower(replica, address)
        return actions

    def _advance(self) -> list[ReplicaAction]:
        """A write is committed once everybody awaited holds it."""
        committed = self.holding.log.tail.seq
        for replica in self.awaited():
            follower = self.followers.get(replica)
            committed = min(committed, -1 if follower is None else follower.acked)
        self.holding.trim(committed)
        if committed <= self.holding.committed:
            return []
        self.holding.committed = committed
        self._clear(committed)
        return [WakeCalls()]

    def _clear(self, committed: int) -> None:
        """Calls whose effect is held by all never run again; until then, one might."""
        for client, number in list(self.suspects):
            _, kept = self.holding.answers.look_up(client, number, is_retry=False)
            if kept is not None and kept.seq <= committed:
                del self.suspects[client, number]

    # --- the streams --------------------------------------------------------------------------

    def _dial(self, now: float) -> list[ReplicaAction]:
        actions: list[ReplicaAction] = []
        for follower in self.followers.values():
            if follower.link is Link.DOWN and now >= follower.dial_at:
                follower.link = Link.DIALING
                actions.append(DialPeer(follower.replica, follower.address))
        return actions

    def _start_stream(
        self, follower: Follower, standing: Standing, now: float
    ) -> list[ReplicaAction]:
        """Go on where the passive stands, or give it the whole state."""
        if follower.is_deaf or follower.link is Link.COPYING:
            return []
        follower.forget_stream()
        log = self.holding.log
        for position in (standing.tail, standing.applied):
            if standing.has_state and log.holds(position):
                follower.link, follower.shipped = Link.FED, position
                actions = self._take_ack(follower, position, now)
                # An empty shipment tells what is committed, and that the stream has begun.
                if follower.shipped == position:
                    actions.append(SendToPeer(follower.replica, self._shipment(position, ())))
                return actions
        return self._copy(follower)

    def _copy(self, follower: Follower) -> list[ReplicaAction]:
        follower.link = Link.COPYING
        return [TakeSnapshot(follower.replica)]

    def _feed(self, follower: Follower, now: float) -> list[ReplicaAction]:
        """Ship what the passive has not been sent, as far as the window allows."""
        bounds, log = self.holding.bounds, self.holding.log
        if follower.link is not Link.FED or follower.is_installing:
            return []
        if not log.holds(follower.shipped):
            follower.forget_stream()
            return self._copy(follower)
        actions: list[ReplicaAction] = []
        while follower.shipped != log.tail and follower.under_way_bytes <= bounds.window_bytes_max:
            writes = log.after(follower.shipped.seq, bounds.batch_bytes_max)
            actions.append(SendToPeer(follower.replica, self._shipment(follower.shipped, writes)))
            for write in writes:
                self._send_off(follower, write.position, write.size, now)
        return actions

    def _send_off(self, follower: Follower, position: Position, size: int, now: float) -> None:
        follower.under_way.append((position, size, now))
        follower.under_way_bytes += size
        follower.shipped = position
        if follower.waits_since is None:
            follower.waits_since = now

    def _shipment(self, previous: Position, entries: tuple[Write, ...]) -> Ship:
        """The shipment; the last one again if it is the same for another passive."""
        last, committed = self.last_ship, self.holding.committed
        if (
            last is not None
            and (last.previous, last.committed) == (previous, committed)
            and last.entries == entries
        ):
            return last
        ship = Ship(self.epoch, previous, entries, committed)
        # A large one is not held on to: the log forgets its writes in time, and so must this.
        is_small = sum(entry.size for entry in entries) <= SAME_AGAIN_BYTES_MAX
        self.last_ship = ship if is_small else None
        return ship

    def _take_ack(self, follower: Follower, tail: Position, now: float) -> list[ReplicaAction]:
        """The passive holds everything up to `tail`, if that is in this history."""
        was_sent = any(position == tail for position, _, _ in follower.under_way)
        if not was_sent and not self.holding.log.holds(tail):
            return []
        if tail.seq > follower.acked:
            follower.acked = tail.seq
            follower.waits_since = now if self._is_behind(follower) else None
        slowest_s = largest = 0.0
        while follower.under_way and follower.under_way[0][0].seq <= tail.seq:
            _, size, sent_at = follower.under_way.popleft()
            follower.under_way_bytes -= size
            slowest_s, largest = max(slowest_s, now - sent_at), max(largest, size)
            follower.is_installing = False
        actions = self._feed(follower, now)
        actions += self._consider_joining(follower, now)
        actions += self._advance()
        if slowest_s > self.slow_after_s and now - self.slow_at > SLOW_AGAIN_S:
            self.slow_at = now
            actions.append(SendToHub(ShipmentSlow(slowest_s, int(largest))))
        return actions
