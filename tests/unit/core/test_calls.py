"""What a client does after each outcome, the whole table."""

from __future__ import annotations

import pytest

from raphub.core.calls import Attempt, News, Next, Outcome, after

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
