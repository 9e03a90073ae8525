"""In which order does one process call one child?"""

from __future__ import annotations

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
