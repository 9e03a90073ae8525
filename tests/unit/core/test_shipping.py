"""Who has to hold a write before it is answered, and how does it get there?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from raphub.core.holding import Holding, StateBounds
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
from raphub.core.model import ReplicaId
from raphub.core.shipments import (
    Acked,
    Beat,
    Began,
    EpochOver,
    Follow,
    Pulse,
    Ship,
    Snapshot,
    Standing,
)
from raphub.core.shipping import Link, Shipping

ME, TWO, THREE = ReplicaId("c#1"), ReplicaId("c#2"), ReplicaId("c#3")
BASE = Position(2, 0)


def write(seq: int, size: int = 10, client: str = "w") -> Write:
    return Write(Position(2, seq), client, seq, 1, None, None, 1, size)


def roster(version: int, *members: ReplicaId, copies: tuple[ReplicaId, ...] = (ME, TWO)) -> Roster:
    return Roster(2, version, members, tuple((copy, ("host", 1)) for copy in copies), is_open=True)


def active(
    *members: ReplicaId, copies: tuple[ReplicaId, ...] = (ME, TWO), **bounds: float
) -> Shipping:
    """The active c#1 of epoch 2; the set of version 1 is as given."""
    holding = Holding(StateBounds(**bounds))  # type: ignore[arg-type]
    holding.begin(BASE)
    nobody = Roster(2, -1, (ME,), (), is_open=False)
    shipping = Shipping(ME, holding, 2, BASE, nobody, slow_after_s=1.0)
    shipping.take_roster(roster(1, *(members or (ME,)), copies=copies), 0.0)
    return shipping


def fed(*members: ReplicaId, **bounds: float) -> Shipping:
    """The same, and c#2 holds all that there is."""
    shipping = active(*members, **bounds)
    shipping.connected(TWO)
    shipping.receive(TWO, Standing(2, BASE, BASE, has_state=True), 0.0)
    return shipping


def to_peer(actions: list[ReplicaAction]) -> list[object]:
    return [action.message for action in actions if isinstance(action, SendToPeer)]


def to_hub(actions: list[ReplicaAction]) -> list[object]:
    return [action.message for action in actions if isinstance(action, SendToHub)]


# --- the set --------------------------------------------------------------------------------------


def test_a_write_is_committed_when_all_in_the_set_hold_it() -> None:
    shipping = fed(ME, TWO)
    [shipment] = to_peer(shipping.append(write(1), 1.0))
    assert shipment == Ship(2, BASE, (write(1),), 0)
    assert shipping.holding.committed == 0
    assert WakeCalls() in shipping.receive(TWO, Acked(2, Position(2, 1)), 1.1)
    assert shipping.holding.committed == 1


def test_a_member_that_was_never_heard_of_holds_nothing() -> None:
    shipping = active(ME, THREE)
    shipping.append(write(1), 1.0)
    assert shipping.awaited() == [THREE]
    assert shipping.holding.committed == 0


def test_whoever_holds_everything_is_awaited_first_and_then_asked_in() -> None:
    shipping = fed(ME)
    assert shipping.awaited() == [TWO]
    shipping.append(write(1), 1.0)
    assert shipping.holding.committed == 0
    shipping.receive(TWO, Acked(2, Position(2, 1)), 1.1)
    assert shipping.holding.committed == 1


def test_a_wish_is_said_again_until_the_set_has_another_version() -> None:
    shipping = fed(ME)
    wish = SetWanted(2, 1, (ME, TWO))
    assert shipping.wanted == (ME, TWO)
    assert to_hub(shipping.tick(0.4)) == []
    assert to_hub(shipping.tick(0.6)) == [wish]
    shipping.take_roster(roster(1, ME), 0.7)
    assert shipping.awaited() == [TWO]
    shipping.take_roster(roster(2, ME, TWO), 0.8)
    assert (shipping.wanted, shipping.joining, shipping.awaited()) == (None, set(), [TWO])


def test_a_copy_that_was_refused_waits_before_it_asks_again() -> None:
    shipping = fed(ME, rejoin_s=1.0)
    shipping.take_roster(roster(2, ME), 5.0)
    assert shipping.awaited() == []
    assert to_hub(shipping.tick(5.9)) == []
    assert to_hub(shipping.tick(6.1)) == [SetWanted(2, 2, (ME, TWO))]


def test_a_copy_that_is_joining_stays_awaited_though_an_old_roster_lacks_it() -> None:
    shipping = fed(ME)
    assert HangUpPeer(TWO) in shipping.take_roster(roster(1, ME, copies=(ME,)), 0.1)
    assert shipping.awaited() == [TWO]
    shipping.append(write(1), 1.0)
    assert shipping.holding.committed == 0
    shipping.take_roster(roster(2, ME, copies=(ME,)), 1.1)
    assert shipping.holding.committed == 1


