"""How does any thread write to a connection at once, and never wait?

The writer has a descriptor of its own for the connection's socket. Whoever calls writes in place
if nothing is queued; what the kernel does not take is queued, and the loop writes it when the
kernel has room again.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType

from raphub.actors.frames import Piece

_NO_SIGNAL = int(socket.MSG_NOSIGNAL)
_PIECES_MAX = 1024
"""So many pieces Linux takes in one call (IOV_MAX)."""
_TURN_BYTES = 256 * 1024
"""About so much is written in one turn of the loop, that its other connections do not wait."""
_IN_PLACE_BYTES = 1024 * 1024
"""About so much is written by whoever calls, before the loop does the rest."""


class SocketWriter:
    """The one way out of a connection. All methods but `close` may be called from any thread."""

    def __init__(
        self,
        connected: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_failure: Callable[[], None],
    ) -> None:
        """`connected` does not block. `on_failure` is called on the loop if writing fails."""
        self._loop = loop
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._whole_or_failed = _WholeOrFailed(self._lock, self._fail)
        self._socket = connected.dup()
        self._is_stopped = False
        self._is_draining = False
        self._next: deque[Piece] = deque()
        self._queue: deque[Iterator[Piece]] = deque()
        self._unsent_bytes = 0

    @property
    def unsent_bytes(self) -> int:
        """So many bytes wait here for the kernel to take them."""
        return self._unsent_bytes

    def write(self, data: bytes) -> None:
        """Write the data after all that was written before: now, or as soon as there is room."""
        with self._whole_or_failed:
            if self._is_stopped:
                return
            if self._unsent_bytes:
                self._queue.append(iter((data,)))
                self._unsent_bytes += len(data)
                return
            sent = self._send(data)
            if sent < len(data):
                self._next.append(memoryview(data)[sent:])
                self._unsent_bytes = len(data) - sent
                self._drain_later()

    def write_pieces(self, pieces: Iterator[Piece], size: int) -> None:
        """Write the pieces, of `size` bytes together, as `write` does; none is copied."""
        with self._whole_or_failed:
            if self._is_stopped:
                return
            is_first = not self._unsent_bytes
            self._queue.append(pieces)
            self._unsent_bytes += size
            if is_first:
                self._send_next(_IN_PLACE_BYTES)
                if self._unsent_bytes:
                    self._drain_later()

    def stop(self) -> None:
        """Write no more; what waits is lost."""
        with self._lock:
            self._stop()

    def close(self) -> None:
        """Give the descriptor back. On the loop only, which may be watching it."""
        with self._lock:
            self._stop()
            if self._socket.fileno() >= 0:
                self._loop.remove_writer(self._socket)
                self._socket.close()

    def close_in_fork(self) -> None:
        """Give up a forked child's share; nothing else may be called there any more.

        A thread that is not here may have held the lock, and what the loop watches with is the
        parent's, too: both are left alone.
        """
        self._socket.close()

    # --- with the lock held -------------------------------------------------------------------

    def _send(self, data: bytes) -> int:
        """Hand the kernel what it takes; how much it took."""
        try:
            return self._socket.send(data, _NO_SIGNAL)
        except BlockingIOError:
            return 0

    def _send_next(self, bytes_max: int) -> None:
        """Hand the kernel what it takes of the next pieces, in one call."""
        size = sum(map(len, self._next))
        while size < bytes_max and len(self._next) < _PIECES_MAX and self._queue:
            piece = next(self._queue[0], None)
            if piece is None:
                self._queue.popleft()
            else:
                self._next.append(piece)
                size += len(piece)
        try:
            sent = self._socket.sendmsg(self._next, (), _NO_SIGNAL)
        except BlockingIOError:
            return
        self._unsent_bytes -= sent
        while self._next and sent >= len(self._next[0]):
            sent -= len(self._next.popleft())
        if sent:
            self._next[0] = memoryview(self._next[0])[sent:]

    def _drain_later(self) -> None:
        if not self._is_draining:
            self._is_draining = True
            self._call_on_loop(self._begin_draining)

    def _fail(self) -> None:
        self._stop()
        self._call_on_loop(self._on_failure)

    def _stop(self) -> None:
        self._is_stopped = True
        self._unsent_bytes = 0
        self._next.clear()
        self._queue.clear()

    def _call_on_loop(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # The loop is closed: nothing is written any more.
            self._stop()

    # --- on the loop --------------------------------------------------------------------------

    def _begin_draining(self) -> None:
        with self._lock:
            if not self._is_stopped:
                self._loop.add_writer(self._socket, self._drain)

    def _drain(self) -> None:
        with self._whole_or_failed:
            if not self._is_stopped:
                self._send_next(_TURN_BYTES)
            if not self._unsent_bytes:
                self._is_draining = False
                self._loop.remove_writer(self._socket)


class _WholeOrFailed:
    """The lock, held while something is written. Whatever stops that, the writer fails.

    What was being written may be cut anywhere, so nothing may follow it. An `OSError` says only
    that the other side has gone: its sender hears nothing of it.
    """

    def __init__(self, lock: threading.Lock, fail: Callable[[], None]) -> None:
        self._lock = lock
        self._fail = fail

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        story: TracebackType | None,
    ) -> bool:
        try:
            if kind is not None:
                self._fail()
        finally:
            self._lock.release()
        return kind is not None and issubclass(kind, OSError)
