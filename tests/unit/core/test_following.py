"""What does a passive do with what its active ships?"""

from __future__ import annotations

import pytest

from raphub.core.dedup import TableKept
from raphub.core.following import Following
from raphub.core.holding import Holding, StateBounds
from raphub.core.log import START, Position, Write
from raphub.core.messages import Apply, ApplySoon, Install, ReplicaAction, SendToPeer
from raphub.core.model import ReplicaId
from raphub.core.shipments import (
    Acked,
    Beat,
    Began,
    Follow,
    FromActive,
    Pulse,
    Ship,
    Snapshot,
    Standing,
)

ACTIVE, HEIR = ReplicaId("c#1"), ReplicaId("c#2")
NOTHING = TableKept((), has_evicted=False)


def write(epoch: int, seq: int) -> Write:
    return Write(Position(epoch, seq), "w", seq, 1, f"answer {seq}", f"change {seq}", 1, 10)


def ship(epoch: int, previous: Position, *positions: tuple[int, int], committed: int = 0) -> Ship:
    return Ship(epoch, previous, tuple(write(*position) for position in positions), committed)


def follower(**bounds: float) -> Following:
    """A copy whose object is built, and holds nothing."""
    following = Following(Holding(StateBounds(**bounds)))  # type: ignore[arg-type]
    following.built()
    return following


def in_step(**bounds: float) -> Following:
    """A copy with the state at 1:0."""
    following = follower(**bounds)
    hear(following, Follow(1, Position(1, 0)))
    hear(following, Snapshot(1, Position(1, 0), "image", NOTHING, 0))
    following.installed(Position(1, 0))
    return following


def hear(following: Following, message: FromActive, peer: ReplicaId = ACTIVE) -> list[object]:
    return told(following.receive(peer, message), following)


def told(actions: list[ReplicaAction], following: Following | None = None) -> list[object]:
    """What goes to the active, and what the object is to do, with nobody who waits between."""
    if following is not None and ApplySoon() in actions:
        at = actions.index(ApplySoon())
        actions[at : at + 1] = following.due()
    return [action.message if isinstance(action, SendToPeer) else action for action in actions]


def test_it_answers_whoever_asked_once_its_object_is_built() -> None:
    following = Following(Holding(StateBounds()))
    assert hear(following, Follow(1, START)) == []
    assert told(following.built()) == [Standing(1, START, START, has_state=False)]


def test_a_snapshot_is_acknowledged_when_the_object_has_it_and_not_before() -> None:
    following = follower()
    hear(following, Follow(1, START))
    snapshot = Snapshot(1, Position(1, 7), "image", NOTHING, 5)
    assert hear(following, snapshot) == [Install(Position(1, 7), "image")]
    assert hear(following, ship(1, Position(1, 7), (1, 8), committed=8)) == []
    assert following.applied(Position(1, 8)) == []
    assert following.installed(Position(1, 6)) == []
    assert told(following.installed(Position(1, 7)), following) == [
        Apply((write(1, 8),)),
        Acked(1, Position(1, 8)),
    ]


def test_a_snapshot_that_comes_late_replaces_nothing() -> None:
    following = in_step()
    hear(following, ship(1, Position(1, 0), (1, 1), (1, 2), committed=2))
    late = Snapshot(1, Position(1, 1), "old", NOTHING, 0)
    assert hear(following, late) == [Acked(1, Position(1, 2))]
    assert following.holding.log.tail == Position(1, 2)


def test_a_snapshot_of_a_new_epoch_replaces_whatever_is_there() -> None:
    following = in_step()
    hear(following, ship(1, Position(1, 0), (1, 1), (1, 2), committed=2))
    snapshot = Snapshot(2, Position(1, 1), "new", NOTHING, 1)
    assert hear(following, snapshot, HEIR) == [Install(Position(1, 1), "new")]
    assert following.holding.committed == 1