@pytest.mark.parametrize("old", [roster(0, ME), Roster(1, 9, (ME,), (), is_open=True)])
def test_an_older_roster_and_one_of_another_epoch_say_nothing(old: Roster) -> None:
    shipping = fed(ME, TWO)
    assert shipping.take_roster(old, 1.0) == []
    assert shipping.awaited() == [TWO]


def test_a_silent_passive_is_asked_out_and_awaited_until_that_is_recorded() -> None:
    shipping = fed(ME, TWO, ack_timeout_s=0.5)
    shipping.append(write(1), 1.0)
    assert to_hub(shipping.tick(1.4)) == []
    assert to_hub(shipping.tick(1.6)) == [SetWanted(2, 1, (ME,))]
    assert shipping.awaited() == [TWO]
    assert shipping.holding.committed == 0
    shipping.take_roster(roster(2, ME), 1.7)
    assert shipping.holding.committed == 1


def test_much_that_is_under_way_is_given_its_time() -> None:
    shipping = fed(ME, TWO, ack_timeout_s=0.5, ship_bytes_per_s_min=1000.0)
    shipping.append(write(1, size=2000), 1.0)
    assert to_hub(shipping.tick(3.4)) == []
    assert to_hub(shipping.tick(3.6)) == [SetWanted(2, 1, (ME,))]


def test_a_joining_copy_that_falls_silent_is_not_waited_for_for_ever() -> None:
    shipping = fed(ME, ack_timeout_s=0.5)
    shipping.wanted = None
    shipping.append(write(1), 1.0)
    assert to_hub(shipping.tick(1.6)) == [SetWanted(2, 1, (ME,))]


def test_a_member_that_lags_without_anything_under_way_is_noticed_by_the_clock() -> None:
    shipping = active(ME, TWO, ack_timeout_s=0.5)
    shipping.append(write(1), 1.0)
    assert to_hub(shipping.tick(1.1)) == []
    assert to_hub(shipping.tick(1.7)) == [SetWanted(2, 1, (ME,))]


# --- the streams ----------------------------------------------------------------------------------


def test_it_dials_who_is_there_and_again_more_slowly() -> None:
    shipping = active()
    assert shipping.followers[TWO].link is Link.DIALING
    assert shipping.closed(TWO, 1.0) == []
    assert shipping.tick(1.01) == []
    assert shipping.tick(1.03) == [DialPeer(TWO, ("host", 1))]
    for _ in range(9):
        shipping.closed(TWO, 2.0)
    assert shipping.tick(2.19) == []
    assert shipping.tick(2.21) == [DialPeer(TWO, ("host", 1))]


def test_strangers_are_not_talked_to() -> None:
    shipping = active()
    assert shipping.connected(THREE) == [HangUpPeer(THREE)]
    assert shipping.closed(THREE, 1.0) == []
    assert shipping.receive(THREE, Acked(2, START), 1.0) == []
    assert shipping.receive(TWO, Acked(1, START), 1.0) == []
    assert shipping.snapshot_taken(THREE, "image", 1, 1.0) == []
    with pytest.raises(AssertionError, match="to its active"):
        shipping.receive(TWO, EpochOver(2), 1.0)


def test_whoever_holds_nothing_gets_the_whole_state_and_then_the_rest() -> None:
    shipping = active()
    assert to_peer(shipping.connected(TWO)) == [Follow(2, BASE)]
    standing = Standing(2, START, START, has_state=False)
    assert shipping.receive(TWO, standing, 1.0) == [TakeSnapshot(TWO)]
    assert shipping.receive(TWO, standing, 1.0) == []
    shipping.append(write(1), 1.1)
    [snapshot] = to_peer(shipping.snapshot_taken(TWO, "image", 100, 1.2))
    assert isinstance(snapshot, Snapshot)
    assert (snapshot.position, snapshot.image, snapshot.committed) == (Position(2, 1), "image", 1)
    assert to_peer(shipping.append(write(2), 1.3)) == []
    shipped = to_peer(shipping.receive(TWO, Acked(2, Position(2, 1)), 1.4))
    assert shipped == [Ship(2, Position(2, 1), (write(2),), 2)]


def test_a_standing_of_a_broken_connection_means_nothing() -> None:
    shipping = fed(ME, TWO)
    shipping.closed(TWO, 1.0)
    assert shipping.receive(TWO, Standing(2, BASE, BASE, has_state=True), 1.1) == []


def test_a_tail_that_is_not_in_the_history_gives_way_to_what_was_applied() -> None:
    shipping = active(ME, TWO)
    shipping.append(write(1), 1.0)
    shipping.connected(TWO)
    standing = Standing(2, Position(1, 5), BASE, has_state=True)
    assert to_peer(shipping.receive(TWO, standing, 1.1)) == [Ship(2, BASE, (write(1),), 0)]


