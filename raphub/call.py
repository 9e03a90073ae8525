"""How does one call find the active, survive its death, and bring back exactly one answer?

A call is one Ray call to the active copy, and perhaps another one to the next active. Nobody is
asked where to send it: the pushed registry says so. What has become of a sending is told by `sent`,
what follows from it is decided by `core.calls`, and `lookout` waits in between.

Where state is replicated, calls stand in a lane (`lanes`), which sends them, in order and again. A
call in no lane sends itself: where each copy has its own state, when it reads from a passive, and
when it has travelled to another process, where it goes on under the name that its lane gave it.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import threading
import time
from collections.abc import Generator
from typing import Any, Generic, TypeVar

import ray

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
    CallTimeout,
    CallToOwnChild,
    NoActiveReplica,
    NotEnoughInSync,
)
from raphub.known import Known
from raphub.lanes import CallLane
from raphub.lookout import AsyncLookout, Lookout
from raphub.registry_view import APPEARANCE_S, RegistryView, hopeless, view_of
from raphub.sent import Sent, Settled

R_co = TypeVar("R_co", covariant=True)
log = logging.getLogger("raphub")

QUICK_S = 0.005
"""How long an answer is awaited the cheapest way, before the wait can also be woken by news."""

SLICE_S = 1.0
LOG_EVERY_S = 10.0

_HOPELESS = (Health.STOPPED, Health.LOST)

_numbers = itertools.count(1)
_turns = itertools.count()


class Call(Generic[R_co]):
    """One call of a child's method, under way.

    `result()` in synchronous code and notebooks, `await` in asynchronous code; both may be used as
    often as wanted and from any thread. It follows the child through failovers: where state is
    replicated until it is settled, else while somebody waits for it. Not promised: that a call
    nobody waits for is sent again after a failover where `state="none"`, or once the process that
    made it has ended.
    """

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
        self._args = tuple(map(_resolved, args)) if args else args
        self._kwargs = {name: _resolved(arg) for name, arg in kwargs.items()} if kwargs else kwargs
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

    def result(self, timeout_s: float | None = None) -> R_co:
        """Wait for the answer and return it, or raise what the method raised.

        `timeout_s` in seconds; None uses the call's or the child's own time-out, else waits
        without limit and logs every 10 s why. Raises `CallTimeout` (nothing is cancelled),
        `CallOutcomeUnknown`, `CallKilledReplica`, `NoActiveReplica`, `ChildNotFound`,
        `CallToOwnChild`.
        """
        limit_s = self._options.timeout_s if timeout_s is None else timeout_s
        logged_at = began_at = time.monotonic()
        self._refuse_own_child()
        if self._outcome is None and self.sent is not None:
            self._take(self.sent, QUICK_S if limit_s is None else min(QUICK_S, limit_s))
        lookout = Lookout(self._view)
        while not self.look():
            left_s = self._left_s(limit_s, began_at)
            if time.monotonic() - logged_at > LOG_EVERY_S:
                logged_at = time.monotonic()
                log.warning("still waiting for %s: %s", self._name(), self._why_waiting())
            self._wait(lookout, left_s)
        return self._unwrap()

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait for the answer in asynchronous code; errors as in `result`."""
        return self._follow().__await__()

    def done(self) -> bool:
        """Is the answer, or the exception, there? Never waits.

        Asked again and again, it follows the child through failovers as a waiting caller does.
        """
        is_settled = self.look()
        if not is_settled and self.sent is not None:
            self.sent.answer()
        return is_settled

    def step(self, limit_s: float) -> None:
        """Look, and wait for so many seconds for more to look for; `wait` takes turns with this."""
        lookout = Lookout(self._view)
        if not self.look():
            self._wait(lookout, limit_s)

    def cancel(self) -> None:
        """Stop waiting: `result` raises `CancelledError`. The call may still run."""
        self.fail(concurrent.futures.CancelledError())

    def to_object_ref(self) -> Any:  # noqa: ANN401 - an ObjectRef
        """An ObjectRef of the answer, retries included, to hand to tasks and actors.

        It is made by a Ray task without CPU that waits for the call.
        """
        return ray.remote(num_cpus=0, max_retries=0)(_await_calls).remote([self])

    def __reduce__(self) -> tuple[Any, ...]:
        """A call travels as what it is waiting for; the other process waits on."""
        if self.sent is None and self._view.known(self.child_id) is None:
            # It has no name yet by which the other process could ask for its answer.
            self._view.wait(lambda: self._view.known(self.child_id) is not None, APPEARANCE_S)
        left_here: dict[str, Any] = {"_view": self._view.hub_id, "_lock": None, "_running": None}
        if self._lane is not None:
            left_here |= {"_lane": None, "_is_alone": True, "_is_retry": True}
        return _call_from, ({**self.__dict__, **left_here},)

    def __repr__(self) -> str:
        """For example `<Call hits.add, done>`."""
        state = "waiting" if self._outcome is None else "done"
        return f"<Call {self._name()}, {state}>"

    def try_send(self) -> bool:
        """Leave the line: True if it was sent or need not be, False while nobody serves.

        What hinders the sending, such as an argument that does not pickle, is raised by `result`.
        """
        try:
            return self._outcome is not None or self._send()
        except Exception as error:  # noqa: BLE001 - the line moves on, and the view's thread lives
            self.fail(error)
            return True

    # --- sending ------------------------------------------------------------------------------

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
        ref = remote.remote(header.line(), *self._args, **self._kwargs)
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

    def overtaken(self, sent: Sent) -> None:
        """Another copy serves, and this sending has brought nothing."""
        self._conclude(sent, Outcome.DIED)

    @property
    def is_settled(self) -> bool:
        """Has it its outcome?"""
        return self._outcome is not None

    def _awaited(self) -> tuple[Sent | None, float]:
        """Whose answer is awaited, if not news alone, and after how many seconds to look again."""
        sent = self.sent
        if sent is None and self._lane is not None:
            return None, self._lane.patience_s()
        if sent is None or sent.ended is None:
            return sent, SLICE_S
        patience_s = sent.patience_s()
        return None, SLICE_S if patience_s is None else patience_s

    def _wait(self, lookout: Lookout, limit_s: float) -> None:
        sent, patience_s = self._awaited()
        lookout.wait(sent.ref if sent else None, min(limit_s, patience_s))

    async def _follow(self) -> R_co:
        """The same as `result`, without blocking the loop."""
        began_at = time.monotonic()
        self._refuse_own_child()
        if self.sent is not None:
            self.sent.answer()  # or the first look would take a tenth of a millisecond
        with AsyncLookout(self._view) as lookout:
            while not self.look():
                sent, patience_s = self._awaited()
                left_s = self._left_s(self._options.timeout_s, began_at)
                await lookout.wait(sent.answer() if sent else None, min(left_s, patience_s))
        return self._unwrap()

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

    def _unwrap(self) -> R_co:
        assert self._outcome is not None
        return self._outcome.unwrap()  # type: ignore[no-any-return]

    def _name(self) -> str:
        return f"{self.child_id}.{self.method}"

    def _left_s(self, limit_s: float | None, began_at: float) -> float:
        left_s = SLICE_S if limit_s is None else limit_s - (time.monotonic() - began_at)
        if left_s > 0:
            return min(SLICE_S, left_s)
        raise CallTimeout(
            f"{self._name()} did not answer within {limit_s:g} s: {self._why_waiting()}.",
            call=self,
            hub_id=self._view.hub_id,
            child_id=self.child_id,
        )

    def _why_waiting(self) -> str:
        known = self._view.known(self.child_id)
        if known is None:
            return "the hub has not told of the child yet"
        if self.sent is None and self._lane is not None and known.serving:
            return f"the copies are not ready for it; the child is {known.view.health}"
        if self.sent is None:
            return known.view.reason or "no copy serves"
        return f"{self.sent.attempt.replica} has it; the child is {known.view.health}"

    def _refuse_own_child(self) -> None:
        here = context.current_or_none()
        if here is not None and (here.hub_id, here.child_id) == (self._view.hub_id, self.child_id):
            raise CallToOwnChild(
                f"{self._name()} was awaited inside a method of the same child.",
                hub_id=self._view.hub_id,
                child_id=self.child_id,
            )


def _resolved(arg: Any) -> Any:  # noqa: ANN401 - the user's
    """A call given as an argument is awaited by Ray, as an ObjectRef is."""
    return arg.to_object_ref() if isinstance(arg, Call) else arg


def _call_from(travelling: dict[str, Any]) -> Call[Any]:
    call: Call[Any] = Call.__new__(Call)
    call.__dict__.update(travelling)
    call._view, call._lock = view_of(travelling["_view"]), threading.Lock()  # noqa: SLF001 - its own
    call._created_at = time.monotonic()  # noqa: SLF001 - no clock travels
    if call._is_alone and call.sent is None and not call.is_settled:  # noqa: SLF001 - its own
        call._view.outbox.add(call)  # noqa: SLF001 - its own
    return call


def _await_calls(calls_inside: list[Call[Any]]) -> Any:  # noqa: ANN401 - the user's
    return calls_inside[0].result()
