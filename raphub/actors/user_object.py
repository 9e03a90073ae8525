"""How is the user's object run: one thing at a time, and never in the way of the wire?

A gate lets in one call, callback or constructor at a time. Coroutine methods run on one event loop
of the copy's own. What the user's code raises becomes data, so that the caller gets the very same
exception with its remote traceback, not a wrapper.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import traceback
from collections.abc import Callable
from typing import Any

from raphub.core.model import Role


class Gate:
    """One at a time. `abandon` lets the next one in although the last has not left."""

    def __init__(self) -> None:
        """The gate is open."""
        self._changed = threading.Condition()
        self._inside: object | None = None

    def enter(self) -> object:
        """Wait for the gate; returns the token to leave with."""
        token = object()
        with self._changed:
            while self._inside is not None:
                self._changed.wait()
            self._inside = token
        return token

    def leave(self, token: object) -> None:
        """Open the gate, unless it was abandoned meanwhile."""
        with self._changed:
            if self._inside is token:
                self._inside = None
                self._changed.notify()

    def abandon(self) -> None:
        """Whoever is inside no longer keeps others out."""
        with self._changed:
            self._inside = None
            self._changed.notify()


class UserObject:
    """The user's object, once it is built, and the only way to run its code."""

    def __init__(self) -> None:
        """Nothing is built yet."""
        self.gate = Gate()
        self._object: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def build(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the constructor; raises what it raises."""
        token = self.gate.enter()
        try:
            self._object = cls(*args, **kwargs)
        finally:
            self.gate.leave(token)

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - the user's
        """Run a method inside the gate; raises what it raises."""
        token = self.gate.enter()
        try:
            result = getattr(self._object, method)(*args, **kwargs)
            return self._awaited(result) if inspect.iscoroutine(result) else result
        finally:
            self.gate.leave(token)

    def change_role(self, role: Role) -> str:
        """Tell the object its role; returns "" or what went wrong."""
        told: Callable[[Role], Any] | None = getattr(self._object, "on_role_change", None)
        if told is None:
            return ""
        token = self.gate.enter()
        try:
            result = told(role)
            if inspect.iscoroutine(result):
                self._awaited(result)
        except Exception:  # noqa: BLE001 - the user's; it becomes an event
            return traceback.format_exc(limit=-5)
        finally:
            self.gate.leave(token)
        return ""

    @property
    def hears_roles(self) -> bool:
        """Does the object want to be told its role?"""
        return getattr(self._object, "on_role_change", None) is not None

    def _awaited(self, coroutine: Any) -> Any:  # noqa: ANN401 - the user's
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(
                target=self._loop.run_forever, name="raphub-user-loop", daemon=True
            ).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