def test_it_acknowledges_what_it_holds_and_applies_what_is_committed() -> None:
    following = in_step()
    assert hear(following, ship(1, Position(1, 0), (1, 1), (1, 2), committed=0)) == [
        Acked(1, Position(1, 2))
    ]
    assert hear(following, ship(1, Position(1, 2), (1, 3), committed=2)) == [
        Acked(1, Position(1, 3)),
        Apply((write(1, 1), write(1, 2))),
    ]
    assert hear(following, Beat(1, 3, 3, 0.0)) == [Apply((write(1, 3),))]


def test_a_shipment_that_comes_twice_is_taken_in_once() -> None:
    following = in_step()
    shipment = ship(1, Position(1, 0), (1, 1), committed=1)
    assert hear(following, shipment) == [Acked(1, Position(1, 1)), Apply((write(1, 1),))]
    assert hear(following, shipment) == [Acked(1, Position(1, 1))]


def test_after_a_gap_it_says_what_it_holds() -> None:
    following = in_step()
    assert hear(following, ship(1, Position(1, 4), (1, 5))) == [
        Standing(1, Position(1, 0), Position(1, 0), has_state=True)
    ]


def test_it_acknowledges_no_more_while_its_object_is_far_behind() -> None:
    following = in_step(unapplied_max=1)
    hear(following, ship(1, Position(1, 0), (1, 1), (1, 2), committed=2))
    assert hear(following, ship(1, Position(1, 2), (1, 3), committed=2)) == []
    assert told(following.applied(Position(1, 1))) == [Acked(1, Position(1, 3))]


def test_a_new_active_whose_history_ended_earlier_has_the_rest_dropped() -> None:
    following = in_step()
    hear(following, ship(1, Position(1, 0), (1, 1), (1, 2), committed=1))
    assert hear(following, Follow(2, Position(1, 1)), HEIR) == [
        Standing(2, Position(1, 1), Position(1, 1), has_state=True)
    ]


def test_what_the_active_itself_wrote_since_its_epoch_began_is_never_dropped() -> None:
    following = in_step()
    hear(following, ship(1, Position(1, 0), (1, 1), (1, 2), committed=0))
    assert hear(following, Follow(1, Position(1, 0))) == [
        Standing(1, Position(1, 2), Position(1, 0), has_state=True)
    ]


def test_a_tail_that_was_overtaken_gives_way_to_what_is_shipped() -> None:
    """It missed an epoch: 1:1 and 1:2 are not in the history 2:1, 2:2, 2:3 of epoch 3."""
    following = in_step()
    hear(following, ship(1, Position(1, 0), (1, 1), (1, 2), committed=0))
    stood = hear(following, Follow(3, Position(2, 3)), HEIR)
    assert stood == [Standing(3, Position(1, 2), Position(1, 0), has_state=True)]
    assert hear(following, Beat(3, 3, 3, 1.0), HEIR) == []
    shipped = hear(following, ship(3, Position(1, 0), (2, 1), (2, 2), (2, 3), committed=3), HEIR)
    assert shipped == [
        Acked(3, Position(2, 3)),
        Apply((write(2, 1), write(2, 2), write(2, 3))),
    ]


def test_a_shipment_that_contradicts_the_object_tells_the_story() -> None:
    following = in_step()
    hear(following, ship(1, Position(1, 0), (1, 1), committed=1))
    with pytest.raises(AssertionError, match="contradicts what was applied"):
        hear(following, ship(2, Position(1, 0), (2, 1)), HEIR)


def test_it_asks_how_far_the_active_is_and_sooner_while_something_is_open() -> None:
    following = in_step(read_staleness_s=2.0)
    assert told(following.tick(10.0)) == [Pulse(1, 10.0)]
    assert following.tick(10.4) == []
    assert told(following.tick(10.5)) == [Pulse(1, 10.5)]
    hear(following, ship(1, Position(1, 0), (1, 1), committed=0))
    assert told(following.tick(10.6)) == [Pulse(1, 10.6)]
    assert Following(Holding(StateBounds())).tick(0.0) == []


def test_reads_are_answered_within_their_bound_and_only_from_fresh_news() -> None:
    following = in_step(read_staleness_s=2.0, max_lag_writes=2)
    assert not following.may_read(10.0, 0)
    hear(following, Beat(1, 2, 0, 10.0))
    assert not following.may_read(10.5, 0)
    assert not following.may_read(10.5, 1)
    assert following.may_read(10.5, 2)
    assert following.may_read(10.5, None)
    assert not following.may_read(12.1, 2)
    hear(following, Beat(1, 1, 0, 9.0))
    assert following.heard_at == 10.0


