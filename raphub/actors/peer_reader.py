"""Which thread reads what the other copies say?

Whichever waits for it. A call that awaits the acknowledgement of its write reads the sockets
itself, as handing the news from one thread to another costs more than reading it; while nobody
waits, a thread of its own reads. Everything else of a connection stays with its asyncio loop.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections import deque

from raphub.actors.wire import Connection

log = logging.getLogger("raphub")

LEAVES_FOR_S = 0.02
"""So long after somebody has read, the thread leaves the reading to others."""
LOOKS_AGAIN_S = 0.01
SPINS_FOR_S = 80e-6
"""An answer that comes within this time finds the thread that waits for it awake."""
_EVENTS = select.POLLIN | select.POLLHUP | select.POLLERR

NEVER = float("-inf")


class PeerReader:
    """Reads any number of connections, one thread at a time."""

    def __init__(self) -> None:
        """There is nothing to read yet."""
        self._new: deque[tuple[socket.socket, Connection]] = deque()
        self._connections: dict[int, tuple[socket.socket, Connection]] = {}
        self._poll = select.poll()
        self._reading = threading.Lock()
        self._is_polling = False
        self._is_awaited = False
        self._is_behind = False
        self._read_at = NEVER
        self._waker, self._woken = socket.socketpair()
        self._waker.settimeout(0)
        self._woken.settimeout(0)
        self._poll.register(self._woken, select.POLLIN)
        threading.Thread(target=self._run, name="raphub-peers", daemon=True).start()

    def take(self, connection: Connection) -> None:
        """Read this connection from now on. On its loop, and not while that reads it."""
        raw = connection.read_elsewhere()
        if raw is not None:
            self._new.append((raw, connection))
            self._wake()

    def read(self, limit_s: float) -> bool:
        """Wait so many seconds for something, and take it in; False at once if another thread does."""
        self._read_at = time.monotonic()
        if not self._reading.acquire(blocking=False):
            self._wake()
            return False
        self._is_awaited = True
        try:
            self._read(limit_s * 1000)
        finally:
            self._is_awaited = False
            self._read_at = time.monotonic()
            self._reading.release()
        return True

    def catch_up(self) -> None:
        """Read all that has come by now, whichever thread was about to."""
        self._is_behind = True
        self._wake()
        while not self._reading.acquire(timeout=LOOKS_AGAIN_S):
            self._wake()
        try:
            self._adopt()
            for descriptor in list(self._connections):
                while self._receive(descriptor):
                    pass
        finally:
            self._is_behind = False
            self._reading.release()

    def interrupt(self) -> None:
        """There is news from elsewhere for whoever waits in `read`."""
        if self._is_awaited:
            self._wake()

    def _wake(self) -> None:
        """End the wait of whichever thread reads."""
        if self._is_polling:
            with contextlib.suppress(BlockingIOError):
                self._waker.send(b".")

    def _run(self) -> None:
        while True:
            if self._is_behind or time.monotonic() - self._read_at < LEAVES_FOR_S:
                time.sleep(LOOKS_AGAIN_S)
                if self._is_behind or self._reading.locked():
                    continue
            with self._reading:
                is_left = time.monotonic() - self._read_at < LEAVES_FOR_S
                self._read(0 if is_left else None)

    # --- while reading ------------------------------------------------------------------------

    def _read(self, limit_ms: float | None) -> None:
        self._is_polling = True
        try:
            self._adopt()
            ready = self._spin() if self._is_awaited else []
            if not ready:
                ready = self._poll.poll(limit_ms)
        finally:
            self._is_polling = False
        for descriptor, _ in ready:
            if descriptor in self._connections:
                self._receive(descriptor)
            else:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)

    def _adopt(self) -> None:
        while self._new:
            raw, connection = self._new.popleft()
            self._connections[raw.fileno()] = (raw, connection)
            self._poll.register(raw, _EVENTS)

    def _spin(self) -> list[tuple[int, int]]:
        """Look again and again for a moment: to fall asleep and be woken takes as long."""
        ends_at = time.monotonic() + SPINS_FOR_S
        while not (ready := self._poll.poll(0)) and time.monotonic() < ends_at:
            pass
        return ready

    def _receive(self, descriptor: int) -> bool:
        """Take in what has come; False if nothing had.

        A connection that has ended, or whose words cannot be taken in, is over.
        """
        raw, connection = self._connections[descriptor]
        try:
            count = raw.recv_into(connection.get_buffer(-1))
            if count:
                connection.buffer_updated(count)
                return True
        except BlockingIOError:
            return False
        except OSError:
            pass
        except Exception:
            log.exception("a connection to another copy is closed, and dialled again")
        self._poll.unregister(descriptor)
        del self._connections[descriptor]
        raw.close()
        connection.close()
        return False
