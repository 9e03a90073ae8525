"""How do requests to start and stop reach the hub, each in its turn and each once?

Every process numbers its requests to a hub. They are sent at once and may overtake each other on
the way; the hub runs them in the order of their numbers. A request that is sent again finds its
first answer, so a restart of the hub actor in between changes nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from raphub.actors.encoding import pack, unpack
from raphub.caller import client_id
from raphub.core.messages import (
    ChildrenRequested,
    ClusterSizeSet,
    ControlRequest,
    StopRequested,
)
from raphub.core.model import ChildId, ChildPlan
from raphub.core.records import RequestId, SizeAnswer, StartAnswer, StopAnswer, Trouble
from raphub.errors import (
    CallTimeout,
    ChildAlreadyStarted,
    ChildNotFound,
    HubBusy,
    HubUnreachable,
    InvalidMapping,
    NoQuorum,
    NotEnoughNodes,
)
from raphub.registry_view import RegistryView
from raphub.status import (
    Phase,
    ReplicaStatus,
    Role,
    StartError,
    StartResult,
    StopError,
    StopResult,
)

Result = TypeVar("Result")
REGISTRY_PATIENCE_S = 5.0
"""How long an answered request waits until the pushed registry shows what it did."""


class Request(Generic[Result]):
    """The future result of a request to a hub. `result()` or `await`; as often as wanted."""

    def __init__(
        self,
        ref: Any,  # noqa: ANN401 - an ObjectRef
        words: str,
        read: Callable[[bytes], Result],
        settle: Callable[[], None],
    ) -> None:
        """`words` name the request in errors; `read` makes the result of the packed answer."""
        self._ref = ref
        self._words = words
        self._read = read
        self._settle = settle
        self._lock = threading.Lock()
        self._outcome: tuple[bool, Any] | None = None

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait for the result, at most `timeout_s` seconds.

        Raises `CallTimeout` when they have passed (nothing is cancelled: what was asked for may
        still happen, and the same request can be awaited again), `HubUnreachable`, and what the
        request itself is documented to raise.
        """
        with self._lock:
            if self._outcome is None:
                try:
                    packed: bytes = ray.get(self._ref, timeout=timeout_s)
                except GetTimeoutError:
                    raise CallTimeout(
                        f"{self._words} took longer than {timeout_s:g} s.",
                        hint="It goes on; await `error.call` again, or look at `hub.status()`.",
                        call=self,
                    ) from None
                except RayActorError as error:
                    raise HubUnreachable(f"{self._words}: the hub does not answer.") from error
                self._conclude(packed)
        return self._unwrap()

    def done(self) -> bool:
        """Is the result there? Never waits."""
        return self._outcome is not None or bool(ray.wait([self._ref], timeout=0)[0])

    def __await__(self) -> Generator[Any, None, Result]:
        """Wait for the result in asynchronous code; errors as in `result`."""
        return asyncio.to_thread(self.result).__await__()

    def __repr__(self) -> str:
        """For example `<Request start of 2 children, done>`."""
        return f"<Request {self._words}, {'done' if self.done() else 'under way'}>"

    def _conclude(self, packed: bytes) -> None:
        self._settle()
        try:
            self._outcome = (True, self._read(packed))
        except Exception as error:  # noqa: BLE001 - it is raised to whoever asks for the result
            self._outcome = (False, error)

    def _unwrap(self) -> Result:
        assert self._outcome is not None
        is_result, content = self._outcome
        if is_result:
            return content  # type: ignore[no-any-return]
        raise content


