"""What is replicated while it is struck, and who uses it meanwhile?

One list, and threads that append to it and read from it as fast as they are answered. What each of
them asked and was told goes into a history.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from typing import Any

import raphub
from raphub import CallTimeout, NotEnoughInSync, RaphubError
from raphub.handle import ChildHandle
from raphub.testing import EMPTY_DIGEST, History, Outcome, Recording, Seen, next_digest

SLICE_S = 1.0
"""How long a client waits at a stretch; then it waits on for the same call."""

PATIENCE_S = 60.0
"""How long a client waits in all. Whoever waits longer has met a child that is not there."""

REST_S = 0.05
"""How long a client rests after an error, so that a child that is lost is not asked in a spin."""

READ_SHARE = 0.2


class Book:
    """An append-only list. It knows nothing of its copies, and whatever it answers can be judged."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.digest = EMPTY_DIGEST

    def append(self, item: str) -> int:
        self.items.append(item)
        self.digest = next_digest(self.digest, item)
        return len(self.items)

    @raphub.read_only
    def read(self) -> Seen:
        return Seen(len(self.items), self.items[-1] if self.items else None, self.digest)

    @raphub.read_only
    def whole(self) -> list[str]:
        return self.items


class Clients:
    """Threads of this process that use one book, from `start` until `stop`."""

    def __init__(self, book: ChildHandle[Book], history: History, *, count: int, seed: int) -> None:
        self.history = history
        self.errors: Counter[str] = Counter()
        self.impatient: list[str] = []
        """What was waited for longer than `PATIENCE_S`, in words."""
        self._book = book
        self._stopping = threading.Event()
        self._flow = threading.Condition()
        self._written = 0
        self._writing = 0
        self._threads = [
            threading.Thread(
                target=self._live, args=(f"c{n}", random.Random(f"{seed}/{n}")), name=f"client-{n}"
            )
            for n in range(1, count + 1)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when every operation has ended or was given up."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def writing(self) -> int:
        """How many appends have been sent and not been answered."""
        return self._writing

    def wait_for_flow(self, timeout_s: float, writes: int = 2) -> bool:
        """Return when so many more appends have been answered, so that others are under way."""
        with self._flow:
            enough = self._written + writes
            return self._flow.wait_for(lambda: self._written >= enough, timeout_s)

    # --- one client ---------------------------------------------------------------------------

    def _live(self, client: str, chance: random.Random) -> None:
        for number in itertools.count(1):
            if self._stopping.is_set():
                return
            try:
                if chance.random() < READ_SHARE:
                    self._read(client)
                else:
                    self._append(client, f"{client}-{number}")
            except Exception as error:  # noqa: BLE001 - reported at the end; the others go on
                name = type(error).__name__
                self.errors[
                    name if isinstance(error, RaphubError) else f"unexpected {error!r}"
                ] += 1
                self._stopping.wait(REST_S)

    def _read(self, client: str) -> None:
        with self.history.begin_read(client) as recording:
            self._follow(recording, self._book.read.remote())

    def _append(self, client: str, item: str) -> None:
        with self.history.begin_append(client, item) as recording:
            self._count(writing=1)
            try:
                is_answered = self._follow(recording, self._book.append.remote(item))
                self._count(writing=0, written=is_answered)
            finally:
                self._count(writing=-1)

    def _count(self, *, writing: int, written: int = 0) -> None:
        with self._flow:
            self._writing += writing
            self._written += written
            if written:
                self._flow.notify_all()

    def _follow(self, recording: Recording, call: raphub.Call[Any]) -> bool:
        """Wait for the answer as long as it takes, on the one call; is it there?

        An error other than a time-out leaves the outcome unknown, unless it says that the call did
        not run.
        """
        gives_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                recording.answered(call.result(timeout_s=SLICE_S))
            except CallTimeout as error:
                if time.monotonic() > gives_up_at:
                    self.impatient.append(error.message)
                    raise
                call = error.call
            except NotEnoughInSync:
                recording.refused()
                raise
            else:
                return True


def acknowledged(history: History) -> list[float]:
    """When appends were answered, in order, as the history's clock tells."""
    return sorted(
        one.ended_at
        for one in history
        if one.item is not None and one.outcome is Outcome.ANSWERED and one.ended_at is not None
    )
