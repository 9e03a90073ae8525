"""May this copy serve? Told as short stories of one replica."""

from __future__ import annotations

from raphub.core.messages import (
    AbandonCallback,
    BuildBegan,
    Built,
    CallBack,
    CallbackReturned,
    CallEnded,
    Fenced,
    FromHub,
    LeaseGranted,
    Renew,
    ReplicaAction,
    Report,
    RoleOverdue,
    RoleTaken,
    SendToHub,
    StepDown,
    SteppedDown,
    TakeRole,
    Ticked,
)
from raphub.core.model import Phase, ReplicaId, Role, Signal
from raphub.core.replica_machine import ReplicaMachine
from raphub.core.replication import Admission, Call

ACTIVE, PASSIVE = Role.ACTIVE, Role.PASSIVE


def built(**settings: object) -> ReplicaMachine:
    """A copy whose object stands."""
    machine = ReplicaMachine(ReplicaId("c#1"), **settings)  # type: ignore[arg-type]
    machine.handle(BuildBegan(), 0.0)
    machine.handle(Built(), 0.0)
    return machine


def active(epoch: int = 1, **settings: object) -> ReplicaMachine:
    """A copy that serves until 3.0."""
    machine = built(signal=Signal.NONE, **settings)
    machine.handle(FromHub(1, TakeRole(ACTIVE, epoch)), 0.0)
    machine.handle(FromHub(1, LeaseGranted(epoch, 0.0)), 0.1)
    return machine


def sent(actions: list[ReplicaAction]) -> list[object]:
    return [action.message for action in actions if isinstance(action, SendToHub)]


def test_promoted_but_without_a_lease_it_waits() -> None:
    machine = built(signal=Signal.NONE)
    told = sent(machine.handle(FromHub(1, TakeRole(ACTIVE, 1)), 5.0))
    assert RoleTaken(ACTIVE, 1) in told
    assert Renew(1, 5.0) in told
    assert machine.admit(1, 5.0) is Admission.WAIT
    machine.handle(FromHub(1, LeaseGranted(1, 5.0)), 5.2)
    assert machine.admit(1, 5.2) is Admission.SERVE


def test_the_lease_counts_from_sending_and_lapses_by_itself_and_is_resumed() -> None:
    machine = active()
    assert machine.may_answer(1, 2.99)
    assert not machine.may_answer(1, 3.0)
    assert machine.may_serve_again(1)
    machine.handle(FromHub(1, LeaseGranted(1, 2.5)), 6.0)
    assert not machine.may_serve(6.0)
    machine.handle(FromHub(1, LeaseGranted(1, 5.9)), 6.0)
    assert machine.may_serve(8.8)


def test_a_lease_of_another_epoch_is_none() -> None:
    machine = active(epoch=2)
    machine.handle(FromHub(1, LeaseGranted(1, 100.0)), 100.0)
    assert not machine.may_serve(100.0)


def test_a_lower_term_is_not_obeyed() -> None:
    machine = active()
    machine.handle(FromHub(3, LeaseGranted(1, 0.5)), 0.6)
    assert machine.handle(FromHub(2, StepDown(1)), 0.7) == []
    assert machine.may_serve(0.7)


def test_it_steps_down_at_once_and_never_serves_that_epoch_again() -> None:
    machine = active()
    assert SteppedDown(1) in sent(machine.handle(FromHub(1, StepDown(1)), 0.5))
    assert machine.admit(1, 0.5) is Admission.NOT_ACTIVE
    assert sent(machine.handle(FromHub(1, TakeRole(ACTIVE, 1)), 0.6)) == [SteppedDown(1)]
    machine.handle(FromHub(1, TakeRole(ACTIVE, 2)), 0.7)
    machine.handle(FromHub(1, LeaseGranted(2, 0.7)), 0.8)
    assert machine.may_serve(0.8)


def test_asked_to_make_way_it_ends_the_calls_that_run_and_admits_no_other() -> None:
    machine = active()
    assert machine.admit_call(Call("client", 1, 1), 0.4)[0] is Admission.SERVE
    assert machine.handle(FromHub(1, StepDown(1, drain_s=2.0)), 0.5) == []
    assert machine.admit(1, 0.6) is Admission.WAIT
    assert machine.may_answer(1, 0.7)
    assert SteppedDown(1) in sent(machine.handle(CallEnded(), 0.8))
    assert machine.admit(1, 0.9) is Admission.NOT_ACTIVE


def test_asked_to_make_way_it_does_not_wait_longer_than_it_may() -> None:
    machine = active()
    assert machine.admit_call(Call("client", 1, 1), 0.4)[0] is Admission.SERVE
    machine.handle(FromHub(1, StepDown(1, drain_s=1.0)), 0.5)
    assert SteppedDown(1) not in sent(machine.handle(FromHub(1, StepDown(1, drain_s=1.0)), 1.4))
    assert SteppedDown(1) in sent(machine.handle(Ticked(), 1.5))


def test_asked_to_leave_at_once_while_it_makes_way___at_once() -> None:
    machine = active()
    assert machine.admit_call(Call("client", 1, 1), 0.4)[0] is Admission.SERVE
    machine.handle(FromHub(1, StepDown(1, drain_s=2.0)), 0.5)
    assert SteppedDown(1) in sent(machine.handle(FromHub(1, StepDown(1)), 0.6))


