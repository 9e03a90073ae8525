"""What a client does after each outcome, the whole table."""

from __future__ import annotations

import pytest

from raphub.core.calls import Attempt, News, Next, Outcome, after, after_known_once

SAME = News("c#1", 1, is_listed=True)
PROMOTED = News("c#2", 2, is_listed=False)
NOBODY = News(None, 1, is_listed=False)
REPLACED = News("c#3", 1, is_listed=False)
MAY_HAVE_RUN = (Outcome.DIED, Outcome.UNREACHABLE, Outcome.WITHHELD)


def test_an_answer_is_returned() -> None:
    assert after(Outcome.ANSWERED, Attempt("c#1", 1), NOBODY, may_retry=False) is Next.RETURN


@pytest.mark.parametrize("may_retry", [True, False])
def test_a_refused_call_did_not_run_and_is_sent_again_whoever_asks(may_retry: bool) -> None:
    first = Attempt("c#1", 1)
    assert after(Outcome.REFUSED, first, PROMOTED, may_retry=may_retry) is Next.RESEND
    assert after(Outcome.REFUSED, first, SAME, may_retry=may_retry) is Next.AWAIT_NEWS
    assert after(Outcome.REFUSED, first, NOBODY, may_retry=may_retry) is Next.AWAIT_NEWS


@pytest.mark.parametrize("outcome", MAY_HAVE_RUN)
def test_a_call_that_may_have_run_is_sent_again_only_on_a_later_epoch_or_another_copy(
    outcome: Outcome,
) -> None:
    first = Attempt("c#1", 1)
    assert after(outcome, first, SAME, may_retry=True) is Next.AWAIT_NEWS
    assert after(outcome, first, NOBODY, may_retry=True) is Next.AWAIT_NEWS
    assert after(outcome, first, PROMOTED, may_retry=True) is Next.RESEND
    assert after(outcome, first, REPLACED, may_retry=True) is Next.RESEND


@pytest.mark.parametrize("outcome", MAY_HAVE_RUN)
def test_a_call_in_whose_hands_two_copies_died_is_never_run_again(outcome: Outcome) -> None:
    second = Attempt("c#1", 1, deaths=1)
    assert after(outcome, second, PROMOTED, may_retry=True) is Next.FAIL_KILLED_REPLICA


@pytest.mark.parametrize("outcome", MAY_HAVE_RUN)
def test_without_retry_the_outcome_is_unknown(outcome: Outcome) -> None:
    first = Attempt("c#1", 1)
    assert after(outcome, first, PROMOTED, may_retry=False) is Next.FAIL_OUTCOME_UNKNOWN


@pytest.mark.parametrize(
    ("reason", "decided"),
    [
        ("too_few_in_sync", Next.FAIL_TOO_FEW_IN_SYNC),
        ("forgotten", Next.FAIL_OUTCOME_UNKNOWN),
        ("killed", Next.FAIL_KILLED_REPLICA),
    ],
)
def test_some_refusals_by_a_copy_that_knows_are_final(reason: str, decided: Next) -> None:
    for news in (SAME, NOBODY, PROMOTED, REPLACED):
        first = Attempt("c#1", 1)
        assert after_known_once(Outcome.REFUSED, reason, first, news, may_retry=True) is decided


@pytest.mark.parametrize("outcome", [*MAY_HAVE_RUN, Outcome.REFUSED])
def test_where_copies_know_what_ran_a_call_is_sent_again_without_limit(outcome: Outcome) -> None:
    often = Attempt("c#1", 1, deaths=9)
    for reason in ("not_open", "awaits_copy", "out_of_order", "not_active", "stale", "wait", ""):
        for news, decided in (
            (SAME, Next.AWAIT_NEWS),
            (NOBODY, Next.AWAIT_NEWS),
            (PROMOTED, Next.RESEND),
            (REPLACED, Next.RESEND),
        ):
            assert after_known_once(outcome, reason, often, news, may_retry=True) is decided


def test_where_copies_know_what_ran_only_a_call_that_must_not_be_retried_is_given_up() -> None:
    first = Attempt("c#1", 1)
    for outcome in MAY_HAVE_RUN:
        decided = after_known_once(outcome, "", first, PROMOTED, may_retry=False)
        assert decided is Next.FAIL_OUTCOME_UNKNOWN
    assert after_known_once(Outcome.REFUSED, "stale", first, PROMOTED, may_retry=False) is (
        Next.RESEND
    )
    assert after_known_once(Outcome.ANSWERED, "", first, NOBODY, may_retry=False) is Next.RETURN
