"""How does a person hold a child and call it?

`handle.method.remote(...)` looks as it does in Ray; the call follows the active copy. A handle
holds no connection: it names a child of a hub, pickles as these two names, and reads this
process's pushed copy of the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import replace
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from raphub import movements
from raphub.call import Call
from raphub.call_options import CallOptions, ReadFrom, refuse_unread
from raphub.control import Request, control_of
from raphub.core.model import Health
from raphub.errors import CallTimeout, ChildStartFailed
from raphub.mapping import BatchSize, mapped
from raphub.registry_view import RegistryView, known_or_raise, view_of
from raphub.status import ChildStatus, MoveResult, ReplicaStatus
from raphub.stream import Stream

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
P = ParamSpec("P")


class Method:
    """A method of a child, ready to be called."""

    def __init__(self, handle: ChildHandle[Any], name: str, options: CallOptions) -> None:
        """Made by the handle."""
        self._handle = handle
        self._name = name
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> Call[Any]:  # noqa: ANN401 - the user's
        """Call it on the active copy. Top-level ObjectRefs and Calls are resolved, as in Ray."""
        return self._handle._make_call(self._name, args, kwargs, self._options)  # noqa: SLF001

    def map(
        self,
        items: Iterable[Any],
        batch_size: int | None = None,
        *,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Call it once for each item, in order, in few messages; yields the results in order.

        Each item is the one argument of its call: a tuple is one argument, too, and ObjectRefs are
        passed as they are. A batch is one call: its items run one after the other with no other
        write between them, and where state is replicated they take effect together, once. So many
        items go in a batch as take about 5 ms, at most 1000, unless `batch_size` says how many; a
        few batches are under way at a time. Nothing is sent before the first result is asked for.

        What an item raised is raised when its turn comes, which ends the iteration: later items
        of its batch, and of batches under way, run all the same. `return_exceptions=True` yields
        such errors in place of results, as in `asyncio.gather`. The options of the method hold
        for each batch; errors as in `Call.result`. Raises at once: `InvalidSetting`.
        """
        options = replace(self._options, is_map=True)
        handle, name = self._handle, self._name
        return mapped(
            lambda batch: handle._make_call(name, (batch,), {}, options),  # noqa: SLF001
            items,
            BatchSize.of(batch_size),
            return_exceptions=return_exceptions,
        )

    @overload
    def options(
        self,
        *,
        timeout_s: float | None = None,
        retry: bool = True,
        read_from: ReadFrom = "active",
        max_lag_writes: int | None = None,
        stream: Literal[False] = False,
    ) -> Method: ...
    @overload
    def options(
        self,
        *,
        timeout_s: float | None = None,
        retry: bool = True,
        read_from: ReadFrom = "active",
        max_lag_writes: int | None = None,
        stream: Literal[True],
    ) -> StreamedMethod: ...
    def options(
        self,
        *,
        timeout_s: float | None = None,
        retry: bool = True,
        read_from: ReadFrom = "active",
        max_lag_writes: int | None = None,
        stream: bool = False,
    ) -> Method | StreamedMethod:
        """The same method with other options. Raises `InvalidSetting` for what cannot be.

        `timeout_s` bounds `.result()` and `await`, in seconds; None: as the child says.
        `retry=False` raises `CallOutcomeUnknown` rather than sending a call again that may have
        run. The others are for methods that are marked `@read_only`, where state is replicated:
        `read_from` is `"active"` (the default: sees every answered write), `"any"` (all copies in
        turn) or `"passive"` (spares the active); a copy that cannot tell that it misses at most
        `max_lag_writes` writes passes the read on to the active. None: as many as the child
        allows. `stream=True` is for generator methods, and gives their values one by one.
        """
        limit_s = self._options.timeout_s if timeout_s is None else timeout_s
        options = CallOptions(limit_s, retry, read_from, max_lag_writes)
        options.check()
        kind = StreamedMethod if stream else Method
        return kind(self._handle, self._name, options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401, ARG002 - the user's
        """Methods of a handle are not called directly, just as those of a Ray actor."""
        raise TypeError(
            f"call {self._name!r} through .remote(...): handle.{self._name}.remote(...).result()"
        )


class StreamedMethod:
    """A generator method of a child that only reads, ready to be called."""

    def __init__(self, handle: ChildHandle[Any], name: str, options: CallOptions) -> None:
        """Made by `Method.options(stream=True)`."""
        self._handle = handle
        self._name = name
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> Stream:  # noqa: ANN401 - the user's
        """Call it; the stream gives its values, by `for` or `async for`."""
        return self._handle._make_stream(self._name, args, kwargs, self._options)  # noqa: SLF001


class BroadcastMethod:
    """A method of all copies of a child."""

    def __init__(self, handle: ChildHandle[Any], name: str) -> None:
        """Made by `handle.all`."""
        self._handle = handle
        self._name = name

    def remote(self, *args: Any, **kwargs: Any) -> dict[str, Call[Any]]:  # noqa: ANN401 - the user's
        """Call it on every copy, whatever its role; the calls by replica id.

        Raises `InvalidSetting` for a method that is not marked `@read_only`, unless every copy
        keeps its own state: a write goes to the active alone, and reaches the others by itself.
        """
        return self._handle._broadcast(self._name, args, kwargs)  # noqa: SLF001


class Broadcast:
    """What `handle.all` is: every method, on every copy."""

    def __init__(self, handle: ChildHandle[Any]) -> None:
        """Made by the handle."""
        self._handle = handle

    def __getattr__(self, name: str) -> BroadcastMethod:
        """Any public method of the class."""
        _refuse_private(name)
        return BroadcastMethod(self._handle, name)


class ChildHandle(Generic[T_co]):
    """A child, from wherever it is held: a driver, a task, an actor, a notebook, another child.

    `child_id` and `hub_id` name it. Methods of the class are attributes with `.remote(...)`; one
    that is called like something of the handle's own is reached by `call(Class.method, ...)`.
    """

    def __init__(
        self,
        hub_id: str,
        child_id: str,
        *,
        started: Any = None,  # noqa: ANN401 - a future of `raphub.hub`, which is above this file
        call_timeout_s: float | None = None,
    ) -> None:
        """Handles come from `Class.remote(...)` and `hub.get(...)`."""
        self.hub_id = hub_id
        self.child_id = child_id
        self._view = view_of(hub_id)
        self._started = started
        self._options = CallOptions(timeout_s=call_timeout_s)

    # --- calls --------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Method:
        """Any public method of the class."""
        _refuse_private(name)
        return Method(self, name, self._options)

    @overload
    def call(
        self,
        method: Callable[Concatenate[T_co, P], Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Call[R]: ...
    @overload
    def call(
        self, method: Callable[Concatenate[T_co, P], R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Call[R]: ...
    def call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Call[Any]:
        """The same call as `handle.method.remote(...)`, with the types of the method."""
        return self._make_call(method.__name__, args, kwargs, self._options)

    @property
    def all(self) -> Broadcast:
        """Every copy instead of the active one: `handle.all.method.remote(...)`."""
        return Broadcast(self)

    def _make_call(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Call[Any]:
        view = self._open_view()
        self._check_started()
        if options.read_from != "active" and (known := view.known(self.child_id)):
            options.check_read(known, name)
        return Call(view, self.child_id, name, args, kwargs, options)

    def _make_stream(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions
    ) -> Stream:
        view = self._open_view()
        self._check_started()
        return Stream(view, self.child_id, name, args, kwargs, options)

    def _broadcast(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Call[Any]]:
        view = self._open_view()
        self._check_started()
        known = known_or_raise(view, self.child_id)
        if known.is_replicated:
            refuse_unread(known, name, "`handle.all`", "all")
        copies = [copy.replica for copy in known.view.replicas if copy.replica in known.handles]
        return {
            replica: Call(view, self.child_id, name, args, kwargs, self._options, target=replica)
            for replica in copies
        }

    def _open_view(self) -> RegistryView:
        if not self._view.is_open:
            self._view = view_of(self.hub_id)
        return self._view

    def _check_started(self) -> None:
        """Raise why the child did not start, if that is known by now."""
        if self._started is None or not self._started.done():
            return
        result = self._started.result(0)
        self._started = None
        if result.errors:
            raise ChildStartFailed(
                f"{self.child_id!r} did not start: {result.errors[0].reason}",
                hub_id=self.hub_id,
                child_id=self.child_id,
            )

    # --- status -------------------------------------------------------------------------------

    def status(self) -> ChildStatus:
        """How the child is, as this process was last told. Raises `ChildNotFound`."""
        return known_or_raise(self._open_view(), self.child_id).status()

    def replicas(self) -> list[ReplicaStatus]:
        """Its copies, as this process was last told. Raises `ChildNotFound`."""
        return self.status().replicas

    def wait_ready(self, timeout_s: float = 30, copies: int | None = None) -> ChildStatus:
        """Wait until the child serves and `copies` copies are ready (None: all that are wanted).

        `timeout_s` in seconds. Raises `CallTimeout` saying what it waits for, `ChildStartFailed`,
        `ChildNotFound`.
        """
        view = self._open_view()
        if not view.wait(lambda: self._is_ready(view, copies), timeout_s):
            known = view.known(self.child_id)
            why = "the hub has not told of it" if known is None else known.view.reason
            raise CallTimeout(
                f"{self.child_id!r} is not ready after {timeout_s:g} s: {why}.",
                hub_id=self.hub_id,
                child_id=self.child_id,
            )
        return self.status()

    def _is_ready(self, view: RegistryView, copies: int | None) -> bool:
        self._check_started()
        known = view.known(self.child_id)
        if known is None:
            if view.was_seen(self.child_id):
                known_or_raise(view, self.child_id)
            return False
        settled = sum(1 for copy in known.view.replicas if copy.is_settled)
        serves = known.view.health in (Health.OK, Health.DEGRADED)
        return serves and (known.view.health is Health.OK if copies is None else settled >= copies)

    # --- the end ------------------------------------------------------------------------------

    def switchover(self, to: str | None = None) -> Request[MoveResult]:
        """Make another copy the active; see `Hub.switchover`."""
        view = self._open_view()
        return movements.switchover(control_of(view), view, self.child_id, to)

    def migrate(self, replica_id: str, to: str | None = None) -> Request[MoveResult]:
        """Replace one of the copies by one elsewhere; see `Hub.migrate`."""
        view = self._open_view()
        return movements.migrate(control_of(view), view, replica_id, to)

    def stop(self, timeout_s: float = 60) -> None:
        """Stop the child: every copy is gone afterwards. `timeout_s` in seconds.

        Raises `ChildNotFound`, `CallTimeout`, and `NoQuorum` if the hub is partitioned.
        """
        from raphub.control import control_of  # noqa: PLC0415 - handles are used far more often

        control_of(self._open_view()).stop([self.child_id]).result(timeout_s)

    def __reduce__(self) -> tuple[Any, ...]:
        """A handle travels as the names of its hub and its child."""
        return _handle_from, (self.hub_id, self.child_id, self._options.timeout_s)

    def __repr__(self) -> str:
        """One line: how the child is, as this process was last told."""
        known = self._view.known(self.child_id)
        told = "not told of yet" if known is None else known.status().line()
        return f"<ChildHandle {self.hub_id}/{self.child_id}: {told}>"

    def __eq__(self, other: object) -> bool:
        """Handles of the same child are equal."""
        if not isinstance(other, ChildHandle):
            return NotImplemented
        return (self.hub_id, self.child_id) == (other.hub_id, other.child_id)

    def __hash__(self) -> int:
        """Agrees with equality."""
        return hash((self.hub_id, self.child_id))


def _handle_from(hub_id: str, child_id: str, call_timeout_s: float | None) -> ChildHandle[Any]:
    return ChildHandle(hub_id, child_id, call_timeout_s=call_timeout_s)


def _refuse_private(name: str) -> None:
    """Private names are no methods of a child; without this, pickle and IPython would call it."""
    if name.startswith("_"):
        raise AttributeError(name)


OWN_NAMES = frozenset(name for name in vars(ChildHandle) if not name.startswith("_"))
"""The names that a user's method cannot have, if it is to be reached as an attribute."""
