"""May this call run, may this answer go? The data plane of one copy, and how it obeys the machine."""

from __future__ import annotations

import pytest

from raphub.core.dedup import AnswerBounds, TableKept
from raphub.core.holding import StateBounds, state_bounds
from raphub.core.log import Position, Write
from raphub.core.messages import (
    Applied,
    Apply,
    ApplyFailed,
    BuildBegan,
    Built,
    CallBegan,
    CallRead,
    CallWrote,
    Diverged,
    FromHub,
    FromPeer,
    HangUpPeer,
    Installed,
    LeaseGranted,
    PeerClosed,
    PeerConnected,
    ReplicaAction,
    ReplicaEvent,
    Report,
    Roster,
    SendToHub,
    SendToPeer,
    SetWanted,
    SnapshotTaken,
    StateBroken,
    StepDown,
    SteppedDown,
    TakeRole,
    TakeSnapshot,
    TellPosition,
    Ticked,
    WritesLost,
)
from raphub.core.model import Acks, ChildId, ChildPlan, HubSettings, Phase, ReplicaId, Role, Signal
from raphub.core.replica_machine import ReplicaMachine
from raphub.core.replication import Admission, Call, Replication
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

ME, TWO = ReplicaId("c#1"), ReplicaId("c#2")


def roster(epoch: int = 1, version: int = 1, *members: ReplicaId, is_open: bool = True) -> Roster:
    copies = ((ME, ("host", 1)), (TWO, ("host", 2)))
    return Roster(epoch, version, members or (ME,), copies, is_open=is_open)


def copy(*, acks: Acks = Acks.IN_SYNC, min_in_sync: int = 1, **bounds: object) -> ReplicaMachine:
    """A copy whose object is built."""
    replication = Replication(ME, StateBounds(**bounds), acks, min_in_sync)  # type: ignore[arg-type]
    machine = ReplicaMachine(ME, signal=Signal.NONE, replication=replication)
    machine.handle(BuildBegan(), 0.0)
    machine.handle(Built(), 0.0)
    return machine


def promote(machine: ReplicaMachine, known: Roster, now: float = 0.0) -> list[ReplicaAction]:
    actions = machine.handle(FromHub(1, TakeRole(Role.ACTIVE, known.epoch, known)), now)
    return [*actions, *machine.handle(FromHub(1, LeaseGranted(known.epoch, now)), now)]


def active(known: Roster | None = None, **settings: object) -> ReplicaMachine:
    """The first active of its child, which serves until 3.0. It begins before the child is open."""
    machine = copy(**settings)  # type: ignore[arg-type]
    promote(machine, roster(version=0, is_open=False))
    machine.handle(FromHub(1, known or roster()), 0.0)
    return machine


def with_state(**settings: object) -> ReplicaMachine:
    """A passive that follows c#2 in epoch 1, and holds the state at 1:0."""
    machine = copy(**settings)  # type: ignore[arg-type]
    hear(machine, Follow(1, Position(1, 0)))
    hear(machine, Snapshot(1, Position(1, 0), "image", TableKept((), has_evicted=False), 0))
    machine.handle(Installed(Position(1, 0)), 0.0)
    return machine


def hear(machine: ReplicaMachine, message: object, now: float = 0.0) -> list[object]:
    return to_peer(machine.handle(FromPeer(TWO, message), now))  # type: ignore[arg-type]


def to_peer(actions: list[ReplicaAction]) -> list[object]:
    return [action.message for action in actions if isinstance(action, SendToPeer)]


def to_hub(actions: list[ReplicaAction]) -> list[object]:
    return [
        action.message
        for action in actions
        if isinstance(action, SendToHub) and not isinstance(action.message, Report)
    ]


def write(machine: ReplicaMachine, number: int, *, epoch: int = 1) -> list[ReplicaAction]:
    machine.handle(CallBegan("w", number), 0.0)
    return end_write(machine, number, epoch=epoch)


def end_write(machine: ReplicaMachine, number: int, *, epoch: int = 1) -> list[ReplicaAction]:
    return machine.handle(CallWrote(epoch, "w", number, 1, f"answer {number}", None, 8, 8), 0.0)


def shipped(seq: int, epoch: int = 1) -> Write:
    return Write(Position(epoch, seq), "w", seq, 1, f"answer {seq}", None, 8, 8)


def verdict(machine: ReplicaMachine, call: Call, now: float = 0.1) -> Admission:
    return machine.admit_call(call, now)[0]