class Control:
    """This process's requests to one hub. Safe for all threads."""

    def __init__(self, view: RegistryView) -> None:
        """No request was made yet."""
        self._view = view
        self._lock = threading.Lock()
        self._number = 0
        self._unsettled: set[int] = set()

    def start(
        self, plans: Sequence[ChildPlan], *, check_existing: bool, rollback: bool
    ) -> Request[StartResult]:
        """Ask for children; see `Hub.start_children`."""
        words = f"the start of {_count(len(plans))}"

        def read(packed: bytes) -> StartResult:
            return self._start_result(unpack(packed), check_existing=check_existing)

        return self.ask(
            lambda request: ChildrenRequested(request, tuple(plans), check_existing, rollback),
            words,
            read,
        )

    def stop(self, child_ids: Sequence[str] | None) -> Request[StopResult]:
        """Ask for the end of children, or of all; see `Hub.stop_children`."""
        words = (
            "the stop of all children"
            if child_ids is None
            else f"the stop of {_count(len(child_ids))}"
        )
        ids = None if child_ids is None else tuple(ChildId(child_id) for child_id in child_ids)
        return self.ask(lambda request: StopRequested(request, ids), words, self._stop_result)

    def set_cluster_size(self, size: int) -> Request[int | None]:
        """Say how large the cluster is; see `Hub.reset_cluster_size`."""
        return self.ask(
            lambda request: ClusterSizeSet(request, size), "the new cluster size", self._size_result
        )

    def ask(
        self,
        make: Callable[[RequestId], ControlRequest],
        words: str,
        read: Callable[[bytes], Result],
    ) -> Request[Result]:
        """Send a request in its turn; `read` makes the result of the packed answer."""
        with self._lock:
            self._number += 1
            number = self._number
            self._unsettled.add(number)
            request = RequestId(client_id(), number, min(self._unsettled))
            ref = self._view.actor.request.remote(pack(make(request)))
        return Request(ref, words, read, lambda: self._settle(number))

    def _settle(self, number: int) -> None:
        with self._lock:
            self._unsettled.discard(number)

    # --- answers ------------------------------------------------------------------------------

    def _start_result(self, answer: object, *, check_existing: bool) -> StartResult:
        self.raise_if_refused(answer)
        assert isinstance(answer, StartAnswer)
        self._raise_if_nothing_began(answer, check_existing=check_existing)
        started = {
            str(child_id): self._copies(child_id, replicas)
            for child_id, replicas in answer.started.items()
        }
        return StartResult(
            status="error" if answer.troubles else "ok",
            started=started,
            errors=[StartError(t.child_id, t.node_id, _words(t)) for t in answer.troubles],
            rolled_back=answer.rolled_back,
        )

    def _size_result(self, packed: bytes) -> int | None:
        answer = unpack(packed)
        self.raise_if_refused(answer)
        assert isinstance(answer, SizeAnswer)
        return answer.size

    def raise_if_refused(self, answer: object) -> None:
        """The hub took the request as a whole for one that it cannot run now."""
        troubles = answer.troubles if isinstance(answer, StartAnswer | StopAnswer) else ()
        kind = troubles[0].kind if troubles else ""
        if kind == "busy":
            raise HubBusy(troubles[0].reason, hub_id=self._view.hub_id)
        if kind == "no_quorum":
            asked = ", ".join(trouble.child_id for trouble in troubles)
            raise NoQuorum(
                f"the hub {self._view.hub_id!r} is {troubles[0].reason}; nothing was done about "
                f"{asked}.",
                hub_id=self._view.hub_id,
                child_id=troubles[0].child_id,
            )

    def _raise_if_nothing_began(self, answer: StartAnswer, *, check_existing: bool) -> None:
        """What concerns the request as a whole is raised; what concerns one child is reported."""
        kinds = {trouble.kind for trouble in answer.troubles}
        unmapped = next((t for t in answer.troubles if t.kind == "invalid_mapping"), None)
        there = [t.child_id for t in answer.troubles if t.kind == "already_started"]
        if there and check_existing and not answer.started:
            raise ChildAlreadyStarted(
                f"these children run already in the hub {self._view.hub_id!r}: {', '.join(there)}.",
                hub_id=self._view.hub_id,
                child_id=there[0],
            )
        if unmapped is not None and not answer.started:
            raise InvalidMapping(
                f"{unmapped.child_id!r} was not started, nor what was asked for with it: "
                f"{unmapped.reason}.",
                hub_id=self._view.hub_id,
                child_id=unmapped.child_id,
            )
        if kinds == {"not_enough_nodes"} and not answer.started:
            first = answer.troubles[0]
            raise NotEnoughNodes(
                f"{first.child_id!r} was not started: {first.reason}.",
                hub_id=self._view.hub_id,
                child_id=first.child_id,
            )

    def _copies(self, child_id: ChildId, replicas: Sequence[str]) -> list[ReplicaStatus]:
        """The copies as the registry shows them, which is pushed at the same time as the answer."""
        view = self._view

        def is_shown() -> bool:
            known = view.known(child_id)
            shown = (
                set() if known is None else {c.replica for c in known.view.replicas if c.is_settled}
            )
            return shown.issuperset(replicas) or (known is None and view.was_seen(child_id))

        view.wait(is_shown, REGISTRY_PATIENCE_S)
        known = view.known(child_id)
        shown = {} if known is None else {r.replica_id: r for r in known.status().replicas}
        return [
            shown.get(
                replica,
                ReplicaStatus(
                    replica_id=replica, node_id="", role=Role.PASSIVE, phase=Phase.STOPPING, epoch=0
                ),
            )
            for replica in replicas
        ]

    def _stop_result(self, packed: bytes) -> StopResult:
        answer: StopAnswer = unpack(packed)
        self.raise_if_refused(answer)
        if answer.troubles and not answer.stopped:
            missing = ", ".join(t.child_id for t in answer.troubles)
            raise ChildNotFound(
                f"the hub {self._view.hub_id!r} has no child {missing}.",
                hub_id=self._view.hub_id,
                child_id=answer.troubles[0].child_id,
            )
        self._view.wait(
            lambda: all(self._view.known(child_id) is None for child_id in answer.stopped),
            REGISTRY_PATIENCE_S,
        )
        return StopResult(
            status="error" if answer.troubles else "ok",
            stopped=list(answer.stopped),
            errors=[StopError(t.child_id, t.node_id, _words(t)) for t in answer.troubles],
        )


_NAMES = {
    "already_started": "ChildAlreadyStarted",
    "duplicate": "ChildAlreadyStarted",
    "invalid_mapping": "InvalidMapping",
    "not_enough_nodes": "NotEnoughNodes",
    "not_found": "ChildNotFound",
    "start_failed": "ChildStartFailed",
}


def _words(trouble: Trouble) -> str:
    return f"{_NAMES.get(trouble.kind, trouble.kind)}: {trouble.reason}"


def _count(number: int) -> str:
    return "1 child" if number == 1 else f"{number} children"


_controls: WeakKeyDictionary[RegistryView, Control] = WeakKeyDictionary()
_controls_lock = threading.Lock()


def control_of(view: RegistryView) -> Control:
    """This process's control of the hub that the view shows."""
    with _controls_lock:
        found = _controls.get(view)
        if found is None:
            found = _controls[view] = Control(view)
        return found


def seconds_left(gives_up_at: float) -> float:
    """How long until then, never less than 0."""
    return max(0.0, gives_up_at - time.monotonic())
