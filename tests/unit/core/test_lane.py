"""In which order does one process call one child?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raphub.core.calls import Attempt
from raphub.core.lane import Lane

FIRST, SECOND = Attempt("a#1", 1), Attempt("a#2", 2)


def test_numbers_below_the_first_unsettled_call_are_settled() -> None:
    lane = Lane()
    assert lane.settled_below == 1
    one, two, three = (lane.open(is_read=False) for _ in range(3))
    lane.settle(two)
    assert lane.settled_below == one
    lane.settle(one)
    assert lane.settled_below == three
    lane.settle(three)
    assert lane.settled_below == three + 1


def test_a_write_stands_behind_the_last_unsettled_write() -> None:
    lane = Lane()
    one, _, three = lane.open(is_read=False), lane.open(is_read=True), lane.open(is_read=False)
    assert lane.write_before(three) == one
    assert lane.write_before(one) == 0
    lane.settle(one)
    assert lane.write_before(three) == 0


def test_another_active_gets_everything_unsettled_in_order() -> None:
    lane = Lane()
    numbers = [lane.open(is_read=False) for _ in range(3)]
    for number in numbers:
        lane.sent(number, FIRST)
    lane.settle(numbers[1])
    assert lane.outdated(1) == []
    assert lane.outdated(2) == [numbers[0], numbers[2]]
    for number in reversed(lane.outdated(2)):
        lane.hold(number)
    assert lane.due() == [numbers[0], numbers[2]]
    lane.sent(numbers[0], SECOND)
    assert lane.waiting[numbers[0]].tries == 2
    assert lane.due() == [numbers[2]]


def test_what_is_settled_is_neither_held_nor_due() -> None:
    lane = Lane()
    number = lane.open(is_read=True)
    lane.settle(number)
    lane.hold(number)
    lane.settle(number)
    assert lane.due() == []


def test_a_call_knows_the_write_before_it_whatever_was_settled_since() -> None:
    lane = Lane()
    one, two = lane.open(is_read=False), lane.open(is_read=False)
    read = lane.open(is_read=True)
    three = lane.open(is_read=False)
    assert [lane.write_before(n) for n in (one, two, read, three)] == [0, one, two, two]
    assert lane.due_after() == [(one, 0), (two, one), (read, two), (three, two)]
    lane.settle(two)
    assert [lane.write_before(n) for n in (one, read, three)] == [0, one, one]
    lane.settle(one)
    assert lane.due_after() == [(read, 0), (three, 0)]
    assert lane.write_before(lane.open(is_read=True)) == three


def test_only_an_attempt_that_may_have_run_makes_a_retry() -> None:
    lane = Lane()
    number = lane.open(is_read=False)
    lane.sent(number, FIRST)
    lane.hold(number, did_not_run=True)
    assert not lane.waiting[number].may_have_run
    lane.sent(number, FIRST)
    lane.hold(number)
    lane.sent(number, SECOND)
    lane.hold(number, did_not_run=True)
    assert lane.waiting[number].may_have_run


@given(st.lists(st.tuples(st.sampled_from("ows"), st.integers(0, 5)), max_size=60))
def test_what_is_kept_for_speed_agrees_with_what_is_waiting(steps: list[tuple[str, int]]) -> None:
    lane = Lane()
    for step, which in steps:
        if step != "s":
            number = lane.open(is_read=step == "o")
            writes = [w.number for w in lane.waiting.values() if not w.is_read]
            assert lane.write_before(number) == max((w for w in writes if w < number), default=0)
            if which:
                lane.sent(number, FIRST)
        elif lane.waiting:
            lane.settle(list(lane.waiting)[which % len(lane.waiting)])
        assert lane.settled_below == min(lane.waiting, default=lane.last_number + 1)
        assert lane.due() == [w.number for w in lane.waiting.values() if w.attempt is None]
        assert lane.due_after() == [(n, lane.write_before(n)) for n in lane.due()]


def test_a_call_costs_the_same_however_many_are_waiting() -> None:
    lane = Lane()
    for _ in range(100_000):
        number = lane.open(is_read=False)
        lane.write_before(number)
        lane.sent(number, FIRST)
    for number in range(1, 100_000):
        lane.settle(number)
        assert lane.settled_below == number + 1
    for _ in range(10_000):
        number = lane.open(is_read=False)
        assert lane.write_before(number) == number - 1
        lane.settle(number - 1)
