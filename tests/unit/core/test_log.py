"""Which writes does a copy hold: order, places, and what may be forgotten."""

from __future__ import annotations

import pytest

from raphub.core.log import START, Log, Position, Write


def entry(epoch: int, seq: int, size: int = 10) -> Write:
    return Write(Position(epoch, seq), "c", seq, 1, None, None, 0, size)


def filled(count: int, size: int = 10) -> Log:
    log = Log()
    for seq in range(1, count + 1):
        log.append(entry(1, seq, size))
    return log


def test_the_tail_is_the_last_write_or_else_the_floor() -> None:
    log = Log(Position(3, 7))
    assert log.tail == Position(3, 7)
    log.append(entry(4, 8))
    assert log.tail == Position(4, 8)


def test_a_gap_and_an_older_epoch_are_refused() -> None:
    log = filled(2)
    with pytest.raises(AssertionError, match="cannot follow"):
        log.append(entry(1, 4))
    log.append(entry(5, 3))
    with pytest.raises(AssertionError, match="is older than"):
        log.append(entry(4, 4))


def test_a_place_is_held_only_with_its_epoch() -> None:
    log = filled(3)
    assert log.holds(START)
    assert log.holds(Position(1, 3))
    assert not log.holds(Position(2, 3))
    assert not log.holds(Position(1, 4))


def test_what_follows_is_bounded_by_bytes_but_never_nothing() -> None:
    log = filled(5)
    assert [e.position.seq for e in log.after(2)] == [3, 4, 5]
    assert [e.position.seq for e in log.after(2, 25)] == [3, 4]
    assert [e.position.seq for e in log.after(2, 1)] == [3]
    assert log.after(5) == ()


def test_cutting_drops_the_end_and_its_bytes() -> None:
    log = filled(5)
    log.cut_after(3)
    assert (log.tail, log.size) == (Position(1, 3), 30)
    log.cut_after(0)
    assert (log.tail, log.size) == (START, 0)


def test_trimming_keeps_what_is_still_needed_however_much_that_is() -> None:
    log = filled(100)
    log.trim(60, entries_max=10, bytes_max=10**9)
    assert log.floor == Position(1, 60)
    assert log.size == 400
    log.trim(100, entries_max=10, bytes_max=10**9)
    assert log.floor == Position(1, 90)


def test_trimming_heeds_the_bytes_and_waits_for_a_bulk() -> None:
    log = filled(100, size=1000)
    log.trim(100, entries_max=99, bytes_max=10**9)
    assert log.floor == START
    log.trim(100, entries_max=99, bytes_max=20_000)
    assert log.size == 20_000
    assert log.tail == Position(1, 100)
