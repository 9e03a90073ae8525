"""Where does the code that asks run: in which copy, in which role?"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from raphub.core.model import Role


@dataclass(frozen=True, slots=True)
class Context:
    """The copy that is executing the present call or role callback.

    `epoch` is the fencing token: it grows at each promotion of the child, and an outside system
    that refuses lower ones is safe from a deposed active. `seq` counts the replicated writes that the
    copy's object has taken in; it is 0 where state is not replicated. `call_id` is the same in every
    retry of a call, and on every copy that executes it: an idempotency key for effects outside. It
    is None in the constructor and in `on_role_change`.
    """

    hub_id: str
    child_id: str
    replica_id: str
    node_id: str
    role: Role | None
    epoch: int
    seq: int = 0
    call_id: str | None = None

    @property
    def is_active(self) -> bool:
        """Does this copy serve?"""
        return self.role is Role.ACTIVE


_current: contextvars.ContextVar[Callable[[], Context] | None] = contextvars.ContextVar(
    "raphub_current", default=None
)


@dataclass(slots=True, eq=False)
class RunningCall:
    """One execution of a call in this process; every execution of it makes the same calls in turn.

    `lanes` belongs to whoever sends those calls: their numbers begin anew with each execution.
    """

    call_id: str
    lanes: dict[Any, Any] = field(default_factory=dict[Any, Any])


_running: contextvars.ContextVar[RunningCall | None] = contextvars.ContextVar(
    "raphub_running", default=None
)


@contextmanager
def calling(call_id: str) -> Generator[None]:
    """Say which call the present thread runs, until the block ends."""
    token = _running.set(RunningCall(call_id))
    try:
        yield
    finally:
        _running.reset(token)


def running_call() -> RunningCall | None:
    """The call that the present thread or task runs, if it runs one."""
    return _running.get()


def call_id_here() -> str | None:
    """The id of the call that the present thread runs, if it runs one."""
    running = _running.get()
    return None if running is None else running.call_id


def enter(ask: Callable[[], Context]) -> None:
    """Say, for the present thread, whom `current` is to ask."""
    _current.set(ask)


def current() -> Context:
    """The copy whose method or callback is running now.

    Valid inside a method, the constructor and `on_role_change` of a child. Raises `RuntimeError`
    anywhere else.
    """
    ask = _current.get()
    if ask is None:
        raise RuntimeError(
            "raphub.current() was called outside of a child. "
            "It works inside the methods of a replicated class while a copy runs them."
        )
    return ask()


def current_or_none() -> Context | None:
    """The copy that is running now, or None outside of a child."""
    ask = _current.get()
    return None if ask is None else ask()
