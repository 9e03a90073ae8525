"""Does the judge of histories find every fault, and only faults?

A history is drawn as one line an operation: `client: a [1 2] = 1` appends `a` from 1 to 2 and is
told 1, `client: read [3 4] = 1` sees one item. `?` is an unknown outcome, `!` a refusal, and
`[3 ..]` has not ended.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from raphub.testing import (
    History,
    Operation,
    OperationKind,
    Outcome,
    Seen,
    Violation,
    ViolationKind,
    check,
)
from raphub.testing.history import digests_of, dump, load
from tests.unit.exhaustive import Step, is_linearizable

LINE = re.compile(r"(\w+): (\w+) \[(\d+) (\d+|\.\.)\](?: = (\d+)(?: of (\w+))?| ([?!]))?")


def seen(items: str) -> Seen:
    return Seen(len(items), items[-1] if items else None, digests_of(items)[-1])


def drawn(text: str, final: str) -> list[Operation]:
    """The operations of a drawing; a read sees so many of the final items, unless it says of which."""
    operations = []
    for line in text.strip().splitlines():
        found = LINE.fullmatch(line.strip())
        assert found, line
        client, what, began, ended, told, of, mark = found.groups()
        is_read = what == "read"
        outcome = {"?": Outcome.UNKNOWN, "!": Outcome.REFUSED, None: Outcome.PENDING}[mark]
        answer: int | Seen | None = None
        if told is not None:
            outcome = Outcome.ANSWERED
            answer = seen((of or final)[: int(told)]) if is_read else int(told)
        operations.append(
            Operation(
                client,
                OperationKind.READ if is_read else OperationKind.APPEND,
                None if is_read else what,
                float(began),
                None if ended == ".." else float(ended),
                outcome,
                answer,
            )
        )
    return operations


def judged(text: str, final: str) -> list[Violation]:
    """What the fast judge says, which must agree with the slow one on whether anything is wrong."""
    operations = drawn(text, final)
    found = check(operations, final)
    assert (found == []) == explained(operations, final)
    return found


def explained(operations: list[Operation], final: str) -> bool:
    """Does an order exist, says the exhaustive search? Its state is the list, as a string."""
    times = [operation.began_at for operation in operations]
    times += [operation.ended_at or 0 for operation in operations]
    after_all = max(times, default=0) + 1
    steps = [step(one) for one in operations if one.outcome is not Outcome.REFUSED]
    steps.append(Step(after_all, after_all, lambda state: state if state == final else None))
    return is_linearizable(steps, "")


def step(operation: Operation) -> Step[str]:
    is_answered = operation.outcome is Outcome.ANSWERED

    def apply(state: str) -> str | None:
        after = state + (operation.item or "")
        answer = seen(after) if operation.item is None else len(after)
        return after if not is_answered or answer == operation.answer else None

    return Step(operation.began_at, operation.ended_at if is_answered else None, apply)


# --- what is impossible -----------------------------------------------------------------------

BAD = {
    "an acknowledged write is gone": (
        "x: a [1 2] = 1\n x: b [3 4] = 2\n x: c [5 6] = 2",
        "ac",
        {ViolationKind.LOST_WRITE},
    ),
    "the last acknowledged write is gone": (
        "x: a [1 2] = 1\n x: b [3 4] = 2",
        "a",
        {ViolationKind.LOST_WRITE},
    ),
    "a retried write is applied twice": (
        "x: a [1 2] = 1\n x: b [3 4] = 3",
        "aab",
        {ViolationKind.DOUBLED_WRITE},
    ),
    "an unknown write is applied twice": (
        "x: a [1 2] ?\n y: b [1 4] = 2",
        "aba",
        {ViolationKind.DOUBLED_WRITE},
    ),
    "a read does not see what was acknowledged before it": (
        "x: a [1 2] = 1\n x: b [3 4] = 2\n y: read [5 6] = 1",
        "ab",
        {ViolationKind.STALE_READ},
    ),
    "the second read sees less than the first": (
        "x: a [1 9] = 1\n y: read [2 3] = 1\n z: read [4 5] = 0",
        "a",
        {ViolationKind.READ_WENT_BACK},
    ),
    "the later write comes first": (
        "x: a [1 2] = 2\n y: b [3 4] = 1",
        "ba",
        {ViolationKind.ORDER_REVERSED},
    ),
    "a write of unknown outcome is applied before it was sent": (
        "x: a [1 2] = 2\n y: b [3 4] ?",
        "ba",
        {ViolationKind.ORDER_REVERSED},
    ),
    "an item that nobody sent": (
        "x: a [1 2] = 1",
        "az",
        {ViolationKind.PHANTOM_ITEM},
    ),
    "two writes are told the same place": (
        "x: a [1 2] = 1\n y: b [1 2] = 1",
        "ab",
        {ViolationKind.WRONG_INDEX},
    ),
    "a refused write is applied": (
        "x: a [1 2] !\n y: b [3 4] = 2",
        "ab",
        {ViolationKind.REFUSED_YET_APPLIED},
    ),
    "a read sees a write that is lost later": (
        "x: a [1 2] = 1\n x: b [3 ..]\n y: read [4 5] = 2 of ab\n x: c [6 7] = 2",
        "ac",
        {ViolationKind.FORKED_READ},
    ),
    "a read sees more than there is": (
        "x: a [1 2] = 1\n x: b [3 ..]\n y: read [4 5] = 2 of ab",
        "a",
        {ViolationKind.FORKED_READ},
    ),
    "a read sees a write before it was sent": (
        "x: read [1 2] = 1\n x: a [3 4] = 1",
        "a",
        {ViolationKind.READ_AHEAD},
    ),
    "two heads go on apart, and one wins": (
        "x: a [1 2] = 1\n x: b [3 4] = 2\n y: c [3 4] = 2\n y: read [5 6] = 2 of ac",
        "ab",
        {ViolationKind.LOST_WRITE, ViolationKind.FORKED_READ},
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_impossible(name: str) -> None:
    text, final, kinds = BAD[name]
    found = judged(text, final)
    assert {violation.kind for violation in found} == kinds
    for violation in found:
        assert str(violation).startswith(violation.kind)
        assert "\n" not in violation.text
        assert all(str(operation) in violation.text for operation in violation.operations)


# --- what is possible -------------------------------------------------------------------------

GOOD = {
    "nothing happened": ("", ""),
    "one after the other": (
        "x: a [1 2] = 1\n y: read [3 4] = 1\n x: b [5 6] = 2\n y: read [7 8] = 2",
        "ab",
    ),
    "at the same time, in either order": ("x: a [1 4] = 2\n y: b [2 3] = 1", "ba"),
    "ends when the other begins": ("x: a [1 2] = 2\n y: b [2 3] = 1", "ba"),
    "an unknown write that was applied": ("x: a [1 2] ?\n y: b [3 4] = 2", "ab"),
    "an unknown write that was applied long after": ("x: a [1 2] ?\n y: b [3 4] = 1", "ba"),
    "an unknown write that was not applied": ("x: a [1 2] ?\n y: b [3 4] = 1", "b"),
    "a pending write that was applied": ("x: a [1 ..]\n y: b [3 4] = 2", "ab"),
    "a pending write that was applied last": ("x: a [1 ..]\n y: b [3 4] = 1", "ba"),
    "a pending write that was not applied": ("x: a [1 ..]\n y: b [3 4] = 1", "b"),
    "a pending write that was seen": ("x: a [1 ..]\n y: read [3 4] = 1", "a"),
    "pending, unknown and refused reads": (
        "x: read [1 ..]\n y: read [1 2] ?\n z: read [1 2] !",
        "",
    ),
    "a refused write that was not applied": ("x: a [1 2] !\n y: b [3 4] = 1", "b"),
    "reads beside a write see it or not": (
        "x: a [1 9] = 1\n y: read [2 6] = 1\n z: read [3 5] = 0",
        "a",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_possible(name: str) -> None:
    text, final = GOOD[name]
    assert judged(text, final) == []


def test_a_read_is_believed_only_if_all_of_it_fits() -> None:
    [append, read] = drawn("x: a [1 2] = 1\n y: read [3 4] = 1", "a")
    for wrong in (Seen(1, "b", seen("a").digest), Seen(1, "a", "0"), Seen(-1, None, "")):
        operations = [append, replace(read, answer=wrong)]
        assert [v.kind for v in check(operations, "a")] == [ViolationKind.FORKED_READ]
        assert not explained(operations, "a")


def test_an_item_sent_twice_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="'a' was sent twice, by x and by y"):
        check(drawn("x: a [1 2] = 1\n y: a [3 4] = 2", "aa"), "aa")


# --- both judges ------------------------------------------------------------------------------

ITEMS = "abcdef"
TIME_MAX = 12


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[Operation], str]:
    """Clients of one real list: each operation takes effect at an instant, or not at all."""
    count = draw(st.integers(1, len(ITEMS)))
    acts = []
    for item in ITEMS[:count]:
        begin, effect, end = sorted(draw(st.tuples(*[st.integers(0, TIME_MAX)] * 3)))
        fate = draw(st.sampled_from("aaaarrruvn!"))
        acts.append((effect, item, begin, end, fate))
    state, operations = "", []
    for _, item, begin, end, fate in sorted(acts):
        is_read = fate == "r"
        if fate in "auv":
            state += item
        outcome = {"!": Outcome.REFUSED, "u": Outcome.UNKNOWN, "n": Outcome.UNKNOWN}.get(
            fate, Outcome.PENDING if fate == "v" else Outcome.ANSWERED
        )
        answer = (seen(state) if is_read else len(state)) if outcome is Outcome.ANSWERED else None
        operations.append(
            Operation(
                "x",
                OperationKind.READ if is_read else OperationKind.APPEND,
                None if is_read else item,
                begin,
                None if fate == "v" else end,
                outcome,
                answer,
            )
        )
    return draw(st.permutations(operations)), state


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[list[Operation], str]:
    """The same, and then somebody changed what was written down: mostly, but not always, a lie."""
    operations, final = draw(lives())
    for _ in range(draw(st.integers(1, 2))):
        number = draw(st.integers(0, len(operations) - 1))
        way = draw(st.sampled_from([*CHANGES_OF_LIST, *CHANGES_OF_ONE]))
        at, by = draw(st.integers(0, len(ITEMS))), draw(st.integers(-TIME_MAX, TIME_MAX))
        if way in CHANGES_OF_LIST:
            final = CHANGES_OF_LIST[way](final, at)
        else:
            operations[number] = CHANGES_OF_ONE[way](operations[number], final, at, by)
    return operations, final


CHANGES_OF_LIST: dict[str, Callable[[str, int], str]] = {
    "drop": lambda final, at: final[:at] + final[at + 1 :],
    "double": lambda final, at: final[:at] + final[at : at + 1] * 2 + final[at + 1 :],
    "repeat at the end": lambda final, at: final + final[at : at + 1],
    "swap": lambda final, at: final[:at] + final[at : at + 2][::-1] + final[at + 2 :],
    "invent": lambda final, at: final[:at] + "z" + final[at:],
}


def moved(operation: Operation, final: str, at: int, by: int) -> Operation:
    ended = None if operation.ended_at is None else operation.ended_at + by
    return replace(operation, began_at=operation.began_at + by, ended_at=ended)


def told_otherwise(operation: Operation, final: str, at: int, by: int) -> Operation:
    if operation.outcome is not Outcome.ANSWERED:
        return operation
    if operation.item is not None:
        return replace(operation, answer=at)
    return replace(operation, answer=seen(final[:at] if by > 0 else ITEMS[:at]))


def refused(operation: Operation, final: str, at: int, by: int) -> Operation:
    return replace(operation, outcome=Outcome.REFUSED, answer=None)


def answered(operation: Operation, final: str, at: int, by: int) -> Operation:
    if operation.outcome is Outcome.ANSWERED:
        return operation
    end = operation.began_at + abs(by)
    answer = seen(final[:at]) if operation.item is None else at
    return replace(operation, ended_at=end, outcome=Outcome.ANSWERED, answer=answer)


CHANGES_OF_ONE: dict[str, Callable[[Operation, str, int, int], Operation]] = {
    "move": moved,
    "tell otherwise": told_otherwise,
    "refuse": refused,
    "answer": answered,
}


@st.composite
def scrambled(draw: st.DrawFn) -> tuple[list[Operation], str]:
    """Every answer fits the list; whether it also fits the times is left to chance."""
    final = "".join(draw(st.permutations(ITEMS[: draw(st.integers(1, 5))])))
    begins, lengths = st.integers(0, TIME_MAX), st.integers(0, 5)
    operations = []
    for place in range(1, draw(st.integers(len(final), len(ITEMS))) + 1):
        begin, length = draw(begins), draw(lengths)
        item = final[place - 1] if place <= len(final) else None
        kind = OperationKind.READ if item is None else OperationKind.APPEND
        outcome = draw(st.sampled_from([*[Outcome.ANSWERED] * 4, Outcome.UNKNOWN]))
        answer = None
        if outcome is Outcome.ANSWERED:
            answer = seen(final[: draw(lengths)]) if item is None else place
        operations.append(Operation("x", kind, item, begin, begin + length, outcome, answer))
    return operations, final


@settings(max_examples=2000, deadline=None)
@given(lives())
def test_what_one_list_answers_is_accepted_by_both(life: tuple[list[Operation], str]) -> None:
    operations, final = life
    assert check(operations, final) == []
    assert explained(operations, final)


@settings(max_examples=4000, deadline=None)
@given(spoilt() | scrambled())
def test_both_agree_on_what_may_be_a_lie(life: tuple[list[Operation], str]) -> None:
    operations, final = life
    found = check(operations, final)
    for violation in found:
        event(violation.kind)
    assert (found == []) == explained(operations, final), [str(one) for one in found]


# --- recording --------------------------------------------------------------------------------


def test_a_history_records_what_was_said_and_when() -> None:
    history = History(clock=itertools.count(1).__next__)
    with history.begin_append("x", "a") as recording:
        recording.answered(1)
    with pytest.raises(LookupError), history.begin_append("x", "b"):
        raise LookupError
    with history.begin_read("y") as recording:
        recording.answered((1, "a", digests_of("a")[1]))
    history.begin_append("y", "c").refused()
    history.begin_append("z", "d")
    assert history.operations == drawn(
        "x: a [1 2] = 1\n x: b [3 4] ?\n y: read [5 6] = 1\n y: c [7 8] !\n z: d [9 ..]", "a"
    )
    assert check(history, "a") == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"item": None}, ValueError),
        ({"kind": OperationKind.READ}, ValueError),
        ({"answer": None}, TypeError),
        ({"answer": seen("a")}, TypeError),
        ({"kind": OperationKind.READ, "item": None}, TypeError),
        ({"ended_at": None}, ValueError),
        ({"outcome": Outcome.REFUSED}, ValueError),
    ],
)
def test_an_operation_that_makes_no_sense_is_refused(
    changes: dict[str, Any], error: type[Exception]
) -> None:
    [append] = drawn("x: a [1 2] = 1", "a")
    with pytest.raises(error):
        replace(append, **changes)


def test_an_operation_ends_once() -> None:
    recording = History().begin_append("x", "a")
    recording.unknown()
    with pytest.raises(RuntimeError, match="ended already"):
        recording.answered(1)


def test_many_threads_record_into_one_history() -> None:
    history, lock, items = History(), threading.Lock(), list[str]()

    def write(client: str) -> None:
        for number in range(200):
            with history.begin_append(client, f"{client}-{number}") as recording, lock:
                items.append(f"{client}-{number}")
                recording.answered(len(items))

    threads = [threading.Thread(target=write, args=(f"c{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(history) == 800
    assert check(history, items) == []
    assert [v.kind for v in check(history, items[:-1])] == [ViolationKind.LOST_WRITE]


def test_a_file_brings_back_the_same_history(tmp_path: Path) -> None:
    text = "x: a [1 2] = 1\n y: read [3 4] = 1\n x: b [5 6] ?\n x: c [7 8] !\n x: d [9 ..]"
    operations = drawn(text, "a")
    path = tmp_path / "history.jsonl"
    dump(History(operations), path, ["a"])
    history, final = load(path)
    assert (history.operations, final) == (operations, ["a"])
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["item"] == "a"
    dump(History(operations), path)
    assert load(path)[1] is None


def test_a_long_history_is_judged_in_one_sweep() -> None:
    """Every client overlaps every other one: a judge that looks at pairs would never end."""
    count = 50_000
    items = [f"i{n}" for n in range(count)]
    operations = [
        Operation("x", OperationKind.APPEND, item, 0.0, float(n + 1), Outcome.ANSWERED, n + 1)
        for n, item in enumerate(items)
    ]
    assert check(operations, items) == []
