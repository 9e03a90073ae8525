"""Has this call been answered before, and what of that may be forgotten?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raphub.core.dedup import AnswerBounds, AnswerTable, Verdict
from raphub.core.log import Position, Write


def entry(seq: int, client: str, number: int, settled_below: int = 1, size: int = 1) -> Write:
    return Write(Position(1, seq), client, number, settled_below, f"{client}{number}", None, size)


def test_a_first_call_is_new_and_a_second_one_gets_the_same_answer() -> None:
    table = AnswerTable(AnswerBounds())
    assert table.look_up("a", 1, is_retry=True) == (Verdict.NEW, None)
    table.add(entry(1, "a", 1))
    verdict, kept = table.look_up("a", 1, is_retry=False)
    assert verdict is Verdict.ANSWERED
    assert kept is not None
    assert (kept.answer, kept.seq) == ("a1", 1)


def test_what_the_client_has_settled_is_dropped_and_never_runs_again() -> None:
    table = AnswerTable(AnswerBounds())
    table.add(entry(1, "a", 1))
    table.add(entry(2, "a", 2))
    table.add(entry(3, "a", 3, settled_below=3))
    assert list(table.clients["a"].kept) == [3]
    assert table.look_up("a", 2, is_retry=False)[0] is Verdict.FORGOTTEN
    assert table.look_up("a", 4, is_retry=False)[0] is Verdict.NEW


def test_an_answer_that_is_too_large_is_known_to_have_been_given() -> None:
    table = AnswerTable(AnswerBounds(answer_bytes_max=10))
    table.add(entry(1, "a", 1, size=11))
    assert table.look_up("a", 1, is_retry=True) == (Verdict.FORGOTTEN, None)
    assert table.clients["a"].size == 0


def test_the_oldest_answers_of_one_client_go_first() -> None:
    table = AnswerTable(AnswerBounds(per_client_max=2))
    for number in (1, 2, 3):
        table.add(entry(number, "a", number))
    assert table.look_up("a", 1, is_retry=True)[0] is Verdict.FORGOTTEN
    assert table.look_up("a", 2, is_retry=True)[0] is Verdict.ANSWERED
    table = AnswerTable(AnswerBounds(client_bytes_max=10))
    for number in (1, 2):
        table.add(entry(number, "a", number, size=8))
    assert list(table.clients["a"].kept) == [2]


def test_after_an_eviction_only_a_retry_of_an_unknown_client_is_doubted() -> None:
    table = AnswerTable(AnswerBounds(clients_max=2))
    for seq, client in enumerate("abac", 1):
        table.add(entry(seq, client, seq))
    assert list(table.clients) == ["a", "c"]
    assert table.look_up("b", 2, is_retry=True)[0] is Verdict.FORGOTTEN
    assert table.look_up("new", 1, is_retry=False)[0] is Verdict.NEW


def test_a_write_that_nobody_asked_for_leaves_no_answer() -> None:
    table = AnswerTable(AnswerBounds())
    table.add(entry(1, "", 0))
    assert not table.clients


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(1, 9), st.integers(1, 9), st.integers(0, 9)),
        max_size=40,
    )
)
def test_a_restored_table_is_the_same_for_ever(calls: list[tuple[str, int, int, int]]) -> None:
    bounds = AnswerBounds(
        clients_max=3, per_client_max=3, answer_bytes_max=8, client_bytes_max=12, bytes_max=20
    )
    one = AnswerTable(bounds)
    for cut in range(len(calls) + 1):
        other = AnswerTable(bounds)
        other.restore(one.kept())
        assert other == one
        assert list(other.clients) == list(one.clients)
        if cut < len(calls):
            client, number, settled_below, size = calls[cut]
            for table in (one, other):
                table.add(entry(cut + 1, client, number, min(settled_below, number), size))
            assert other.clients == one.clients
            known = one.clients[client]
            assert known.size == sum(kept.size for kept in known.kept.values())
