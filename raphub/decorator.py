"""How does a plain class become a replicated one?

`@replicated` returns the class itself, with `remote` and `options` attached: it still works without
Ray. Deriving from `Replicated` adds the same two for type checkers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Annotated, Any, Generic, ParamSpec, TypeVar, overload

from typing_extensions import Unpack

from raphub.actors.user_object import READ_ONLY_ATTRIBUTE
from raphub.errors import ChildAlreadyStarted, InvalidSetting
from raphub.handle import OWN_NAMES, ChildHandle
from raphub.hub import Hub, hub_named, new_child_id
from raphub.options import GivenOptions
from raphub.spec import OPTIONS_ATTRIBUTE, ChildSpec, ReplicatedOptions, class_options

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C", bound=type)
M = TypeVar("M", bound=Callable[..., Any])


class LocalMark:
    """Marks an attribute that belongs to the copy."""


Local = Annotated[T, LocalMark()]
"""`mode: raphub.Local[Role]` marks an attribute that is never shipped to another copy."""


def read_only(method: M) -> M:
    """Mark a method that changes no state: it is not shipped, and may run on a passive.

    A generator method has to be marked to be streamed. Not promised: that this is checked; what
    such a method changes all the same may reach the other copies with a later write, or never.
    """
    setattr(method, READ_ONLY_ATTRIBUTE, True)
    return method


class Prepared(Generic[P, T_co]):
    """A replicated class with options, ready to be started."""

    def __init__(self, cls: Callable[P, T_co], options: dict[str, Any]) -> None:
        """Made by `Class.options(...)`."""
        self._cls = cls
        self._options = options

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ChildHandle[T_co]:
        """Start a child; the handle is there at once, as in Ray. See `Replicated.remote`."""
        return start_one(self._cls, args, kwargs, **self._options)


class Replicated:
    """Derive from this to let type checkers see `remote` and `options`; it adds nothing else."""

    @classmethod
    def remote(cls: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> ChildHandle[T]:
        """Start a child of this class in the default hub; the handle is there at once, as in Ray.

        The arguments are the constructor's; every copy runs it. Calls wait until the child serves;
        if it does not start, they raise `ChildStartFailed`. Starts Ray and the default hub if
        there are none. Raises at once: `InvalidSetting`.
        """
        return start_one(cls, args, kwargs)

    @classmethod
    def options(
        cls: Callable[P, T],
        *,
        child_id: str | None = None,
        hub: str | None = None,
        get_if_exists: bool = False,
        **options: Unpack[GivenOptions],
    ) -> Prepared[P, T]:
        """The same class with other options, a name, or another hub than the default one.

        `get_if_exists=True` returns the running child of that name, if there is one. Raises at
        once: `InvalidSetting` for what cannot be; `.remote(...)` then raises `HubNotFound`, or
        `ChildAlreadyStarted` if a child of that name runs.
        """
        return prepared(cls, dict(options), child_id=child_id, hub=hub, get_if_exists=get_if_exists)


@overload
def replicated(cls: C, /) -> C: ...
@overload
def replicated(**options: Unpack[GivenOptions]) -> Callable[[C], C]: ...
def replicated(cls: type | None = None, /, **options: Any) -> Any:
    """Replicate a class: `@replicated` or `@replicated(factor=2, ...)`.

    Returns the class itself. `Class.remote(...)` starts a child with `factor` live copies on
    different nodes; the options are those of `ReplicatedOptions`. Raises `InvalidSetting` and
    `StateNotReplicable` at once. (In PySyncObj a decorator of this name marks a method; here it
    marks a class.)
    """
    given: dict[str, Any] = {"factor": 2, **options}
    checked = ReplicatedOptions(**given)

    def decorate(decorated: C) -> C:
        if not isinstance(decorated, type):
            raise InvalidSetting(
                f"@replicated marks a class, not {decorated!r}.",
                hint="Decorate the class; every public method of it can then be called.",
            )
        setattr(decorated, OPTIONS_ATTRIBUTE, checked)
        _warn_of_hidden_methods(decorated)
        for name in ("remote", "options"):
            if not hasattr(decorated, name):
                setattr(decorated, name, classmethod(getattr(Replicated, name).__func__))
        return decorated

    return decorate if cls is None else decorate(cls)


def prepared(
    cls: Any,  # noqa: ANN401 - the class, seen by its users as its constructor
    options: dict[str, Any],
    *,
    child_id: str | None,
    hub: str | None,
    get_if_exists: bool,
) -> Prepared[Any, Any]:
    """Check the options now, start later."""
    if get_if_exists and child_id is None:
        raise InvalidSetting(
            "get_if_exists=True needs a child_id to look for.", field="get_if_exists"
        )
    ReplicatedOptions(**options)
    ChildSpec(child_id="unnamed" if child_id is None else child_id, cls=cls, **options)
    wanted = {**options, "child_id": child_id, "hub": hub, "get_if_exists": get_if_exists}
    return Prepared(cls, wanted)


def start_one(
    cls: Any,  # noqa: ANN401 - the class, seen by its users as its constructor
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    child_id: str | None = None,
    hub: str | Hub | None = None,
    get_if_exists: bool = False,
    **options: Any,  # noqa: ANN401 - checked by ChildSpec
) -> ChildHandle[Any]:
    """Start a child and return its handle without waiting for it."""
    found = hub_named(hub)
    said = class_options(cls)
    if child_id is None:
        lifetime = options.get("lifetime") or said.lifetime or "job"
        options["lifetime"] = lifetime
    name = new_child_id(cls) if child_id is None else child_id
    if child_id is not None and found.lookup(name) is not None:
        if get_if_exists:
            return found.get(name)
        raise ChildAlreadyStarted(
            f"the child {name!r} runs already in the hub {found.hub_id!r}.",
            hint="Use .options(child_id=..., get_if_exists=True), or another child_id.",
            hub_id=found.hub_id,
            child_id=name,
        )
    spec = ChildSpec(child_id=name, cls=cls, args=args, kwargs=kwargs, **options)
    started = found.start_child(spec)
    limit_s = options.get("call_timeout_s") or said.call_timeout_s
    return ChildHandle(found.hub_id, name, started=started, call_timeout_s=limit_s)


def _warn_of_hidden_methods(cls: type) -> None:
    for name in sorted(OWN_NAMES & set(vars(cls))):
        warnings.warn(
            f"{cls.__qualname__}.{name} is hidden by the handle's own {name!r}; "
            f"reach it by handle.call({cls.__qualname__}.{name}, ...)",
            stacklevel=3,
        )