def data(machine: ReplicaMachine) -> Replication:
    assert machine.replication is not None
    return machine.replication


# --- admission ------------------------------------------------------------------------------------


def test_a_call_that_has_its_answer_gets_it_again() -> None:
    machine = active()
    write(machine, 1)
    verdict_, kept = machine.admit_call(Call("w", 1, 1, is_retry=True), 0.1)
    assert verdict_ is Admission.ANSWERED
    assert kept is not None
    assert (kept.answer, kept.seq) == ("answer 1", 1)


def test_what_may_have_run_and_is_forgotten_does_not_run_again() -> None:
    machine = active(answers=AnswerBounds(per_client_max=1))
    write(machine, 1)
    write(machine, 2)
    assert verdict(machine, Call("w", 1, 1, is_retry=True)) is Admission.FORGOTTEN


def test_a_write_waits_for_the_one_before_it() -> None:
    machine = active()
    assert verdict(machine, Call("w", 2, 1, after=1)) is Admission.OUT_OF_ORDER
    write(machine, 1)
    assert verdict(machine, Call("w", 2, 1, after=1)) is Admission.SERVE


def test_nothing_is_written_before_the_child_is_open() -> None:
    machine = active(roster(is_open=False))
    assert verdict(machine, Call("w", 1, 1)) is Admission.NOT_OPEN
    assert verdict(machine, Call("w", 1, 1, is_read=True)) is Admission.SERVE


def test_too_few_in_sync_refuse_writes_and_hold_back_answers_but_not_reads() -> None:
    machine = active(min_in_sync=2)
    assert verdict(machine, Call("w", 1, 1)) is Admission.TOO_FEW_IN_SYNC
    assert verdict(machine, Call("w", 1, 1, is_read=True)) is Admission.SERVE
    write(machine, 1)
    assert not machine.may_release(1, 1, 0.1)
    assert machine.may_release(1, 1, 0.1, is_read=True)
    machine.handle(FromHub(1, roster(1, 2, ME, TWO)), 0.2)
    machine.handle(PeerConnected(TWO), 0.2)
    assert verdict(machine, Call("w", 2, 1)) is Admission.SERVE
    assert machine.may_release(1, 1, 0.3)


def test_with_acks_active_it_answers_at_once_and_waits_at_its_bound() -> None:
    machine = active(roster(1, 1, ME, TWO), acks=Acks.ACTIVE, max_lag_writes=2)
    machine.handle(PeerConnected(TWO), 0.0)
    assert verdict(machine, Call("w", 1, 1)) is Admission.SERVE
    write(machine, 1)
    assert machine.may_release(1, 1, 0.1)
    write(machine, 2)
    assert verdict(machine, Call("w", 3, 1)) is Admission.WAIT


def test_a_passive_releases_nothing() -> None:
    assert not data(with_state()).may_release(0, is_read=True)


def test_the_bounds_of_a_child_come_from_its_hub_and_its_plan() -> None:
    plan = ChildPlan(ChildId("c"), max_lag_writes=7)
    bounds = state_bounds(HubSettings(ack_timeout_s=0.9, answers_per_client_max=11), plan)
    assert (bounds.max_lag_writes, bounds.ack_timeout_s) == (7, 0.9)
    assert bounds.answers.per_client_max == 11


# --- poison calls ---------------------------------------------------------------------------------


def test_a_call_that_killed_a_copy_runs_again_only_beside_another_one() -> None:
    machine = with_state()
    hear(machine, Began(1, "w", 1, 0))
    promote(machine, roster(2, 2))
    call = Call("w", 1, 2, is_retry=True)
    assert verdict(machine, call) is Admission.AWAITS_COPY
    machine.handle(FromHub(1, roster(2, 3, ME, TWO)), 0.1)
    assert verdict(machine, call) is Admission.WAIT, "the other one could not hear of it"
    machine.handle(PeerConnected(TWO), 0.1)
    assert verdict(machine, call) is Admission.SERVE


def test_a_call_waits_for_whoever_could_not_hear_of_it_and_not_for_long() -> None:
    machine = active(roster(1, 1, ME, TWO))
    assert verdict(machine, Call("w", 1, 1, is_read=True)) is Admission.WAIT
    assert SetWanted(1, 1, (ME,)) not in to_hub(machine.handle(Ticked(), 0.4))
    assert SetWanted(1, 1, (ME,)) in to_hub(machine.handle(Ticked(), 0.7))
    machine.handle(FromHub(1, roster(1, 2, ME)), 0.8)
    assert verdict(machine, Call("w", 1, 1, is_read=True)) is Admission.SERVE


