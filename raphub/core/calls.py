"""What does a client do after a call's outcome: return, send again, wait for news, or give up?

Pure decisions of one caller about one call. A call that certainly did not run is sent again
without limit; the caller's time-out is the bound. A call that may have run is sent again only when
its copy is proved to serve no more, and at most once (law 15).

Where state is replicated, the copies know which calls have run: there a call may be sent again as
often as wanted, with the same number, and it is the copies that keep law 15.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DEATHS_MAX = 2
"""A call in whose hands so many copies died is never run again."""


class Outcome(StrEnum):
    """How one attempt of a call ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    WITHHELD = "withheld"
    DIED = "died"
    UNREACHABLE = "unreachable"


class Next(StrEnum):
    """What to do now."""

    RETURN = "return"
    RESEND = "resend"
    AWAIT_NEWS = "await_news"
    FAIL_OUTCOME_UNKNOWN = "fail_outcome_unknown"
    FAIL_KILLED_REPLICA = "fail_killed_replica"
    FAIL_TOO_FEW_IN_SYNC = "fail_too_few_in_sync"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sending of a call: to which copy, in which epoch, and how many copies died before it."""

    replica: str
    epoch: int
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class News:
    """What the pushed registry says now: the active copy and its epoch, None while there is none.

    `is_listed` tells whether the attempt's copy is still one of the child's copies.
    """

    active: str | None
    epoch: int
    is_listed: bool


def after(outcome: Outcome, attempt: Attempt, news: News, *, may_retry: bool) -> Next:
    """Decide what follows from the outcome of an attempt, given the newest news.

    REFUSED: it did not run. WITHHELD: it ran, but its copy lost its right to answer. DIED and
    UNREACHABLE: it may have run; only the first is a proof that its copy is gone.
    """
    match outcome:
        case Outcome.ANSWERED:
            return Next.RETURN
        case Outcome.REFUSED:
            return Next.RESEND if is_news(attempt, news) else Next.AWAIT_NEWS
        case Outcome.WITHHELD | Outcome.DIED | Outcome.UNREACHABLE:
            if not may_retry:
                return Next.FAIL_OUTCOME_UNKNOWN
            if is_news(attempt, news):
                is_last = attempt.deaths + 1 >= DEATHS_MAX
                return Next.FAIL_KILLED_REPLICA if is_last else Next.RESEND
            return Next.AWAIT_NEWS


def after_known_once(
    outcome: Outcome, reason: str, attempt: Attempt, news: News, *, may_retry: bool
) -> Next:
    """Decide the same about a call to a child whose state is replicated.

    `reason` is what the copy said to a REFUSED call. RESEND: in its turn, among the others of its
    lane. AWAIT_NEWS: in a while, if no news comes; an attempt that DIED or was WITHHELD needs news.
    """
    match outcome:
        case Outcome.ANSWERED:
            return Next.RETURN
        case Outcome.REFUSED:
            match reason:
                case "too_few_in_sync":
                    return Next.FAIL_TOO_FEW_IN_SYNC
                case "forgotten":
                    return Next.FAIL_OUTCOME_UNKNOWN
                case "killed":
                    return Next.FAIL_KILLED_REPLICA
                case _:
                    return Next.RESEND if is_news(attempt, news) else Next.AWAIT_NEWS
        case Outcome.WITHHELD | Outcome.DIED | Outcome.UNREACHABLE:
            if not may_retry:
                return Next.FAIL_OUTCOME_UNKNOWN
            return Next.RESEND if is_news(attempt, news) else Next.AWAIT_NEWS


def is_news(attempt: Attempt, news: News) -> bool:
    """Does the registry name another copy, or a later epoch, to send the call to?

    A later epoch is recorded only after a proof that the earlier one serves no more, and a copy
    leaves the list only when it is out.
    """
    if news.active is None:
        return False
    return news.epoch > attempt.epoch or (not news.is_listed and news.active != attempt.replica)
