"""How is the user's object run: one thing at a time, and never in the way of the wire?

A gate lets in one call, callback or constructor at a time, or several that only read. Coroutine
methods run on one event loop of the copy's own.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

READ_ONLY_ATTRIBUTE = "__raphub_read_only__"
"""Where `@read_only` leaves its mark."""


class Gate:
    """One at a time, or any number of readers.

    Whoever waits to be alone goes before readers that come later. `abandon` lets the next one in
    although the last has not left.
    """

    def __init__(self) -> None:
        """The gate is open."""
        self._changed = threading.Condition()
        self._inside: object | None = None
        self._readers = 0
        self._waiting = 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one inside."""
        token = object()
        with self._changed:
            self._waiting += 1
            while self._inside is not None or self._readers:
                self._changed.wait()
            self._waiting -= 1
            self._inside = token
        try:
            yield
        finally:
            with self._changed:
                if self._inside is token:
                    self._inside = None
                    self._changed.notify_all()

    @contextmanager
    def among_readers(self) -> Iterator[None]:
        """Be inside together with others that only read."""
        with self._changed:
            while self._inside is not None or self._waiting:
                self._changed.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    def abandon(self) -> None:
        """Whoever is alone inside no longer keeps others out."""
        with self._changed:
            self._inside = None
            self._changed.notify_all()


class UserObject:
    """The user's object, once it is built, and the only way to run its code."""

    def __init__(self) -> None:
        """Nothing is built yet."""
        self.gate = Gate()
        self.target: Any = None
        self.read_only: frozenset[str] = frozenset()
        self._loop: asyncio.AbstractEventLoop | None = None

    def build(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the constructor; raises what it raises."""
        with self.gate.alone():
            self.target = cls(*args, **kwargs)
        self.read_only = frozenset(
            name for name in dir(cls) if getattr(getattr(cls, name), READ_ONLY_ATTRIBUTE, False)
        )

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - the user's
        """Run a method alone; raises what it raises."""
        with self.gate.alone():
            return self.run(method, args, kwargs)

    def run(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - the user's
        """Run a method for whoever is inside the gate; raises what it raises."""
        result = getattr(self.target, method)(*args, **kwargs)
        return self.awaited(result) if inspect.iscoroutine(result) else result

    def tell(self, callback: str, told: object) -> str:
        """Call one of the object's callbacks for whoever is alone; returns "" or what went wrong."""
        found: Callable[[Any], Any] | None = getattr(self.target, callback, None)
        if found is None:
            return ""
        try:
            result = found(told)
            if inspect.iscoroutine(result):
                self.awaited(result)
        except Exception:  # noqa: BLE001 - the user's; it becomes an event
            return traceback.format_exc(limit=-5)
        return ""

    def awaited(self, coroutine: Any) -> Any:  # noqa: ANN401 - the user's
        """The result of a coroutine of the object's own loop."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(
                target=self._loop.run_forever, name="raphub-user-loop", daemon=True
            ).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
