"""Does a lane send its calls in order, and again, whether anybody waits for them or not?"""

from __future__ import annotations

import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from raphub import call as call_module
from raphub import context
from raphub import lanes as lanes_module
from raphub import sent as sent_module
from raphub.actors.calling import Header, Raised, Refused, Withheld, read_call
from raphub.call import Call
from raphub.call_options import CallOptions
from raphub.core.model import Health
from raphub.errors import (
    CallKilledReplica,
    CallOutcomeUnknown,
    ChildNotFound,
    DataLost,
    InvalidSetting,
    NotEnoughInSync,
)
from raphub.gathering import results
from raphub.sent import LOOK_AGAIN_S, UNREACHABLE_PATIENCE_S
from tests.unit.fake_ray import LIMIT_S, UNREACHABLE, Clock, Copy, Ray, Told, replicated


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, ray: Ray) -> Clock:
    """The clock by which lanes and patience go; nobody keeps the lanes meanwhile."""
    fake = Clock()
    for module in (lanes_module, sent_module):
        monkeypatch.setattr(module, "time", fake)
    monkeypatch.setattr(lanes_module.Lanes, "_run", lambda self: None)
    return fake


@pytest.fixture
def view(ray: Ray, clock: Clock) -> Told:
    return Told(replicated())


def called(view: Told, method: str = "add", *args: object, **options: Any) -> Call[Any]:
    return Call(view, "a", method, args, {}, CallOptions(**options))


def headers(copy: Copy) -> list[Header]:
    return [read_call(line, ())[0] for line in copy.lines]


def numbers(copy: Copy) -> list[tuple[int, int]]:
    """Of what was sent: its number, and after which it has to run."""
    return [(h.number, h.after) for h in headers(copy)]


# --- numbers ----------------------------------------------------------------------------------


def test_a_call_says_which_write_is_before_it_and_what_is_settled(view: Told) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy()))
    first, read, third = called(view), called(view, "get"), called(view)
    assert numbers(copy) == [(1, 0), (2, 1), (3, 1)]
    copy.sent[0].comes_to(5)
    assert first.result() == 5
    called(view)
    assert (headers(copy)[3].settled_below, headers(copy)[3].after) == (2, 3)
    for ref in copy.sent[1:3]:
        ref.comes_to(6)
    assert results([read, third]) == [6, 6]
    called(view)
    assert headers(copy)[4].settled_below == 4
    assert len({h.client for h in headers(copy)}) == 1
    assert not any(h.is_retry for h in headers(copy))


def test_calls_before_the_first_active_go_in_order_once_there_is_one(view: Told) -> None:
    early = called(view)
    view.tell(1, None)
    held = called(view)
    view.tell(2, "a#1", copy1=(copy := Copy(1, 2)))
    assert numbers(copy) == [(1, 0), (2, 1)]
    assert results([early, held]) == [1, 2]


# --- another active ---------------------------------------------------------------------------


def test_the_next_active_gets_all_unsettled_calls_in_order_though_nobody_waits(
    view: Told,
) -> None:
    view.tell(1, "a#1", copy1=(old := Copy()))
    made = [called(view) for _ in range(4)]
    old.sent[1].comes_to("left behind")
    view.tell(2, "a#2", copy2=(heir := Copy()))
    assert numbers(heir) == [(1, 0), (3, 1), (4, 3)]
    assert all(h.is_retry and h.epoch == 2 for h in headers(heir))
    assert made[1].result() == "left behind"
    called(view)
    assert numbers(heir)[-1] == (5, 4)


@pytest.mark.parametrize("end", [ActorDiedError(), UNREACHABLE, Withheld("its lease is over")])
def test_a_call_follows_its_child_through_any_number_of_deaths(view: Told, end: object) -> None:
    view.tell(1, "a#1", copy1=Copy(end))
    call = called(view)
    for epoch in range(2, 6):
        assert not call.done()
        view.tell(epoch, f"a#{epoch}", **{f"copy{epoch}": Copy(end)})
    view.tell(6, "a#6", copy6=(last := Copy(5)))
    assert call.result() == 5
    assert numbers(last) == [(1, 0)]


def test_a_call_that_must_not_run_twice_is_not_sent_again(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy())
    once, twice = called(view, retry=False), called(view)
    view.tell(2, "a#2", copy2=(heir := Copy(2)))
    with pytest.raises(CallOutcomeUnknown):
        once.result()
    assert twice.result() == 2
    assert numbers(heir) == [(2, 0)]


