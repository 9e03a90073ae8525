"""Does a call wait only where it may, and does whatever it waits for wake it?"""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from raphub import lookout as lookout_module
from raphub import sent as sent_module
from raphub.actors.calling import Refused
from raphub.call import Call
from raphub.call_options import CallOptions
from raphub.core.calls import Attempt, Outcome
from raphub.core.model import Health
from raphub.errors import (
    CallKilledReplica,
    CallOutcomeUnknown,
    CallTimeout,
    ChildNotFound,
    NoActiveReplica,
)
from raphub.gathering import results, wait
from raphub.lookout import AsyncLookout, Lookout
from raphub.registry_view import RegistryView
from raphub.sent import LOOK_AGAIN_S, UNREACHABLE_PATIENCE_S, Sent, Settled
from tests.unit.fake_ray import LIMIT_S, UNREACHABLE, Copy, Ray, Ref, Told

AT_ONCE_S = 0.5
"""Half of the slice after which a waiter looks without being woken; what wakes it comes sooner."""


@pytest.fixture
def view(ray: Ray) -> Told:
    return Told()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock by which patience with a copy is measured."""
    fake = SimpleNamespace(now=100.0, monotonic=lambda: fake.now)
    monkeypatch.setattr(sent_module, "time", fake)
    return fake


@pytest.fixture
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(1) as found:
        yield found


def called(view: RegistryView, *args: object, **options: Any) -> Call[Any]:
    return Call(view, "a", "add", args, {}, CallOptions(**options))


@pytest.mark.parametrize("end", [ActorDiedError(), UNREACHABLE, Refused("not_active")])
def test_done_never_waits_after_a_sending_that_ended_without_news(
    view: Told, ray: Ray, end: object
) -> None:
    view.tell(1, "a#1", copy1=Copy(end))
    call = called(view)
    assert not any(call.done() for _ in range(3))
    assert (ray.waited_s, view.waited_s) == (0, 0)


def test_done_never_waits_for_an_answer_or_for_an_active(view: Told, ray: Ray) -> None:
    view.tell(1, None)
    in_line = called(view)
    view.tell(2, "a#1", copy1=(copy := Copy()))
    under_way = called(view)
    assert not in_line.done()
    assert not under_way.done()
    for ref in copy.sent:
        ref.comes_to(5)
    assert in_line.done()
    assert under_way.done()
    assert (ray.waited_s, view.waited_s) == (0, 0)


def test_done_asks_ray_once_and_then_to_be_brought_the_answer(view: Told, ray: Ray) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy()))
    call = called(view)
    assert not any(call.done() for _ in range(3))
    copy.sent[0].comes_to(5)
    assert call.done()
    assert ray.gets == 1


def test_done_again_and_again_follows_the_child_to_its_next_active(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy(ActorDiedError()))
    call = called(view)
    assert not call.done()
    view.tell(2, "a#2", copy2=(heir := Copy()))
    assert not call.done()
    heir.sent[0].comes_to(5)
    assert call.done()
    assert call.result() == 5


def test_done_goes_by_news_before_ray_notices_a_death(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy())
    call = called(view)
    view.tell(2, "a#2", copy2=(heir := Copy(5)))
    assert not call.done()
    assert len(heir.sent) == 1
    assert call.done()


def test_an_answer_that_a_copy_left_is_taken_though_it_serves_no_more(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy(5))
    call = called(view)
    view.tell(2, "a#2", copy2=(heir := Copy()))
    assert call.result() == 5
    assert heir.sent == []


def test_done_says_so_if_nobody_will_ever_serve(view: Told) -> None:
    view.tell(1, None, Health.STOPPED)
    given_up = called(view)
    assert given_up.done()
    with pytest.raises(NoActiveReplica, match="crashes"):
        given_up.result()
    view.tell_gone()
    gone = called(view)
    assert gone.done()
    with pytest.raises(ChildNotFound):
        gone.result()


def test_a_copy_that_refused_is_asked_again_after_a_while(
    view: Told, clock: SimpleNamespace
) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy(Refused("not yet"), Refused("not yet"), 5)))
    call = called(view)
    for asked in (1, 2):
        assert not call.done()
        clock.now += 0.9 * LOOK_AGAIN_S
        assert not call.done()
        assert len(copy.sent) == asked
        clock.now += 0.2 * LOOK_AGAIN_S
        assert not call.done()
        assert len(copy.sent) == asked + 1
    assert call.done()
    assert call.result() == 5


def test_a_refusal_is_waited_out_by_result_and_await(view: Told) -> None:
    async def ask() -> object:
        return await called(view)

    for answer in (lambda: called(view).result(), lambda: asyncio.run(ask())):
        view.tell(1, "a#1", copy1=(copy := Copy(Refused("not yet"), 5)))
        began = time.monotonic()
        assert answer() == 5
        assert LOOK_AGAIN_S <= time.monotonic() - began < AT_ONCE_S
        assert len(copy.sent) == 2


def test_a_call_whose_copy_stays_unreachable_is_given_up_after_a_while(
    view: Told, clock: SimpleNamespace
) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy()))
    call = called(view)
    clock.now += 10 * UNREACHABLE_PATIENCE_S  # a long method: patience counts from its end
    copy.sent[0].comes_to(UNREACHABLE)
    assert not call.done()
    clock.now += 0.9 * UNREACHABLE_PATIENCE_S
    assert not call.done()
    clock.now += 0.2 * UNREACHABLE_PATIENCE_S
    assert call.done()
    with pytest.raises(CallOutcomeUnknown, match="does not answer"):
        call.result()


@pytest.mark.parametrize("end", [ActorDiedError(), UNREACHABLE])
def test_a_call_that_may_have_run_is_sent_to_the_next_active_once(view: Told, end: object) -> None:
    view.tell(1, "a#1", copy1=Copy(end))
    call = called(view)
    assert not call.done()
    view.tell(2, "a#2", copy2=Copy(end))
    assert not call.done()
    view.tell(3, "a#3", copy3=(third := Copy()))
    with pytest.raises(CallKilledReplica):
        call.result()
    assert third.sent == []


@pytest.mark.parametrize("end", [ActorDiedError(), UNREACHABLE])
def test_a_call_that_must_not_run_twice_is_given_up_at_once(view: Told, end: object) -> None:
    view.tell(1, "a#1", copy1=Copy(end))
    call = called(view, retry=False)
    assert call.done()
    with pytest.raises(CallOutcomeUnknown):
        call.result()


def test_news_wakes_who_waits_for_an_answer(
    view: Told, ray: Ray, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    view.tell(1, "a#1", copy1=Copy())
    waiter = pool.submit(called(view).result)
    assert ray.is_waiting.wait(LIMIT_S)
    view.tell(2, "a#2", copy2=Copy(5))
    assert waiter.result(AT_ONCE_S) == 5


def test_news_wakes_who_waits_after_a_death(
    view: Told, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    view.tell(1, "a#1", copy1=Copy(ActorDiedError()))
    waiter = pool.submit(called(view).result)
    while not view.waited_s:
        assert not waiter.done()
    view.tell(2, "a#2", copy2=Copy(5))
    assert waiter.result(AT_ONCE_S) == 5


def test_a_call_in_line_is_awaited_as_soon_as_it_is_sent(
    view: Told, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    view.tell(1, None)
    call = called(view)
    waiter = pool.submit(call.result)
    while not view.waited_s:
        assert not waiter.done()

    class Slow(Copy):
        def remote(self, header: str, *args: object, method: str = "serve") -> Ref:
            woken = view.waited_s = 0.0
            while view.waited_s == woken:  # whoever was woken looks too early, and waits again
                assert not waiter.done()
            return super().remote(header, *args)

    view.tell(2, "a#1", copy1=Slow(5))
    assert waiter.result(AT_ONCE_S) == 5


def test_result_gives_up_in_time_and_may_be_asked_again(view: Told) -> None:
    view.tell(1, "a#1", copy1=(copy := Copy()))
    call = called(view, timeout_s=0.01)
    with pytest.raises(CallTimeout, match=r"0\.01 s: a#1 has it"):
        call.result()
    with pytest.raises(CallTimeout):
        asyncio.run(call._follow())
    copy.sent[0].comes_to(5)
    assert call.result() == 5


def test_await_leaves_the_loop_alone_whatever_has_ended(view: Told, ray: Ray) -> None:
    async def scene() -> None:
        view.tell(1, "a#1", copy1=Copy(ActorDiedError()))
        asked = asyncio.ensure_future(called(view)._follow())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asked.done()
        view.tell(2, "a#2", copy2=(heir := Copy()))
        await asyncio.wait_for(heir.is_asked.wait(), AT_ONCE_S)
        heir.sent[0].comes_to(5)
        assert await asyncio.wait_for(asked, AT_ONCE_S) == 5

    asyncio.run(scene())
    assert (ray.waited_s, view.waited_s) == (0, 0)


@pytest.mark.parametrize("active", ["a#1", None])
def test_news_wakes_a_coroutine(view: Told, active: str | None) -> None:
    async def scene() -> None:
        view.tell(1, active, copy1=Copy())
        asked = asyncio.ensure_future(called(view)._follow())
        await asyncio.sleep(0)
        threading.Thread(target=lambda: view.tell(2, "a#2", copy2=Copy(5))).start()
        assert await asyncio.wait_for(asked, AT_ONCE_S) == 5

    asyncio.run(scene())
    assert view._wakers == {}


def test_a_loop_that_was_closed_hurts_neither_the_view_nor_ray(view: Told) -> None:
    loop = asyncio.new_event_loop()

    async def listen() -> AsyncLookout:
        return AsyncLookout(view)

    lookout = loop.run_until_complete(listen())
    loop.close()
    view.tell(1, None)
    with lookout:
        pass


def test_news_between_a_look_and_a_wait_ends_the_wait(view: Told) -> None:
    for ref in (Ref(), None):
        lookout = Lookout(view)
        view.tell(1, None)
        began = time.monotonic()
        lookout.wait(ref, LIMIT_S)
        assert time.monotonic() - began < AT_ONCE_S
        lookout.wait(ref, LOOK_AGAIN_S)  # news is news once
        assert time.monotonic() - began >= LOOK_AGAIN_S


def test_an_answer_does_not_wait_for_a_poll_to_be_dealt_with(
    view: Told, pool: concurrent.futures.ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout_module, "APPLIED_WITHIN_S", LIMIT_S)
    ref = Ref()
    view.poll_ref.comes_to(None)
    waiting = pool.submit(Lookout(view).wait, ref, LIMIT_S)
    ref.comes_to(5)
    waiting.result(AT_ONCE_S)


def test_a_poll_that_is_not_dealt_with_holds_nobody_up_for_long(view: Told) -> None:
    view.poll_ref.comes_to(None)
    began = time.monotonic()
    Lookout(view).wait(Ref(), LIMIT_S)
    assert time.monotonic() - began < AT_ONCE_S


def test_the_first_outcome_stays(view: Told) -> None:
    view.tell(1, "a#1", copy1=(first := Copy()))
    call = called(view)
    sent = call.sent
    assert sent is not None
    view.tell(2, "a#2", copy2=(second := Copy()))
    assert not call.done()
    first.sent[0].comes_to(1)
    call._take(sent, 0)
    second.sent[0].comes_to(2)
    call.cancel()
    assert call.result() == 1


def test_a_cancelled_call_is_done(view: Told) -> None:
    view.tell(1, None)
    call = called(view)
    call.cancel()
    assert call.done()
    with pytest.raises(concurrent.futures.CancelledError):
        call.result()
    view.tell(2, "a#1", copy1=(copy := Copy()))
    assert copy.sent == []


@pytest.mark.parametrize("cause", [TimeoutError("its own"), ActorDiedError()])
def test_what_an_argument_failed_with_says_nothing_of_the_copy(
    view: Told, cause: Exception
) -> None:
    failed = RayTaskError("make", "its story", cause).as_instanceof_cause()
    assert isinstance(failed, type(cause))
    view.tell(1, "a#1", copy1=Copy(failed))
    call = called(view)
    assert call.done()
    with pytest.raises(RayTaskError):
        call.result()


def test_what_cannot_be_sent_is_raised_and_stops_no_line(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy())
    with pytest.raises(TypeError, match="pickle"):
        called(view, print)
    view.tell(2, None)
    in_line, behind = called(view, print), called(view)
    view.tell(3, "a#1", copy1=Copy(5))
    assert behind.result() == 5
    with pytest.raises(TypeError, match="pickle"):
        in_line.result()


def test_wait_divides_calls_and_results_keeps_their_order(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy(1, 2))
    one, two, three = (called(view) for _ in range(3))
    assert wait([three, one, two], num_returns=2) == ([one, two], [three])
    assert wait([three], timeout_s=0.01) == ([], [three])
    assert results([two, one], timeout_s=LIMIT_S) == [2, 1]


def test_a_sending_travels_without_its_future_and_its_clock() -> None:
    sent = Sent("ref", Attempt("a#1", 1))
    sent.leave_open(Outcome.DIED)
    sent._answer = concurrent.futures.Future()
    assert pickle.loads(pickle.dumps(sent)) == Sent("ref", Attempt("a#1", 1))
    assert sent.patience_s() is None


def test_settled_returns_or_raises() -> None:
    assert Settled(None).unwrap() is None
    with pytest.raises(ValueError, match="so"):
        Settled(error=ValueError("so")).unwrap()
