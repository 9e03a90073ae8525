"""How does one call find the active, survive its death, and bring back exactly one answer?

A call is one Ray call to the active copy, and perhaps another one to the next active. Nobody is
asked where to send it: the pushed registry says so. What follows an outcome is decided by
`core.calls`; this file waits, sends, and translates. The choice of transport stands in one place,
`Call._send`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
)

from raphub import context
from raphub.actors import calling
from raphub.core import calls
from raphub.core.calls import Attempt, Next, Outcome
from raphub.core.model import Health, ReplicaId
from raphub.errors import (
    CallKilledReplica,
    CallOutcomeUnknown,
    CallTimeout,
    CallToOwnChild,
    ChildNotFound,
    NoActiveReplica,
)
from raphub.registry_view import Known, RegistryView, client_id, view_of

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
log = logging.getLogger("raphub")

QUICK_S = 0.005
"""How long an answer is awaited the cheapest way, before the wait can also be woken by news."""

SLICE_S = 1.0
LOOK_AGAIN_S = 0.05
APPEARANCE_S = 5.0
UNREACHABLE_PATIENCE_S = 4.0
LOG_EVERY_S = 10.0

_numbers = itertools.count(1)
_turns = itertools.count()


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a call is made. `timeout_s` bounds `.result()` without a time-out of its own."""

    timeout_s: float | None = None
    retry: bool = True


@dataclass(slots=True)
class Sent:
    """The attempt that is under way."""

    ref: Any
    attempt: Attempt
    at_s: float = field(default_factory=time.monotonic)