def test_a_call_that_killed_two_copies_never_runs_again() -> None:
    machine = with_state()
    hear(machine, Began(1, "w", 1, 1))
    promote(machine, roster(2, 2, ME, TWO))
    assert verdict(machine, Call("w", 1, 2, is_retry=True)) is Admission.KILLED


def test_a_call_that_nobody_made_is_not_suspected() -> None:
    machine = with_state()
    hear(machine, Began(1, "", 0, 0))
    promote(machine, roster(2, 2))
    assert data(machine).shipping is not None
    assert data(machine).shipping.suspects == {}  # type: ignore[union-attr]


def test_a_read_that_has_ended_killed_nobody() -> None:
    machine = with_state()
    hear(machine, Began(1, "w", 1, 0))
    promote(machine, roster(2, 2, ME, TWO))
    machine.handle(CallBegan("w", 1), 0.1)
    machine.handle(CallRead("w", 1), 0.2)
    assert data(machine).shipping.suspects == {}  # type: ignore[union-attr]


def test_what_it_suspects_it_still_suspects_after_it_stepped_down() -> None:
    machine = with_state()
    hear(machine, Began(1, "w", 1, 0))
    promote(machine, roster(2, 2, ME, TWO))
    machine.handle(FromHub(1, StepDown(2)), 0.1)
    assert data(machine).following.suspects == {("w", 1): 1}


# --- taking over ----------------------------------------------------------------------------------


def test_an_heir_applies_everything_before_it_serves() -> None:
    machine = with_state()
    hear(machine, Ship(1, Position(1, 0), (shipped(1),), 0))
    assert Apply((shipped(1),)) in promote(machine, roster(2, 2))
    assert not machine.may_serve(0.1)
    machine.handle(Applied(Position(1, 1)), 0.2)
    assert machine.may_serve(0.3)


def test_an_heir_that_still_takes_a_snapshot_in_applies_what_came_after_it() -> None:
    machine = with_state()
    table = TableKept((), has_evicted=False)
    hear(machine, Snapshot(2, Position(1, 4), "image", table, 4))
    hear(machine, Ship(2, Position(1, 4), (shipped(5, epoch=2),), 4))
    assert not [a for a in promote(machine, roster(3, 2)) if isinstance(a, Apply)]
    assert Apply((shipped(5, epoch=2),)) in machine.handle(Installed(Position(1, 4)), 0.1)
    assert not machine.may_serve(0.1)
    machine.handle(Applied(Position(2, 5)), 0.2)
    assert machine.may_serve(0.3)


def test_a_new_active_answers_nothing_before_the_others_hold_its_tail() -> None:
    machine = with_state()
    hear(machine, Ship(1, Position(1, 0), (shipped(1),), 1))
    machine.handle(Applied(Position(1, 1)), 0.0)
    promote(machine, roster(2, 2, ME, TWO))
    assert machine.may_serve(0.1)
    assert not machine.may_release(2, 1, 0.1)
    machine.handle(PeerConnected(TWO), 0.2)
    hear(machine, Standing(2, Position(1, 0), Position(1, 0), has_state=True), 0.3)
    hear(machine, Acked(2, Position(1, 1)), 0.4)
    assert machine.may_release(2, 1, 0.5)


def test_what_a_snapshot_brought_is_not_taken_for_committed() -> None:
    machine = copy()
    hear(machine, Follow(1, Position(1, 0)))
    table = TableKept((), has_evicted=False)
    hear(machine, Snapshot(1, Position(1, 3), "image", table, 1))
    machine.handle(Installed(Position(1, 3)), 0.0)
    assert data(machine).holding.committed == 1
    promote(machine, roster(2, 2, ME, TWO))
    assert not machine.may_release(2, 3, 0.1)


def test_answered_writes_that_are_lost_with_acks_active_are_counted() -> None:
    machine = with_state(acks=Acks.ACTIVE)
    hear(machine, Ship(1, Position(1, 0), (shipped(1),), 1))
    hear(machine, Beat(1, 4, 1, 0.0))
    assert WritesLost(2, 3) in to_hub(promote(machine, roster(2, 2)))
    assert to_hub(promote(with_state(acks=Acks.ACTIVE), roster(2, 2)))[:1] != [WritesLost(2, 0)]