def test_an_unreachable_copy_that_stays_the_active_is_asked_again(view: Told, clock: Clock) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy(UNREACHABLE, 5)))
    call = called(view)
    assert not call.done()
    clock.now += 0.9 * UNREACHABLE_PATIENCE_S
    assert not call.done()
    assert len(copy.sent) == 1
    clock.now += 0.2 * UNREACHABLE_PATIENCE_S
    assert not call.done()
    assert call.result() == 5
    assert [h.is_retry for h in headers(copy)] == [False, True]


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason", ["not_open", "awaits_copy", "out_of_order", "not_active", "stale", "wait"]
)
def test_after_a_refusal_the_first_asks_alone_and_the_others_follow_in_order(
    view: Told, clock: Clock, reason: str
) -> None:
    refusal = Refused(reason)
    view.tell(1, "a#1", copy1=(copy := Copy(*[refusal] * 3, refusal, "a")))
    made = [called(view) for _ in range(3)]
    assert not made[2].done()
    made.append(called(view))  # it stands behind those that are held
    for asked in (3, 4):
        clock.now += 0.9 * LOOK_AGAIN_S
        assert not any(call.done() for call in made)
        assert len(copy.sent) == asked
        clock.now += 0.2 * LOOK_AGAIN_S
        assert not made[0].done()
        assert len(copy.sent) == asked + 1
        assert made[0].done() is (asked == 4)
    assert numbers(copy)[3:] == [(1, 0), (1, 0), (2, 0), (3, 2), (4, 3)]
    assert not any(h.is_retry for h in headers(copy))


def test_news_ends_the_wait_after_a_refusal(view: Told, clock: Clock) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy(Refused("not_open"), Refused("out_of_order"))))
    made = [called(view) for _ in range(2)]
    assert not made[0].done()
    view.tell(1, "a#1", copy1=copy)
    assert numbers(copy)[2:] == [(1, 0), (2, 1)]


def test_a_thousand_refused_calls_ask_seldom(view: Told, clock: Clock) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy(*[Refused("not_open")] * 1100)))
    made = [called(view) for _ in range(1000)]
    for _ in range(20):
        clock.now += LOOK_AGAIN_S
        assert not any(call.done() for call in made[:3])
    assert len(copy.sent) <= 1021


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("too_few_in_sync", NotEnoughInSync),
        ("forgotten", CallOutcomeUnknown),
        ("killed", CallKilledReplica),
    ],
)
def test_some_refusals_are_final_and_hold_nobody_up(
    view: Told, reason: str, error: type[Exception]
) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy(Refused(reason), 5)))
    first, second = called(view), called(view)
    with pytest.raises(error) as caught:
        first.result()
    assert second.result() == 5
    assert len(copy.sent) == 2
    revived = pickle.loads(pickle.dumps(caught.value))
    assert (str(revived), revived.hint) == (str(caught.value), caught.value.hint)


# --- ends -------------------------------------------------------------------------------------


def test_a_child_that_lost_its_state_says_so(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy(ActorDiedError()))
    running = called(view)
    assert not running.done()
    view.tell(1, None, Health.LOST)
    with pytest.raises(DataLost):
        running.result()
    with pytest.raises(DataLost):
        called(view).result()


def test_a_child_that_was_stopped_settles_all_its_calls(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy())
    running = called(view)
    view.tell_gone()
    assert running.done()
    with pytest.raises((ChildNotFound, CallOutcomeUnknown)):
        running.result()
    assert view.lanes.lane("a", None)._calls == {}


def test_a_cancelled_call_leaves_its_lane(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy())
    call = called(view)
    call.cancel()
    view.tell(2, "a#2", copy2=(heir := Copy()))
    assert heir.sent == []
    called(view)
    assert numbers(heir) == [(2, 0)]


def test_what_cannot_be_sent_is_raised_and_leaves_no_gap(view: Told) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy()))
    with pytest.raises(TypeError, match="pickle"):
        called(view, "add", print)
    called(view)
    assert [(h.number, h.after, h.settled_below) for h in headers(copy)] == [(2, 0, 2)]
    view.tell(2, None)
    held, behind = called(view, "add", print), called(view)
    view.tell(3, "a#3", copy3=(heir := Copy(2, 4)))
    with pytest.raises(TypeError, match="pickle"):
        held.result()
    assert behind.result() == 4
    assert numbers(heir) == [(2, 0), (4, 2)]


def test_a_raised_error_settles(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy(Raised(pickle.dumps(ValueError("no")), "story")))
    with pytest.raises(ValueError, match="no"):
        called(view).result()
    assert view.lanes.lane("a", None)._calls == {}


# --- calls nobody waits for -------------------------------------------------------------------


def test_the_keeper_settles_calls_that_nobody_fetches(ray: Ray) -> None:
    view = Told(replicated())
    view.tell(1, "a#1", copy1=(copy := Copy()))
    kept = [weakref.ref(called(view)) for _ in range(600)]
    gc.collect()
    assert all(ref() is not None for ref in kept)
    for ref in copy.sent:
        ref.comes_to(1)
    until(lambda: not view.lanes.lane("a", None)._calls)
    gc.collect()
    assert not any(ref() is not None for ref in kept)


