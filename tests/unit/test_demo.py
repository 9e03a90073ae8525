"""The parts of the demo that need no cluster: the workload, the callers, the figures, the lines."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console

from raphub import render
from raphub.actors.attributes import local_names
from raphub.demo.figures import (
    KillFigures,
    SideFigures,
    Writes,
    checked_writes,
    duration,
    meaning,
    tables,
    written,
)
from raphub.demo.kills import Kill
from raphub.demo.show import Show
from raphub.demo.stream import Await, Stream, Tally
from raphub.demo.workload import WORDS, Answer, SearchIndex

KEPT = Writes(2104, 2100, 4, 0, 0)
WARM = SideFigures(11, 12, "node-a", "node-b", 0, 0.0312, 40.0, "warm", 9.0, 1.2, KEPT)
REBUILT = SideFigures(
    21, 22, "node-a", "node-b", 0, 15.6, 40.0, "rebuilt", -15.5, 1.1, Writes(2500, 2500, 0, 1240, 1)
)
SILENT = SideFigures(
    21, None, "node-a", None, 4, None, 20.0, "none", None, None, Writes(254, 250, 4, None, None)
)

TABLE = """\
What was measured
kill  side       gap        failed calls  index    times raphub's gap
node  raphub     31 ms      0             warm
      plain Ray  15.6 s     0             rebuilt  500 x
hang  raphub     3.2 s      0             warm
      plain Ray  over 20 s  4             none     over 6 x

Writes, compared with the state at the end
kill  side       sent   acknowledged  lost    applied twice  outcome unknown
node  raphub     2,104  2,100         0       0              4
      plain Ray  2,500  2,500         1,240   1              0
hang  raphub     2,104  2,100         0       0              4
      plain Ray  254    250           unread  unread         4

When its node was killed, raphub's other copy answered after 31 ms and the plain
actor answered after 15.6 s, its index built anew; when its process hung,
raphub's other copy answered after 3.2 s and the plain actor had not answered
after 20 s; 0 calls failed with raphub and 4 with plain Ray.
raphub acknowledged 4,200 writes: 0 lost, 0 applied twice.
Plain Ray acknowledged 2,500 writes: 1,240 lost, 1 applied twice; after 1 kill
its state could not be read."""


def test_the_figures_as_a_table_and_a_sentence() -> None:
    node = KillFigures(Kill.NODE, WARM, REBUILT)
    hang = KillFigures(Kill.HANG, replace(WARM, gap_s=3.2), SILENT)
    assert render.text(tables([node, hang])[:3]) == TABLE


def test_failed_calls_are_not_passed_over() -> None:
    one = KillFigures(Kill.WORKER, replace(WARM, failed=3), REBUILT)
    assert meaning([one]).endswith("; 3 calls failed with raphub and 0 with plain Ray.")


def test_the_figures_as_json() -> None:
    told = KillFigures(Kill.NODE, WARM, REBUILT).as_json()
    assert (told["kill"], told["ratio"]) == ("node", 500.0)
    assert told["raphub"]["gap_s"] == 0.0312
    assert told["raphub"]["writes"] == {
        "sent": 2104, "acknowledged": 2100, "unknown": 4, "lost": 0, "applied_twice": 0
    }  # fmt: skip
    assert told["plain_ray"]["new_pid"] == 22


def test_writes_are_compared_with_the_state() -> None:
    tally = Tally(sent=[2, 3, 4, 5, 9, 10], acknowledged=[2, 3, 4, 9])
    assert checked_writes(tally, bytes([9, 9, 1, 0, 2, 2])) == Writes(6, 4, 2, 2, 2)
    right = checked_writes(tally, bytes([0, 0, 1, 1, 1, 0, 0, 0, 0, 1]))
    assert right == Writes(6, 4, 2, 0, 0)
    assert right.is_right
    unread = checked_writes(tally, None)
    assert unread == Writes(6, 4, 2, None, None)
    assert not unread.is_right


def test_a_state_that_was_never_read_is_called_so() -> None:
    silent = KillFigures(Kill.HANG, WARM, SILENT)
    assert written([silent])[1] == "Plain Ray could not be asked for its state."


def test_durations_have_digits_that_mean_something() -> None:
    assert [duration(s) for s in (0.0004, 0.0312, 0.9, 1.26, 15.61)] == [
        "0 ms",
        "31 ms",
        "900 ms",
        "1.3 s",
        "15.6 s",
    ]


def test_the_index_finds_modules_and_every_copy_finds_the_same() -> None:
    one, other = SearchIndex(200), SearchIndex(200)
    for word in WORDS:
        assert one.search(word).hits == other.search(word).hits
    hit = one.search("coroutine").hits[0]
    assert hit.module.startswith("asyncio.")
    assert "coroutine" in hit.line.lower()
    assert one.search("nosuchwordanywhere").hits == []
    assert one.size()[0] == 200


def test_each_answered_question_is_noted_and_the_index_stays_with_the_copy() -> None:
    index = SearchIndex(20)
    for number in (0, 3, 3):
        assert index.answer(number, "socket").hits == index.search("socket").hits
    assert index.times() == bytes([1, 0, 0, 2])
    assert set(vars(index)) - local_names(SearchIndex) == {"_times"}


def test_a_caller_notices_a_new_process_and_a_failure() -> None:
    pids: Iterator[int] = iter([1, 1, 0, 2, 2])
    is_asked_enough = threading.Event()

    def wait(timeout_s: float) -> Answer:
        del timeout_s
        pid = next(pids, None)
        if pid is None:
            is_asked_enough.set()
            raise TimeoutError
        if pid == 0:
            raise ConnectionError("gone")
        return Answer([], pid, 0.0, 0.0)

    stream = Stream("caller", lambda number, word: wait, itertools.count())
    stream.start()
    assert is_asked_enough.wait(30)
    stream.stop()
    tally = stream.tally
    assert (tally.answered, tally.failed, tally.first_pid) == (4, 1, 1)
    assert tally.acknowledged == [0, 1, 3, 4]
    assert tally.sent[:5] == [0, 1, 2, 3, 4]
    assert [takeover.answer.pid for takeover in tally.takeovers] == [2]
    assert tally.errors == ["ConnectionError: gone"]


def test_a_question_that_could_not_be_sent_is_not_acknowledged() -> None:
    def ask(number: int, word: str) -> Await:
        if number == 1:
            raise ConnectionError(word)
        return lambda timeout_s: Answer([], 1, timeout_s, 0.0)

    stream = Stream("caller", ask, itertools.count())
    stream.start()
    assert stream.wait_for(lambda tally: tally.answered >= 3, 30)
    stream.stop()
    assert stream.tally.acknowledged[:3] == [0, 2, 3]
    assert stream.tally.sent == list(range(len(stream.tally.sent)))
    assert (stream.tally.failed, len(stream.tally.sent) - stream.tally.answered) == (1, 1)


def test_without_a_terminal_there_are_lines_without_control_characters() -> None:
    seen = io.StringIO()
    with Show(Console(file=seen, width=80)) as show:
        show.scene.title = "never drawn"
        show.step("Something begins.")
        show.after("raphub", "answers", 0.0)
        show.after("hub", "a text " * 40, 0.0)
    lines = seen.getvalue().splitlines()
    assert lines[0] == "    0.0 s  Something begins."
    assert lines[1] == "    +0 ms  raphub     answers"
    assert all(line.isprintable() and len(line) <= 80 for line in lines)
    assert len(lines) == 3