def test_nothing_is_read_before_it_has_compared_with_a_new_active() -> None:
    following = in_step()
    hear(following, Beat(1, 0, 0, 10.0))
    assert following.may_read(10.1, 0)
    hear(following, Follow(2, Position(1, 0)), HEIR)
    assert hear(following, Beat(2, 0, 0, 10.2), HEIR) == []
    assert not following.may_read(10.3, 0)
    hear(following, ship(2, Position(1, 0)), HEIR)
    hear(following, Beat(2, 0, 0, 10.4), HEIR)
    assert following.may_read(10.5, 0)


def test_what_its_own_object_has_beyond_the_committed_is_not_read() -> None:
    following = in_step()
    following.holding.execute(write(1, 1))
    hear(following, ship(1, Position(1, 1), committed=0))
    hear(following, Beat(1, 1, 0, 10.0))
    assert not following.may_read(10.1, 0)
    hear(following, Beat(1, 1, 1, 10.2))
    assert following.may_read(10.3, 0)


def test_nothing_is_read_while_a_snapshot_is_taken_in() -> None:
    following = in_step()
    hear(following, Snapshot(2, Position(1, 5), "image", NOTHING, 5), HEIR)
    hear(following, Beat(2, 5, 5, 10.0), HEIR)
    assert not following.may_read(10.1, 0)


def test_while_its_object_runs_a_call_it_promises_nothing() -> None:
    following = in_step()
    following.entered.add(("w", 9))
    assert hear(following, Follow(2, Position(1, 0)), HEIR) == []
    assert hear(following, ship(2, Position(1, 0), (2, 1), committed=0), HEIR) == []
    assert following.told_epoch == 1
    following.entered.clear()
    [paid, _] = told(following.tick(0.0))
    assert paid == Standing(2, Position(2, 1), Position(1, 0), has_state=True)
    assert following.told_epoch == 2


def test_a_spoiled_object_holds_nothing_that_counts() -> None:
    following = in_step()
    assert told(following.spoil()) == [Standing(1, Position(1, 0), Position(1, 0), has_state=False)]
    assert hear(following, ship(1, Position(1, 0), (1, 1), committed=1)) == []
    assert Following(Holding(StateBounds())).spoil() == []


def test_a_call_that_has_come_to_its_end_is_not_suspected() -> None:
    following = in_step()
    hear(following, Follow(1, Position(1, 0), (("w", 1, 1), ("w", 2, 1))))
    hear(following, Began(1, "w", 1, 1))
    hear(following, ship(1, Position(1, 0), (1, 1)))
    assert following.running is None
    assert following.suspects == {("w", 2): 1}
    hear(following, Began(1, "w", 3, 0))
    hear(following, ship(1, Position(1, 1), (1, 2)))
    assert following.running == Began(1, "w", 3, 0)


def test_a_late_word_of_which_call_began_is_known_to_be_late() -> None:
    following = in_step()
    hear(following, Began(1, "w", 2, 0, order=2))
    hear(following, Began(1, "w", 1, 0, order=1))
    assert following.running == Began(1, "w", 2, 0, order=2)
    hear(following, Began(2, "w", 1, 0, order=1), HEIR)
    assert following.running == Began(2, "w", 1, 0, order=1)


def test_its_object_takes_in_several_writes_at_a_time() -> None:
    following = in_step()
    ships = [ship(1, Position(1, seq - 1), (1, seq), committed=seq - 1) for seq in range(1, 6)]
    actions = [action for one in ships for action in following.receive(ACTIVE, one)]
    assert [action for action in actions if not isinstance(action, SendToPeer)] == [ApplySoon()]
    assert following.due() == [Apply(tuple(write(1, seq) for seq in range(1, 5)))]
    assert following.due() == []
    assert following.receive(ACTIVE, Beat(1, 5, 5, 0.0)) == [ApplySoon()]
