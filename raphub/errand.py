"""How does one call reach whoever serves, and what follows from what becomes of it?

A call is one Ray call to the active copy, and perhaps another one to the next active. Nobody is
asked where to send it: the pushed registry says so. What has become of a sending is told by `sent`,
what follows from it is decided by `core.calls`; nothing here ever waits.

Where state is replicated, calls stand in a lane (`lanes`), which sends them, in order and again. A
call in no lane sends itself: where each copy has its own state, when it reads from a passive, and
when it has travelled to another process, where it goes on under the name that its lane gave it.
"""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from raphub import context
from raphub.actors import calling
from raphub.actors.calling import Header
from raphub.call_options import CallOptions
from raphub.caller import client_id
from raphub.core import calls
from raphub.core.calls import Attempt, Next, Outcome
from raphub.core.model import Health, ReplicaId
from raphub.errors import (
    CallKilledReplica,
    CallOutcomeUnknown,
    NoActiveReplica,
    NotEnoughInSync,
)
from raphub.known import Known
from raphub.lanes import CallLane
from raphub.registry_view import RegistryView, hopeless
from raphub.sent import Sent, Settled

_HOPELESS = (Health.STOPPED, Health.LOST)

_numbers = itertools.count(1)
_turns = itertools.count()


class Errand:
    """One call under way, whether anybody waits for it or not. Safe for all threads."""

    def __init__(
        self,
        view: RegistryView,
        child_id: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
        target: ReplicaId | None = None,
    ) -> None:
        """Send it, or stand in line until there is an active. `target` names one copy for ever."""
        self.child_id = child_id
        self.method = method
        self.is_map = options.is_map
        self.sent: Sent | None = None
        self._view = view
        self._args, self._kwargs = args, kwargs
        self._options = options
        self._target = target
        self._running = context.running_call()
        self._lane: CallLane | None = None
        self._client = ""
        self._number = next(_numbers)
        self._after = 0
        self._is_alone = False
        self._is_aside = False
        self._is_retry = False
        self._deaths = 0
        self._outcome: Settled | None = None
        self._lock = threading.Lock()
        self._created_at = time.monotonic()
        if view.outbox.holds(child_id) or not self._send():
            view.outbox.add(self)

    # --- sending ------------------------------------------------------------------------------

    def try_send(self) -> bool:
        """Leave the line: True if it was sent or need not be, False while nobody serves.

        What hinders the sending, such as an argument that does not pickle, is raised by `result`.
        """
        try:
            return self._outcome is not None or self._send()
        except Exception as error:  # noqa: BLE001 - the line moves on, and the view's thread lives
            self.fail(error)
            return True

    def _send(self) -> bool:
        """Send it to whoever serves, if anybody, or give it to its lane."""
        known = self._view.known(self.child_id)
        if known is None:
            return False
        if self._options.read_from != "active":
            self._options.check_read(known, self.method)
        if self._target is not None:
            replica, epoch = self._target, calling.ANY_ROLE
            if replica not in known.serve:
                self.fail(NoActiveReplica(f"the copy {replica} is not there any more."))
                return True
        elif known.is_replicated and not self._is_alone:
            return self._begin(known)
        elif known.serving:
            replica = known.serving[next(_turns) % len(known.serving)]
            epoch = known.view.epoch
        else:
            return False
        header = Header(
            self._client or client_id(),
            self._number,
            epoch,
            self.method,
            after=self._after,
            is_retry=self._is_retry,
            is_map=self.is_map,
        )
        self.transmit(known.serve[replica], header, Attempt(replica, epoch, self._deaths))
        return True

    def _begin(self, known: Known) -> bool:
        """Begin a call to a child whose state is replicated: in its lane, or alone and aside."""
        if self._options.read_from == "active":
            self._lane = self._view.lanes.lane(self.child_id, self._running)
            self._lane.enter(self, known, is_read=self.method in known.read_only)
            return True
        self._is_alone = True
        readers = self._options.readers(known)
        if not readers:
            return self._send()
        replica, epoch = readers[next(_turns) % len(readers)], known.view.epoch
        lag = self._options.max_lag_writes
        header = Header(
            client_id(),
            self._number,
            epoch,
            self.method,
            is_map=self.is_map,
            max_lag_writes=calling.ANY_LAG if lag is None else lag,
        )
        self._is_aside = True
        self.transmit(known.handles[replica].read, header, Attempt(replica, epoch))
        return True

    def place(self, client: str, number: int, after: int) -> None:
        """Its lane names it: whoever asks for this number of this client asks for its answer."""
        self._client, self._number, self._after = client, number, after

    def transmit(self, remote: Any, header: Header, attempt: Attempt) -> None:  # noqa: ANN401 - Ray's
        """Leave this process. The one place where calls do; raises what hinders it."""
        packed, apart = header.packed_with(self._args, self._kwargs)
        ref = remote.remote(packed, *apart, **self._kwargs)
        self.sent = Sent(ref, attempt)

    def _resend(self, sent: Sent, deaths: int = 0) -> None:
        """Send it again, in line behind nobody: it is older than whatever stands in line."""
        with self._lock:
            if self.sent is not sent or self._outcome is not None:
                return
            self._deaths, self.sent, self._is_aside = deaths, None, False
        if not self.try_send():
            self._view.outbox.add(self)

    # --- looking ------------------------------------------------------------------------------

    def look(self) -> bool:
        """Act on an answer, an end or news, if there is any, and never wait; is it settled now?"""
        sent = self.sent
        if self._outcome is not None:
            return True
        if sent is None:
            self._check_hope()
        elif sent.ended is not None:
            self._conclude(sent, sent.ended)
        else:
            # In this order: a copy that serves no more may have left its answer before.
            is_overtaken = self._is_overtaken(sent)
            self._take(sent, 0)
            if is_overtaken:
                self.overtaken(sent)
        if self._lane is not None and self.sent is None and self._outcome is None:
            self._lane.press()
        return self._outcome is not None

    def done(self) -> bool:
        """Is the answer, or the exception, there? Never waits.

        Asked again and again, it follows the child through failovers as a waiting caller does.
        """
        is_settled = self.look()
        if not is_settled and self.sent is not None:
            self.sent.answer()
        return is_settled

    def overtaken(self, sent: Sent) -> None:
        """Another copy serves, and this sending has brought nothing."""
        self._conclude(sent, Outcome.DIED)

    @property
    def is_settled(self) -> bool:
        """Has it its outcome?"""
        return self._outcome is not None

    def _check_hope(self) -> None:
        """Fail a call that nobody will ever serve."""
        error = hopeless(self._view, self.child_id, time.monotonic() - self._created_at)
        if error is not None:
            self.fail(error)

    def _is_overtaken(self, sent: Sent) -> bool:
        """Does the registry say that the copy which has the call serves no more?"""
        known = self._view.known(self.child_id)
        if known is None:
            return self._view.was_seen(self.child_id)
        if self._target is not None:
            return self._target not in known.handles
        return calls.is_news(sent.attempt, known.news(sent.attempt))

    def _take(self, sent: Sent, limit_s: float) -> None:
        """Look for the answer of this sending for so many seconds, and act on it."""
        found = sent.look(limit_s)
        if isinstance(found, Settled):
            self._settle(found)
        elif found is not None:
            self._conclude(sent, found)

    # --- concluding ---------------------------------------------------------------------------

    def _conclude(self, sent: Sent, outcome: Outcome) -> None:
        """Do what `core.calls` decides after a sending without an answer."""
        if self.sent is not sent or self._outcome is not None:
            return
        known = self._view.known(self.child_id)
        if known is None or self._target is not None:
            self._fail_unknown(sent, outcome)
            return
        if known.is_replicated:
            self._conclude_known_once(sent, outcome, known)
            return
        news = known.news(sent.attempt)
        match calls.after(outcome, sent.attempt, news, may_retry=self._options.retry):
            case Next.RESEND:
                died = outcome is not Outcome.REFUSED
                self._resend(sent, sent.attempt.deaths + died)
            case Next.AWAIT_NEWS:
                self._await_news(sent, outcome, known)
            case Next.FAIL_OUTCOME_UNKNOWN:
                self._fail_unknown(sent, outcome)
            case Next.FAIL_KILLED_REPLICA:
                self._fail_killed()
            case Next.RETURN | Next.FAIL_TOO_FEW_IN_SYNC:
                raise AssertionError(f"{outcome} is no outcome to conclude from here")

    def _conclude_known_once(self, sent: Sent, outcome: Outcome, known: Known) -> None:
        """Do the same for a child whose copies know which calls have run."""
        was_refused, may_retry = outcome is Outcome.REFUSED, self._options.retry
        if self._is_aside and (was_refused or may_retry):
            self._resend(sent)
            return
        news = known.news(sent.attempt)
        match calls.after_known_once(outcome, sent.reason, sent.attempt, news, may_retry=may_retry):
            case Next.RESEND:
                self._again(sent, did_not_run=was_refused, is_blocked=False)
            case Next.AWAIT_NEWS if known.view.health in _HOPELESS:
                self._check_hope()
            case Next.AWAIT_NEWS if self._lane is not None and (
                was_refused or outcome is Outcome.WITHHELD
            ):
                # A copy that withheld an answer keeps it, and gives it once it may.
                self._again(sent, did_not_run=was_refused, is_blocked=True)
            case Next.AWAIT_NEWS:
                sent.leave_open(outcome)
                if sent.patience_s() == 0:
                    self._again(sent, did_not_run=was_refused, is_blocked=False)
            case Next.FAIL_OUTCOME_UNKNOWN:
                self._fail_unknown(sent, outcome)
            case Next.FAIL_KILLED_REPLICA:
                self._fail_killed()
            case Next.FAIL_TOO_FEW_IN_SYNC:
                self.fail(
                    NotEnoughInSync(
                        f"{self._name()} did not run: fewer than min_in_sync="
                        f"{known.view.plan.min_in_sync} copies are in sync.",
                        **self._where(sent),
                    )
                )
            case Next.RETURN:
                raise AssertionError("an answered call is not concluded")

    def _again(self, sent: Sent, *, did_not_run: bool, is_blocked: bool) -> None:
        if self._lane is not None:
            self._lane.hold(self._number, sent, did_not_run=did_not_run, is_blocked=is_blocked)
            return
        self._is_retry = self._is_retry or not did_not_run
        self._resend(sent)

    def _await_news(self, sent: Sent, outcome: Outcome, known: Known) -> None:
        """Nothing to go by yet: leave it open until news comes, or patience with the copy ends."""
        if known.view.health in _HOPELESS:
            self._check_hope()
            return
        sent.leave_open(outcome)
        if sent.patience_s() != 0:
            return
        if outcome is Outcome.REFUSED:
            self._resend(sent, sent.attempt.deaths)
        else:
            self._fail_unknown(sent, outcome)

    def _fail_unknown(self, sent: Sent, outcome: Outcome) -> None:
        hint = None
        match outcome:
            case Outcome.REFUSED:
                why = "it was sent again, and the copies keep its answer no more"
                hint = "Find out from the child whether it took effect, or raise `clients_max`."
            case Outcome.DIED:
                why = "the copy is gone"
            case _:
                why = "the copy does not answer"
        text = f"{self._name()} may have run on {sent.attempt.replica}: {why}."
        self.fail(CallOutcomeUnknown(text, hint=hint, **self._where(sent)))

    def _fail_killed(self) -> None:
        self.fail(CallKilledReplica(f"two copies died while {self._name()} ran on them."))

    def _where(self, sent: Sent) -> dict[str, str]:
        return {
            "hub_id": self._view.hub_id,
            "child_id": self.child_id,
            "replica_id": sent.attempt.replica,
        }

    def fail(self, error: BaseException) -> None:
        """It comes to this error, unless it has come to something else before."""
        self._settle(Settled(error=error))

    def _settle(self, outcome: Settled) -> None:
        """The first outcome stays: two sendings, or two threads, may each bring one."""
        with self._lock:
            if self._outcome is not None:
                return
            self._outcome = outcome
        if self._lane is not None:
            self._lane.settle(self._number)

    def _name(self) -> str:
        return f"{self.child_id}.{self.method}"
