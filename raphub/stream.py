"""How are values had from a generator method while it still runs?"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from raphub.actors import calling
from raphub.actors.calling import Header
from raphub.call_options import CallOptions, refuse_unread
from raphub.caller import client_id
from raphub.core import calls
from raphub.core.calls import Attempt
from raphub.errors import CallOutcomeUnknown, CallTimeout
from raphub.known import Known
from raphub.registry_view import RegistryView, hopeless
from raphub.sent import LOOK_AGAIN_S, revived

SLICE_S = 1.0
AHEAD_MAX = 64
"""A copy waits when so many values have not been asked for."""

_OVER = object()
_numbers = itertools.count(1)
_turns = itertools.count()


class Stream:
    """The values of one call of a generator method, in turn: `for` or `async for`, once.

    Until its first value, it follows the child as calls do. A copy that is lost later ends it with
    `CallOutcomeUnknown`: where to go on is known to the caller alone. Writes may run between two
    values. Not for several threads at a time, and it does not pickle.
    """

    def __init__(
        self,
        view: RegistryView,
        child_id: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: CallOptions,
    ) -> None:
        """Ask for it at once, if there is somebody to ask."""
        self._view = view
        self._child_id = child_id
        self._method = method
        self._args, self._kwargs = args, kwargs
        self._options = options
        self._number = next(_numbers)
        self._began_at = time.monotonic()
        self._given = 0
        self._is_aside = options.read_from != "active"
        self._refs: Any = None
        self._attempt: Attempt | None = None
        self._open()

    def __iter__(self) -> Iterator[Any]:
        """The values, each as soon as it is there."""
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - the user's
        """The next value. Raises what the method raises, and what `Call.result` does."""
        value = self._next()
        if value is _OVER:
            raise StopIteration
        return value

    def __aiter__(self) -> AsyncIterator[Any]:
        """The values in asynchronous code, each as soon as it is there."""
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - the user's
        """The next value, as `__next__`. It is awaited in a thread."""
        value = await asyncio.to_thread(self._next)
        if value is _OVER:
            raise StopAsyncIteration
        return value

    def close(self) -> None:
        """Ask for no more. The copy stops at its next value, or a few values later."""
        self._refs, self._attempt, self._args, self._kwargs = None, None, (), {}
        self._given = -1

    def __repr__(self) -> str:
        """For example `<Stream hits.rows>`."""
        return f"<Stream {self._name()}>"

    # --- inside -------------------------------------------------------------------------------

    def _next(self) -> Any:  # noqa: ANN401 - the user's
        if self._given < 0:
            return _OVER
        limit_s, began_at = self._options.timeout_s, time.monotonic()
        while True:
            left_s = SLICE_S
            if limit_s is not None:
                left_s = min(SLICE_S, limit_s - (time.monotonic() - began_at))
            if left_s <= 0:
                raise CallTimeout(
                    f"{self._name()} gave no value within {limit_s:g} s.",
                    hint="Nothing was cancelled: ask the stream for its next value again.",
                    **self._where(),
                )
            if self._refs is None and not self._open():
                error = hopeless(self._view, self._child_id, time.monotonic() - self._began_at)
                if error is not None:
                    raise error
                self._view.wait(self._is_served, left_s)
                continue
            value = self._take(left_s)
            if value is not _NOTHING:
                return value

    def _take(self, left_s: float) -> Any:  # noqa: ANN401 - the user's
        """The next value, `_OVER`, or `_NOTHING` yet."""
        # In this order: a copy that serves no more may have left values before.
        is_overtaken = self._is_overtaken()
        try:
            if not ray.wait([self._refs], num_returns=1, timeout=0 if is_overtaken else left_s)[0]:
                return self._broken("serves no more") if is_overtaken else _NOTHING
            value = ray.get(next(self._refs))
        except StopIteration:
            self.close()
            return _OVER
        except RayTaskError:  # a failed argument, or a value that does not pickle
            self.close()
            raise
        except (RayActorError, RayError):
            return self._broken("is gone, or does not answer")
        match value:
            case calling.Raised(data, story):
                self.close()
                raise revived(data, story, copy=self._attempt.replica if self._attempt else "")
            case calling.Refused(reason):
                return self._broken(f"refused it ({reason})")
            case calling.Withheld():
                return self._broken("lost its right to answer")
            case _:
                self._given += 1
                return value

    def _broken(self, why: str) -> Any:  # noqa: ANN401 - `_NOTHING`
        """Begin again if nothing was given yet; else nobody knows where to go on."""
        attempt = self._attempt
        self._refs, self._attempt = None, None
        if self._given:
            given, self._given = self._given, -1
            raise CallOutcomeUnknown(
                f"{self._name()} broke off after {given} values: the copy "
                f"{attempt.replica if attempt else ''} {why}.",
                hint="Call it again; it begins anew, on the copy that serves then.",
                **self._where(),
            )
        if not self._is_aside:
            changes = self._view.changes
            self._view.wait(lambda: self._view.changes != changes, LOOK_AGAIN_S)
        self._is_aside = False
        return _NOTHING

    def _open(self) -> bool:
        known = self._view.known(self._child_id)
        if known is None:
            return False
        refuse_unread(known, self._method, "stream=True", "stream")
        self._options.check_read(known, self._method)
        copies = self._options.readers(known) if self._is_aside else ()
        copies = copies or known.serving
        if not copies:
            return False
        replica, lag = copies[next(_turns) % len(copies)], self._options.max_lag_writes
        header = Header(
            client_id(),
            self._number,
            known.view.epoch,
            self._method,
            max_lag_writes=calling.ANY_LAG if lag is None else lag,
        )
        remote = known.handles[replica].stream.options(
            num_returns="streaming", _generator_backpressure_num_objects=AHEAD_MAX
        )
        packed, apart = header.packed_with(self._args, self._kwargs)
        self._refs = remote.remote(packed, *apart, **self._kwargs)
        self._attempt = Attempt(replica, known.view.epoch)
        return True

    def _is_served(self) -> bool:
        known = self._view.known(self._child_id)
        return known is not None and bool(known.serving)

    def _is_overtaken(self) -> bool:
        known: Known | None = self._view.known(self._child_id)
        if known is None or self._attempt is None:
            return known is None
        news = known.news(self._attempt)
        if self._attempt.replica in known.passives:
            return False
        return calls.is_news(self._attempt, news)

    def _name(self) -> str:
        return f"{self._child_id}.{self._method}"

    def _where(self) -> dict[str, str]:
        return {"hub_id": self._view.hub_id, "child_id": self._child_id}


_NOTHING = object()