def test_a_copy_without_the_state_is_no_heir_once_the_child_is_open() -> None:
    machine = copy()
    assert promote(machine, roster(1, 1)) == []
    assert machine.role is None
    assert promote(machine, roster(1, 1, TWO, is_open=False)) == []
    assert promote(machine, roster(1, 1, is_open=False)) != []
    assert machine.phase is Phase.READY


def test_an_object_that_is_not_built_is_no_heir() -> None:
    machine = ReplicaMachine(ME, replication=Replication(ME))
    assert machine.handle(FromHub(1, TakeRole(Role.ACTIVE, 1, roster(is_open=False))), 0.0) == []


# --- epochs ---------------------------------------------------------------------------------------


def test_whoever_speaks_in_an_epoch_that_is_over_is_told_so() -> None:
    machine = active()
    machine.handle(FromHub(1, StepDown(1)), 0.1)
    assert hear(machine, Follow(1, Position(1, 0))) == [EpochOver(2)]


def test_a_higher_epoch_ends_the_own_one_whoever_tells_of_it() -> None:
    for message in (EpochOver(2), Follow(2, Position(1, 0))):
        machine = active()
        assert machine.may_serve(0.1)
        assert HangUpPeer(TWO) in machine.handle(FromPeer(TWO, message), 0.1)
        assert not machine.may_serve(0.1)


def test_an_active_does_not_follow_itself_and_a_passive_takes_no_acknowledgements() -> None:
    assert hear(active(), Follow(1, Position(1, 0))) == []
    machine = with_state()
    assert hear(machine, Acked(1, Position(1, 0))) == []
    assert machine.handle(PeerConnected(TWO), 0.0) == []
    assert machine.handle(PeerClosed(TWO), 0.0) == []


def test_only_a_copy_that_serves_says_how_far_it_is() -> None:
    machine = active()
    assert hear(machine, Pulse(1, 7.0), 2.9) == [Beat(1, 0, 0, 7.0)]
    assert hear(machine, Pulse(1, 8.0), 3.0) == []


def test_asked_for_its_position_it_reports_at_once() -> None:
    machine = with_state()
    hear(machine, Ship(1, Position(1, 0), (shipped(1),), 0))
    [told] = machine.handle(FromHub(1, TellPosition()), 0.0)
    assert isinstance(told, SendToHub)
    assert isinstance(told.message, Report)
    assert told.message.tail == Position(1, 1)


def test_a_passive_reads_within_its_bound_and_an_active_does_not_read_as_one() -> None:
    machine = with_state()
    hear(machine, Ship(1, Position(1, 0), (), 0))
    machine.handle(FromHub(1, TakeRole(Role.PASSIVE, 1)), 0.0)
    hear(machine, Beat(1, 0, 0, 10.0))
    assert machine.may_read(10.1, 0)
    assert not active().may_read(0.1, None)
    assert not copy().may_read(0.1, None)


# --- calls that outlive their epoch ---------------------------------------------------------------


def test_a_write_that_ends_after_its_epoch_is_kept_behind_the_last_one() -> None:
    machine = active()
    machine.handle(CallBegan("w", 1), 0.1)
    machine.handle(FromHub(1, StepDown(1)), 0.2)
    assert end_write(machine, 1) == []
    assert data(machine).holding.log.tail == Position(1, 1)
    promote(machine, roster(2, 2))
    assert verdict(machine, Call("w", 1, 2, is_retry=True)) is Admission.ANSWERED


def test_while_its_call_runs_a_deposed_active_promises_the_next_one_nothing() -> None:
    machine = active()
    machine.handle(CallBegan("w", 1), 0.1)
    machine.handle(FromHub(1, StepDown(1)), 0.2)
    assert hear(machine, Follow(2, Position(1, 0))) == []
    assert hear(machine, Ship(2, Position(1, 0), (shipped(1, epoch=2),), 0)) == []
    assert to_peer(end_write(machine, 1)) == [
        Standing(2, Position(1, 1), Position(1, 1), has_state=True)
    ]