def test_promoted_again_it_admits_calls_again() -> None:
    machine = active()
    assert machine.admit_call(Call("client", 1, 1), 0.4)[0] is Admission.SERVE
    machine.handle(FromHub(1, StepDown(1, drain_s=2.0)), 0.5)
    machine.handle(FromHub(1, TakeRole(ACTIVE, 2)), 0.6)
    machine.handle(FromHub(1, LeaseGranted(2, 0.6)), 0.7)
    assert machine.admit(2, 0.8) is Admission.SERVE


def test_a_step_down_of_an_older_epoch_means_nothing() -> None:
    machine = active(epoch=4)
    assert machine.handle(FromHub(1, StepDown(3)), 0.5) == []
    assert machine.may_serve(0.5)


def test_a_call_of_a_higher_epoch_fences_its_receiver() -> None:
    machine = active()
    assert machine.admit(2, 0.5) is Admission.WAIT
    assert not machine.may_serve(0.5)
    assert machine.admit(1, 0.5) is Admission.NOT_ACTIVE


def test_a_fence_from_the_hub_ends_serving() -> None:
    machine = active()
    machine.handle(FromHub(1, Fenced(2)), 0.5)
    assert not machine.may_serve(0.5)


def test_a_call_of_an_older_epoch_is_stale() -> None:
    assert active(epoch=2).admit(1, 0.5) is Admission.STALE


def test_the_object_is_told_a_role_once_and_serves_after_it_was() -> None:
    machine = built()
    actions = machine.handle(FromHub(1, TakeRole(ACTIVE, 1)), 0.0)
    assert CallBack(ACTIVE, 1) in actions
    machine.handle(FromHub(1, LeaseGranted(1, 0.0)), 0.1)
    assert machine.admit(1, 0.2) is Admission.WAIT
    assert machine.handle(FromHub(1, TakeRole(ACTIVE, 1)), 0.2) == []
    told = sent(machine.handle(CallbackReturned(ACTIVE, 1, "raised"), 0.3))
    assert told == [RoleTaken(ACTIVE, 1, "raised")]
    assert machine.admit(1, 0.3) is Admission.SERVE
    again = machine.handle(FromHub(1, TakeRole(ACTIVE, 1)), 0.4)
    assert sent(again) == [RoleTaken(ACTIVE, 1)]


def test_a_role_that_changes_during_a_callback_is_told_after_it() -> None:
    machine = built()
    machine.handle(FromHub(1, TakeRole(PASSIVE, 1)), 0.0)
    machine.handle(FromHub(1, TakeRole(ACTIVE, 2)), 0.1)
    assert CallBack(ACTIVE, 2) in machine.handle(CallbackReturned(PASSIVE, 1), 0.2)


def test_a_callback_past_its_deadline_is_reported_and_past_twice_of_it_abandoned() -> None:
    machine = built(role_deadline_s=1.0)
    machine.handle(FromHub(1, TakeRole(ACTIVE, 1)), 0.0)
    assert RoleOverdue(ACTIVE, 1) in sent(machine.handle(Ticked(), 1.1))
    actions = machine.handle(Ticked(), 2.1)
    assert AbandonCallback() in actions
    assert machine.is_taken
    assert machine.handle(CallbackReturned(ACTIVE, 1), 9.0) == []


def test_only_the_wanted_signals_are_told() -> None:
    machine = built(signal=Signal.ACTIVE)
    assert sent(machine.handle(FromHub(1, TakeRole(PASSIVE, 1)), 0.0)) == [RoleTaken(PASSIVE, 1)]
    assert CallBack(ACTIVE, 2) in machine.handle(FromHub(1, TakeRole(ACTIVE, 2)), 0.1)


def test_where_all_serve_no_lease_is_needed() -> None:
    machine = built(is_led=False, signal=Signal.NONE)
    machine.handle(FromHub(1, TakeRole(ACTIVE, 1)), 0.0)
    assert machine.admit(99, 1000.0) is Admission.SERVE


def test_where_all_serve_and_are_bound_each_needs_a_lease_and_keeps_it_in_a_new_epoch() -> None:
    machine = built(is_led=False, is_bound=True, signal=Signal.NONE)
    asked = sent(machine.handle(FromHub(1, TakeRole(ACTIVE, 1)), 0.0))
    assert Renew(1, 0.0) in asked
    assert machine.admit(1, 0.0) is Admission.WAIT
    machine.handle(FromHub(1, LeaseGranted(1, 0.0)), 0.1)
    assert machine.admit(99, 2.9) is Admission.SERVE
    machine.handle(FromHub(1, TakeRole(ACTIVE, 2)), 2.9)
    assert machine.admit(1, 2.9) is Admission.SERVE
    assert machine.admit(1, 3.0) is Admission.WAIT
    assert machine.may_serve_again(2)


def test_its_heartbeat_says_what_it_is() -> None:
    machine = built()
    assert sent(machine.handle(Ticked(), 1.0)) == [Report(Phase.READY, None, 0, 0)]
    assert sent(machine.handle(Ticked(), 1.1)) == []
