"""How does a person wait for a call, in synchronous code and in asynchronous code?

How it gets its outcome is told in `errand`; here `lookout` waits until there is something to look
at, and the outcome is handed over.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Generator
from typing import Any, Generic, TypeVar

import ray

from raphub import context
from raphub.call_options import CallOptions
from raphub.core.model import ReplicaId
from raphub.errand import Errand
from raphub.errors import CallTimeout, CallToOwnChild
from raphub.lookout import AsyncLookout, Lookout
from raphub.registry_view import APPEARANCE_S, RegistryView, view_of
from raphub.sent import Sent

R_co = TypeVar("R_co", covariant=True)
log = logging.getLogger("raphub")

QUICK_S = 0.005
"""How long an answer is awaited the cheapest way, before the wait can also be woken by news."""

SLICE_S = 1.0
LOG_EVERY_S = 10.0


class Call(Errand, Generic[R_co]):
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
        """Made by handles. `target` names one copy for ever."""
        if args:
            args = tuple(map(_resolved, args))
        if kwargs:
            kwargs = {name: _resolved(arg) for name, arg in kwargs.items()}
        super().__init__(view, child_id, method, args, kwargs, options, target)

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

    def _unwrap(self) -> R_co:
        assert self._outcome is not None
        return self._outcome.unwrap()  # type: ignore[no-any-return]

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