def test_promoted_again_while_its_call_runs_it_drops_what_it_acknowledged_to_nobody() -> None:
    machine = active()
    machine.handle(CallBegan("w", 1), 0.1)
    machine.handle(FromHub(1, StepDown(1)), 0.2)
    hear(machine, Follow(2, Position(1, 0)))
    hear(machine, Ship(2, Position(1, 0), (shipped(1, epoch=2),), 0))
    promote(machine, roster(3, 2))
    end_write(machine, 1)
    assert [e.position for e in data(machine).holding.log.entries] == [Position(3, 1)]


def test_an_object_that_changed_after_a_promise_to_a_later_active_is_spoiled() -> None:
    """The call was admitted before, and entered after: nobody could know of it."""
    machine = active()
    machine.handle(FromHub(1, StepDown(1)), 0.2)
    hear(machine, Follow(2, Position(1, 0)))
    machine.handle(CallBegan("w", 1), 0.3)
    assert to_peer(end_write(machine, 1)) == [
        Standing(2, Position(1, 0), Position(1, 0), has_state=False)
    ]


def test_an_active_whose_object_is_spoiled_steps_down() -> None:
    machine = active()
    machine.handle(FromHub(1, StepDown(1)), 0.2)
    hear(machine, Follow(2, Position(1, 0)))
    promote(machine, roster(3, 2))
    assert SteppedDown(3) in to_hub(end_write(machine, 1))


# --- what goes wrong ------------------------------------------------------------------------------


def test_an_active_whose_state_cannot_be_shipped_steps_down() -> None:
    machine = active()
    assert SteppedDown(1) in to_hub(machine.handle(StateBroken("a lock"), 0.1))
    assert not machine.may_serve(0.1)


def test_a_passive_whose_object_broke_in_a_call_needs_a_snapshot() -> None:
    machine = active()
    machine.handle(CallBegan("w", 1), 0.1)
    machine.handle(FromHub(1, StepDown(1)), 0.2)
    hear(machine, Follow(2, Position(1, 0)))
    assert to_peer(machine.handle(StateBroken("a lock"), 0.3)) == [
        Standing(2, Position(1, 0), Position(1, 0), has_state=False)
    ]


@pytest.mark.parametrize("make", [active, with_state])
def test_a_copy_that_cannot_apply_says_so_and_serves_no_more(make: object) -> None:
    machine: ReplicaMachine = make()  # type: ignore[operator]
    told = to_hub(machine.handle(ApplyFailed("another answer"), 0.1))
    assert told[0] == Diverged("another answer")
    assert (SteppedDown(1) in told) == (make is active)
    assert not machine.may_serve(0.1)


def test_a_snapshot_is_taken_between_two_calls() -> None:
    machine = active()
    machine.handle(PeerConnected(TWO), 0.1)
    standing = Standing(1, Position(0, 0), Position(0, 0), has_state=False)
    assert machine.handle(FromPeer(TWO, standing), 0.1) == [TakeSnapshot(TWO)]
    [snapshot] = to_peer(machine.handle(SnapshotTaken(TWO, "image", 5), 0.2))
    assert isinstance(snapshot, Snapshot)


def test_an_object_that_takes_in_writes_of_its_own_active_wakes_the_calls() -> None:
    machine = active()
    assert machine.handle(Applied(Position(1, 0)), 0.1) != []
    assert machine.handle(Installed(Position(9, 9)), 0.1) == []


@pytest.mark.parametrize(
    "event",
    [
        FromPeer(TWO, EpochOver(9)),
        PeerConnected(TWO),
        CallBegan("w", 1),
        CallRead("w", 1),
        Applied(Position(1, 1)),
        StateBroken("x"),
        FromHub(1, Roster(1, 1, (ME,), (), is_open=True)),
    ],
    ids=lambda event: type(event).__name__,
)
def test_where_nothing_is_replicated_news_of_state_means_nothing(event: ReplicaEvent) -> None:
    machine = ReplicaMachine(ME, signal=Signal.NONE)
    machine.handle(BuildBegan(), 0.0)
    machine.handle(Built(), 0.0)
    assert machine.handle(event, 0.1) == []
    assert not machine.may_read(0.1, None)
    assert verdict(machine, Call("w", 1, 0)) is Admission.WAIT


def test_time_passes_in_both_halves() -> None:
    machine = with_state()
    assert to_peer(machine.handle(Ticked(), 9.0)) == [Pulse(1, 9.0)]
    machine = active(roster(1, 1, ME, TWO))
    machine.handle(PeerClosed(TWO), 0.0)
    assert any(type(a).__name__ == "DialPeer" for a in machine.handle(Ticked(), 1.0))