def test_the_keeper_sends_again_what_was_refused(ray: Ray) -> None:
    view = Told(replicated())
    view.tell(1, "a#1", copy1=(copy := Copy(*[Refused("not_open")] * 2, 1, 2)))
    called(view)
    called(view)
    until(lambda: len(copy.sent) == 4)
    until(lambda: not view.lanes.lane("a", None)._calls)


def test_the_keeper_gives_up_what_nobody_will_serve(ray: Ray) -> None:
    view = Told(replicated())
    view.tell(1, None)
    for _ in range(3):
        called(view)
    view.tell_gone()
    until(lambda: not view.lanes.lane("a", None)._calls)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """After a thousand other tests one collection takes longer than what is measured."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_many_calls_cost_no_more_than_few(view: Told) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy()))
    began = time.thread_time()
    for _ in range(500):
        called(view)
    few_s = time.thread_time() - began
    for _ in range(9000):
        called(view)
    began = time.thread_time()
    for _ in range(500):
        called(view)
    assert time.thread_time() - began < 5 * few_s + 0.1
    for ref in copy.sent:
        ref.comes_to(0)
    view.tell(2, "a#2", copy2=(heir := Copy()))
    assert heir.sent == []


def test_calls_of_several_threads_leave_in_the_order_of_their_numbers(view: Told) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy()))
    threads = [threading.Thread(target=lambda: [called(view) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [n for n, _ in numbers(copy)] == list(range(1, 401))


# --- calls of calls ---------------------------------------------------------------------------


def test_each_execution_of_a_call_makes_the_same_calls(view: Told) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy(*range(9))))
    for _ in range(2):
        with context.calling("x.1:7"):
            assert called(view).result() is not None
            called(view)
    called(view)
    named = [(h.client, h.number) for h in headers(copy)]
    assert named[:2] == named[2:4] == [("x.1:7/hub/a", 1), ("x.1:7/hub/a", 2)]
    assert named[4][0] != named[0][0]
    assert [h.settled_below for h in headers(copy)] == [1] * 5


# --- elsewhere --------------------------------------------------------------------------------


def test_a_call_that_travels_asks_for_the_same_answer(
    view: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    view.tell(1, "a#1", copy1=Copy())
    first, second = called(view), called(view)
    monkeypatch.setattr(call_module, "view_of", lambda hub_id: view)
    ref = second.sent.ref if second.sent else None
    monkeypatch.setattr(type(ref), "__reduce__", lambda self: (list, ()), raising=False)
    there: Call[Any] = pickle.loads(pickle.dumps(second))
    assert second.sent is not None
    there.sent = second.sent
    view.tell(2, "a#2", copy2=(heir := Copy()))
    assert not there.done()
    assert numbers(heir) == [(1, 0), (2, 1), (2, 1)]
    assert headers(heir)[2].is_retry
    heir.sent[2].comes_to(5)
    assert there.result() == 5
    assert not first.done()


# --- reads ------------------------------------------------------------------------------------


def test_reads_go_where_they_were_said_to_go(view: Told) -> None:
    active, passive = Copy(*"aaaaaa"), Copy(*"pppppp")
    view.tell(1, "a#1", copy1=active, copy2=passive)
    for read_from, where in (("active", "aa"), ("passive", "pp"), ("any", "ap")):
        got = [called(view, "get", read_from=read_from).result() for _ in range(2)]
        assert sorted(got) == sorted(where)
    called(view, "get", read_from="passive", max_lag_writes=3)
    assert headers(passive)[-1].max_lag_writes == 3
    assert headers(passive)[0].max_lag_writes == -1


@pytest.mark.parametrize("end", [Refused("lags"), ActorDiedError(), UNREACHABLE])
def test_a_read_that_a_passive_does_not_answer_goes_to_the_active(view: Told, end: object) -> None:
    view.tell(1, "a#1", copy1=(active := Copy(5)), copy2=Copy(end))
    assert called(view, "get", read_from="passive").result() == 5
    assert active.methods == ["serve"]


def test_a_read_from_a_passive_goes_to_the_active_if_there_is_none(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy(5))
    assert called(view, "get", read_from="passive").result() == 5


def test_what_may_write_is_not_read_from_passives(view: Told) -> None:
    early = called(view, "add", read_from="any")
    view.tell(1, "a#1", copy1=Copy())
    with pytest.raises(InvalidSetting, match="add") as caught:
        early.result()
    assert "@raphub.read_only" in caught.value.hint
    with pytest.raises(InvalidSetting):
        called(view, "add", read_from="any")


def until(is_met: Callable[[], bool]) -> None:
    gives_up_at = time.monotonic() + LIMIT_S
    waits = threading.Event()
    while not is_met():
        assert time.monotonic() < gives_up_at
        waits.wait(0.005)


@pytest.fixture(autouse=True)
def closed_views() -> Iterator[None]:
    """No keeper outlives its test."""
    yield
    Told.close_all()
