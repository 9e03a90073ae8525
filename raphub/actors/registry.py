"""Which process has been told what about the hub's children?

The hub actor's side of the push. Every process that uses the hub holds one long poll here; a poll
names the version it has, and is answered as soon as there is a newer one, with all that changed.
Versions count within one term; whoever comes from another term gets everything once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from raphub.actors.encoding import pack
from raphub.core.model import ChildId, ReplicaId
from raphub.core.views import ChildView

REMOVALS_KEPT_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Version:
    """How new a process's copy of the registry is."""

    term: int
    number: int


@dataclass(slots=True)
class Update:
    """What a process has not been told yet. It crosses Ray as it is, handles included.

    `children` holds packed `ChildView`s; `handles` the Ray actor handles of their copies.
    `events` are packed tuples, see `history.py`.
    """

    incarnation: str
    version: Version
    is_whole: bool
    children: dict[ChildId, bytes] = field(default_factory=dict)
    handles: dict[ReplicaId, Any] = field(default_factory=dict)
    removed: tuple[ChildId, ...] = ()
    cluster: bytes = b""


class Registry:
    """What the hub last said of each child, and who waits to hear. Safe for all threads."""

    def __init__(self, incarnation: str, term: int, handles: dict[ReplicaId, Any]) -> None:
        """`handles` belongs to the launcher and is only read."""
        self._incarnation = incarnation
        self._term = term
        self._handles = handles
        self._lock = threading.Lock()
        self._number = 0
        self._children: OrderedDict[ChildId, tuple[int, ChildView]] = OrderedDict()
        self._removed: deque[tuple[int, ChildId]] = deque(maxlen=REMOVALS_KEPT_MAX)
        self._cluster: tuple[int, bytes] = (0, pack(((), (), "")))
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    # --- the hub's thread ---------------------------------------------------------------------

    def publish(self, changes: dict[ChildId, ChildView | None]) -> None:
        """These children are now so; None stands for one that is gone."""
        with self._lock:
            for child_id, view in changes.items():
                self._number += 1
                self._children.pop(child_id, None)
                if view is None:
                    self._removed.append((self._number, child_id))
                else:
                    self._children[child_id] = (self._number, view)
            self._wake()

    def publish_cluster(self, packed: bytes) -> None:
        """The nodes, those that are usable, and why the hub stands still are now so."""
        with self._lock:
            if packed != self._cluster[1]:
                self._number += 1
                self._cluster = (self._number, packed)
                self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for loop, future in waiting:
            loop.call_soon_threadsafe(_set, future)

    # --- polls --------------------------------------------------------------------------------

    async def poll(self, since: Version, timeout_s: float) -> Update:
        """What is newer than `since`; waits up to `timeout_s` seconds for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] | None = None
        with self._lock:
            if since == Version(self._term, self._number):
                future = loop.create_future()
                self._waiting.append((loop, future))
        if future is not None:
            try:
                await asyncio.wait_for(future, timeout_s)
            except TimeoutError:
                with self._lock:
                    self._waiting = [w for w in self._waiting if w[1] is not future]
        return self._update(since)

    def _update(self, since: Version) -> Update:
        with self._lock:
            version = Version(self._term, self._number)
            is_full_memory = len(self._removed) == REMOVALS_KEPT_MAX
            forgot = is_full_memory and self._removed[0][0] > since.number
            is_whole = since.term != self._term or forgot
            after = 0 if is_whole else since.number
            update = Update(self._incarnation, version, is_whole)
            for child_id in reversed(self._children):
                number, view = self._children[child_id]
                if number <= after:
                    break
                update.children[child_id] = pack(view)
                for copy in view.replicas:
                    if copy.replica in self._handles:
                        update.handles[copy.replica] = self._handles[copy.replica]
            if not is_whole:
                update.removed = tuple(c for number, c in self._removed if number > after)
            if self._cluster[0] > after or is_whole:
                update.cluster = self._cluster[1]
            return update


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