class Call(Generic[R_co]):
    """One call of a child's method, under way.

    `result()` in synchronous code and notebooks, `await` in asynchronous code; both may be used as
    often as wanted and from any thread. It follows the child through failovers while somebody
    waits for it. Not promised: that a call nobody waits for is sent again after a failover.
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
        self._view = view
        self._args = tuple(map(_resolved, args)) if args else args
        self._kwargs = {name: _resolved(arg) for name, arg in kwargs.items()} if kwargs else kwargs
        self._options = options
        self._target = target
        self._number = next(_numbers)
        self._sent: Sent | None = None
        self._deaths = 0
        self._outcome: tuple[bool, Any] | None = None
        self._lock = threading.Lock()
        self._created_at = time.monotonic()
        if view.outbox.holds(child_id) or not self.try_send():
            view.outbox.add(self)

    # --- for users ----------------------------------------------------------------------------

    def result(self, timeout_s: float | None = None) -> R_co:
        """Wait for the answer and return it, or raise what the method raised.

        `timeout_s` in seconds; None uses the call's or the child's own time-out, else waits
        without limit and logs every 10 s why. Raises `CallTimeout` (nothing is cancelled),
        `CallOutcomeUnknown`, `CallKilledReplica`, `NoActiveReplica`, `ChildNotFound`,
        `CallToOwnChild`.
        """
        limit_s = self._limit_s(timeout_s)
        began_at = time.monotonic()
        self._refuse_own_child()
        sent = self._sent
        if sent is not None and self._outcome is None:
            quick_s = QUICK_S if limit_s is None else min(QUICK_S, limit_s)
            self._try_get(sent, quick_s)
        logged_at = began_at
        while self._outcome is None:
            left_s = self._left_s(limit_s, began_at)
            if time.monotonic() - logged_at > LOG_EVERY_S:
                logged_at = time.monotonic()
                log.warning("still waiting for %s: %s", self._name(), self._why_waiting())
            self._wait_once(min(SLICE_S, left_s))
        return self._unwrap()

    def __await__(self) -> Generator[Any, None, R_co]:
        """Wait for the answer in asynchronous code; errors as in `result`."""
        return self._follow().__await__()

    def done(self) -> bool:
        """Is the answer, or the exception, there? Never waits."""
        if self._outcome is None and self._sent is not None:
            self._try_get(self._sent, 0)
        return self._outcome is not None

    def step(self, limit_s: float) -> None:
        """Wait for the answer or for news for so many seconds; `wait` takes turns with this."""
        if self._outcome is None:
            self._wait_once(limit_s)

    def cancel(self) -> None:
        """Stop waiting: `result` raises `CancelledError`. The call may still run."""
        with self._lock:
            if self._outcome is None:
                self._outcome = (False, concurrent.futures.CancelledError())

    def to_object_ref(self) -> Any:  # noqa: ANN401 - an ObjectRef
        """An ObjectRef of the answer, retries included, to hand to tasks and actors.

        It is made by a Ray task without CPU that waits for the call.
        """
        return _await_remotely().remote([self])

    def __reduce__(self) -> tuple[Any, ...]:
        """A call travels as what it is waiting for; the other process waits on."""
        travelling = dict(self.__dict__)
        travelling["_view"], travelling["_lock"] = self._view.hub_id, None
        return _call_from, (travelling,)

    def __repr__(self) -> str:
        """For example `<Call hits.add, done>`."""
        state = "waiting" if self._outcome is None else "done"
        return f"<Call {self._name()}, {state}>"

    # --- sending ------------------------------------------------------------------------------

    def try_send(self) -> bool:
        """Send it to whoever serves; False while there is nobody. True if it need not be sent."""
        if self._outcome is not None:
            return True
        known = self._view.known(self.child_id)
        if known is None:
            return False
        if self._target is not None:
            return self._send_to_target(known, self._target)
        serving = known.serving
        if not serving:
            return False
        replica = serving[0] if len(serving) == 1 else serving[next(_turns) % len(serving)]
        return self._send(known, replica, known.view.epoch)

    def _send_to_target(self, known: Known, target: ReplicaId) -> bool:
        if target not in known.serve:
            self._fail(NoActiveReplica(f"the copy {target} is not there any more."))
            return True
        return self._send(known, target, calling.ANY_ROLE)

    def _send(self, known: Known, replica: ReplicaId, epoch: int) -> bool:
        """The one place where a call leaves this process."""
        header = calling.header(client_id(), self._number, epoch, self.method)
        ref = known.serve[replica].remote(header, *self._args, **self._kwargs)
        self._sent = Sent(ref, Attempt(replica, epoch, self._deaths))
        return True

    def _resend(self, deaths: int) -> None:
        """Send it again, in line behind nobody: it is older than whatever stands in line."""
        self._deaths = deaths
        self._sent = None
        if not self.try_send():
            self._view.outbox.add(self)

    # --- waiting ------------------------------------------------------------------------------

    def _wait_once(self, limit_s: float) -> None:
        """Wait for an answer or for news, whichever comes first, and act on it."""
        sent = self._sent
        if sent is None:
            self._wait_for_active(limit_s)
            return
        changes = self._view.changes
        poll = self._view.poll_ref
        refs = [sent.ref] if poll is None else [sent.ref, poll]
        ready, _ = ray.wait(refs, num_returns=1, timeout=limit_s)
        if sent.ref in ready:
            self._try_get(sent, limit_s)
            return
        if ready:
            # The poll was answered: what it brought is applied by the view's own thread.
            self._view.wait(lambda: self._view.changes != changes, LOOK_AGAIN_S)
        if self._is_overtaken(sent):
            self._conclude(sent, Outcome.DIED)

    def _wait_for_active(self, limit_s: float) -> None:
        self._check_hope()
        if self._outcome is None:
            changes = self._view.changes
            if self._sent is None:
                self._view.wait(
                    lambda: self._view.changes != changes or self._sent is not None, limit_s
                )

    def _check_hope(self) -> None:
        """Fail a call that nobody will ever serve."""
        known = self._view.known(self.child_id)
        if known is None:
            waited_s = time.monotonic() - self._created_at
            if self._view.was_seen(self.child_id) or waited_s > APPEARANCE_S:
                self._fail(
                    ChildNotFound(
                        f"the hub {self._view.hub_id!r} has no child {self.child_id!r} (any more).",
                        hub_id=self._view.hub_id,
                        child_id=self.child_id,
                    )
                )
        elif known.view.health is Health.STOPPED:
            self._fail(
                NoActiveReplica(
                    f"{self.child_id!r} was given up: {known.view.reason}.",
                    hint="Mend the cause, then stop the child and start it again.",
                    hub_id=self._view.hub_id,
                    child_id=self.child_id,
                )
            )

    def _is_overtaken(self, sent: Sent) -> bool:
        """Does the registry say that the copy which has the call serves no more?"""
        known = self._view.known(self.child_id)
        if known is None:
            return self._view.was_seen(self.child_id)
        if self._target is not None:
            return self._target not in known.handles
        return calls.is_news(sent.attempt, known.news(sent.attempt))

    async def _follow(self) -> R_co:
        """The same as `result`, without blocking the loop."""
        limit_s, began_at = self._limit_s(None), time.monotonic()
        self._refuse_own_child()
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        token = self._view.add_waker(wake)
        try:
            while self._outcome is None:
                slice_s = min(SLICE_S, self._left_s(limit_s, began_at))
                await self._wait_once_async(woken, slice_s)
        finally:
            self._view.remove_waker(token)
        return self._unwrap()

    async def _wait_once_async(self, woken: asyncio.Event, limit_s: float) -> None:
        sent = self._sent
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(woken.wait())]
        if sent is None:
            self._check_hope()
            if self._outcome is not None:
                limit_s = 0
        else:
            waits.append(asyncio.wrap_future(sent.ref.future()))
        done, pending = await asyncio.wait(
            waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
        )
        for wait in pending:
            wait.cancel()
        for wait in done:
            wait.exception()
        woken.clear()
        if sent is not None and len(waits) > 1 and waits[1] in done:
            self._try_get(sent, SLICE_S)
            if self._sent is sent and self._outcome is None:
                await asyncio.sleep(LOOK_AGAIN_S)
        elif sent is not None and self._is_overtaken(sent):
            self._conclude(sent, Outcome.DIED)

    # --- outcomes -----------------------------------------------------------------------------

    def _try_get(self, sent: Sent, limit_s: float) -> None:
        """Look for the answer of this attempt for so many seconds, and act on it."""
        try:
            answer = ray.get(sent.ref, timeout=limit_s)
        except GetTimeoutError:
            return
        except ActorDiedError:
            self._conclude(sent, Outcome.DIED)
            return
        except (ActorUnavailableError, RayActorError, ObjectLostError):
            self._conclude(sent, Outcome.UNREACHABLE)
            return
        except Exception as error:  # noqa: BLE001 - a failed argument, or an answer that does not pickle
            self._fail(error)
            return
        match answer:
            case calling.Raised(data, story):
                self._fail(_revived(data, story, copy=sent.attempt.replica))
            case calling.Refused():
                self._conclude(sent, Outcome.REFUSED)
            case calling.Withheld():
                self._conclude(sent, Outcome.WITHHELD)
            case _:
                self._outcome = (True, answer)

    def _conclude(self, sent: Sent, outcome: Outcome) -> None:
        """Do what `core.calls` decides after an attempt without an answer."""
        with self._lock:
            if self._sent is not sent or self._outcome is not None:
                return
            known = self._view.known(self.child_id)
            if known is None or self._target is not None:
                self._fail_unknown(sent, outcome)
                return
            news = known.news(sent.attempt)
            match calls.after(outcome, sent.attempt, news, may_retry=self._options.retry):
                case Next.RESEND:
                    died = outcome is not Outcome.REFUSED
                    self._resend(self._deaths + died)
                case Next.AWAIT_NEWS:
                    self._await_news(sent, outcome, known)
                case Next.FAIL_OUTCOME_UNKNOWN:
                    self._fail_unknown(sent, outcome)
                case Next.FAIL_KILLED_REPLICA:
                    self._fail(
                        CallKilledReplica(f"two copies died while {self._name()} ran on them.")
                    )
                case Next.RETURN:
                    raise AssertionError("an answered call is not concluded")

    def _await_news(self, sent: Sent, outcome: Outcome, known: Known) -> None:
        """Nothing to go by yet: wait for the registry, or look again at the same copy."""
        if known.view.health is Health.STOPPED:
            self._check_hope()
            return
        self._view.wait(lambda: self._is_overtaken(sent), LOOK_AGAIN_S)
        if self._is_overtaken(sent):
            return
        if outcome is Outcome.REFUSED:
            self._resend(self._deaths)
        elif (
            outcome is Outcome.UNREACHABLE and time.monotonic() - sent.at_s > UNREACHABLE_PATIENCE_S
        ):
            self._fail_unknown(sent, outcome)

    def _fail_unknown(self, sent: Sent, outcome: Outcome) -> None:
        self._fail(
            CallOutcomeUnknown(
                f"{self._name()} may have run on {sent.attempt.replica}: the copy "
                f"{'is gone' if outcome is Outcome.DIED else 'does not answer'}.",
                hub_id=self._view.hub_id,
                child_id=self.child_id,
                replica_id=sent.attempt.replica,
            )
        )

    def _fail(self, error: BaseException) -> None:
        self._outcome = (False, error)

    def _unwrap(self) -> R_co:
        assert self._outcome is not None
        is_answer, content = self._outcome
        if is_answer:
            return content  # type: ignore[no-any-return]
        raise content

    # --- words --------------------------------------------------------------------------------

    def _name(self) -> str:
        return f"{self.child_id}.{self.method}"

    def _limit_s(self, timeout_s: float | None) -> float | None:
        return self._options.timeout_s if timeout_s is None else timeout_s

    def _left_s(self, limit_s: float | None, began_at: float) -> float:
        if limit_s is None:
            return SLICE_S
        left_s = limit_s - (time.monotonic() - began_at)
        if left_s > 0:
            return left_s
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
        if self._sent is None:
            return known.view.reason or "no copy serves"
        return f"{self._sent.attempt.replica} has it; the child is {known.view.health}"

    def _refuse_own_child(self) -> None:
        here = context.current_or_none()
        is_own = here is not None and here.child_id == self.child_id
        if is_own and here is not None and here.hub_id == self._view.hub_id:
            raise CallToOwnChild(
                f"{self._name()} was awaited inside a method of the same child.",
                hub_id=self._view.hub_id,
                child_id=self.child_id,
            )


def results(made: Iterable[Call[R]], timeout_s: float | None = None) -> list[R]:
    """The answers of all calls, in their order; raises the first error, as `Call.result` does.

    `timeout_s` in seconds bounds the whole.
    """
    gives_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    return [
        call.result(None if gives_up_at is None else max(0.0, gives_up_at - time.monotonic()))
        for call in made
    ]


def wait(
    made: Sequence[Call[R]], num_returns: int = 1, timeout_s: float | None = None
) -> tuple[list[Call[R]], list[Call[R]]]:
    """Wait until `num_returns` calls are done or `timeout_s` seconds have passed: (done, others)."""
    gives_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        done = [call for call in made if call.done()]
        left_s = SLICE_S if gives_up_at is None else gives_up_at - time.monotonic()
        if len(done) >= min(num_returns, len(made)) or left_s <= 0:
            finished = set(map(id, done))
            return done, [call for call in made if id(call) not in finished]
        for call in made:
            if id(call) not in set(map(id, done)):
                call.step(min(LOOK_AGAIN_S, left_s) / max(1, len(made)))


def _resolved(arg: Any) -> Any:  # noqa: ANN401 - the user's
    """A call given as an argument is awaited by Ray, as an ObjectRef is."""
    return arg.to_object_ref() if isinstance(arg, Call) else arg


def _revived(data: bytes, story: str, *, copy: str) -> BaseException:
    """The user's exception as it was raised, with the remote traceback as a note."""
    import ray.cloudpickle as pickle  # noqa: PLC0415 - only on this path

    error: BaseException = pickle.loads(data)
    error.add_note(f"Raised in {copy}:\n{story}")
    return error


def _call_from(travelling: dict[str, Any]) -> Call[Any]:
    call: Call[Any] = Call.__new__(Call)
    call.__dict__.update(travelling)
    call.__dict__.update(_view=view_of(travelling["_view"]), _lock=threading.Lock())
    return call


def _await_remotely() -> Any:  # noqa: ANN401 - a Ray function
    return ray.remote(num_cpus=0, max_retries=0)(_await_calls)


def _await_calls(calls_inside: list[Call[Any]]) -> Any:  # noqa: ANN401 - the user's
    return calls_inside[0].result()
