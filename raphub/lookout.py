"""How does one wait for an answer and for news of the registry, whichever comes first?

A lookout wakes its caller and judges nothing: whoever is woken looks for himself. It is made before
the first look; whatever comes between a look and the wait after it ends that wait at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import ray

from raphub.registry_view import RegistryView

APPLIED_WITHIN_S = 0.05
FIRST_STEP_S = 0.001


class Lookout:
    """The waits of one caller in synchronous code.

    It waits inside Ray, which gives the CPU of a waiting task to others meanwhile.
    """

    def __init__(self, view: RegistryView) -> None:
        """Whatever the view is told from now on ends the first wait."""
        self._view = view
        self._changes = view.changes

    def wait(self, ref: Any, limit_s: float) -> None:  # noqa: ANN401 - an ObjectRef
        """Wait for so many seconds for the answer that `ref` stands for, or for news.

        None in its place waits for news alone, and raises `HubUnreachable` if none can come.
        """
        if ref is None:
            self._view.wait(self._is_told, limit_s)
        else:
            self._wait_inside_ray(ref, limit_s)
        self._changes = self._view.changes

    def _wait_inside_ray(self, ref: Any, limit_s: float) -> None:  # noqa: ANN401 - an ObjectRef
        gives_up_at = time.monotonic() + limit_s
        # In this order: what was told before the poll was read is not told by its answer.
        poll = self._view.poll_ref
        if self._is_told():
            return
        refs = [ref] if poll is None else [ref, poll]
        ready, _ = ray.wait(refs, num_returns=1, timeout=limit_s)
        if ready and ref not in ready:
            self._await_telling(ref, poll, gives_up_at)

    def _is_told(self) -> bool:
        return self._view.changes != self._changes

    def _await_telling(self, ref: Any, poll: Any, gives_up_at: float) -> None:  # noqa: ANN401 - ObjectRefs
        """The poll was answered: the view's own thread applies what it brought, and polls again.

        Mostly it has done so within a millisecond. Meanwhile an answer is not to wait.
        """
        gives_up_at = min(gives_up_at, time.monotonic() + APPLIED_WITHIN_S)
        step_s = FIRST_STEP_S
        while self._view.poll_ref is poll and not self._is_told():
            left_s = gives_up_at - time.monotonic()
            if left_s <= 0 or ray.wait([ref], timeout=min(step_s, left_s))[0]:
                return
            step_s *= 2


class AsyncLookout:
    """The waits of one coroutine, whose loop goes on meanwhile. Made and used on that loop."""

    def __init__(self, view: RegistryView) -> None:
        """Use it as a context manager: it listens to the view until it is left."""
        self._view = view
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._awaited: Future[Any] | None = None
        self._token = view.add_waker(self._wake)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._view.remove_waker(self._token)

    async def wait(self, answer: Future[Any] | None, limit_s: float) -> None:
        """Wait for so many seconds for the answer, or for news; None waits for news alone.

        Whatever has come since the last wait ended ends this one at once.
        """
        if answer is not None and answer is not self._awaited:
            self._awaited = answer
            answer.add_done_callback(lambda _: self._wake())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._woken.wait()
        self._woken.clear()

    def _wake(self) -> None:
        """Called on threads of Ray and of the view, which a loop that was closed must not hurt."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._woken.set)