def test_an_object_that_has_something_else_gets_a_snapshot() -> None:
    shipping = active(ME, TWO)
    shipping.connected(TWO)
    foreign = Standing(2, Position(1, 5), Position(1, 5), has_state=True)
    assert shipping.receive(TWO, foreign, 1.1) == [TakeSnapshot(TWO)]


def test_a_number_of_another_epoch_acknowledges_nothing() -> None:
    shipping = fed(ME, TWO)
    shipping.append(write(1), 1.0)
    assert shipping.receive(TWO, Acked(2, Position(1, 1)), 1.1) == []
    assert shipping.holding.committed == 0


def test_no_more_than_the_window_is_under_way() -> None:
    shipping = fed(ME, TWO, window_bytes_max=15)
    shipping.append(write(1), 1.0)
    shipping.append(write(2), 1.0)
    assert to_peer(shipping.append(write(3), 1.0)) == []
    shipped = to_peer(shipping.receive(TWO, Acked(2, Position(2, 1)), 1.1))
    assert shipped == [Ship(2, Position(2, 2), (write(3),), 0)]


def test_whoever_needs_what_the_log_has_forgotten_gets_a_snapshot() -> None:
    shipping = fed(ME, log_entries_max=2, window_bytes_max=5)
    shipping.take_roster(roster(2, ME), 0.1)
    shipping.append(write(1), 1.0)
    taken = [action for seq in range(2, 9) for action in shipping.append(write(seq), 1.0)]
    assert taken.count(TakeSnapshot(TWO)) == 1
    assert shipping.holding.log.floor.seq > 1
    assert shipping.followers[TWO].link is Link.COPYING


def test_a_broken_connection_begins_anew_and_what_was_acknowledged_stays_so() -> None:
    shipping = fed(ME, TWO)
    shipping.append(write(1), 1.0)
    shipping.receive(TWO, Acked(2, Position(2, 1)), 1.1)
    shipping.append(write(2), 1.2)
    shipping.closed(TWO, 1.3)
    assert shipping.followers[TWO].acked == 1
    assert shipping.followers[TWO].under_way_bytes == 0
    shipping.connected(TWO)
    standing = Standing(2, Position(2, 2), Position(2, 0), has_state=True)
    assert to_peer(shipping.receive(TWO, standing, 1.4)) == [Ship(2, Position(2, 2), (), 2)]
    assert shipping.holding.committed == 2


def test_a_slow_shipment_is_told_now_and_then() -> None:
    shipping = fed(ME, TWO, ack_timeout_s=99.0)
    for seq, now in ((1, 1.0), (2, 4.0), (3, 20.0)):
        shipping.append(write(seq), now)
        told = to_hub(shipping.receive(TWO, Acked(2, Position(2, seq)), now + 1.5))
        assert told == ([] if seq == 2 else [ShipmentSlow(1.5, 10)])


def test_a_pulse_is_answered_with_how_far_everything_is() -> None:
    shipping = fed(ME, TWO)
    shipping.append(write(1), 1.0)
    assert to_peer(shipping.receive(TWO, Pulse(2, 77.0), 1.1)) == [Beat(2, 1, 0, 77.0)]


# --- poison calls ---------------------------------------------------------------------------------


def test_every_passive_is_told_of_the_call_that_runs_also_one_that_connects_later() -> None:
    shipping = fed(ME, TWO)
    shipping.suspects["w", 7] = 1
    began = Began(2, "w", 7, 1, 2)
    assert to_peer(shipping.began("w", 7)) == [replace(began, order=1)]
    shipping.closed(TWO, 1.0)
    assert to_peer(shipping.began("w", 7)) == []
    assert to_peer(shipping.connected(TWO)) == [Follow(2, BASE, (("w", 7, 1),)), began]
    shipping.ended("w", 6)
    assert shipping.running == began
    shipping.ended("w", 7)
    assert to_peer(shipping.connected(TWO)) == [Follow(2, BASE, (("w", 7, 1),))]


def test_a_suspicion_ends_when_the_effect_can_no_longer_be_lost() -> None:
    shipping = fed(ME, TWO)
    shipping.suspects = {("w", 1): 1, ("w", 2): 1}
    shipping.append(write(1), 1.0)
    shipping.ended("w", 1)
    assert ("w", 1) in shipping.suspects
    shipping.receive(TWO, Acked(2, Position(2, 1)), 1.1)
    assert shipping.suspects == {("w", 2): 1}


def test_it_hangs_up_on_everybody() -> None:
    assert fed(ME, TWO).hang_up() == [HangUpPeer(TWO)]
