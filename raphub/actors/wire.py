"""How do a hub actor and a replica talk without Ray between them?

One TCP connection, dialled by the hub, kept open: its breaking is the fastest sign of a death. Each
side proves by challenge and response that it knows the hub's secret before any payload is read.
Bytes that are no message of `frames` close the connection. All is read on one asyncio loop, which
calls back; whoever sends writes in its own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import socket
import threading
import weakref
from collections.abc import Sequence
from typing import Protocol

from raphub.actors.encoding import BadBytesError, pack_apart
from raphub.actors.frames import MESSAGE_BYTES_MAX, FrameReader, FrameWriter
from raphub.actors.socket_writer import SocketWriter

MAGIC = b"raphub1\n"
NONCE_BYTES = 32
HANDSHAKE_TIMEOUT_S = 5.0
_GREETING_BYTES = len(MAGIC) + 2 * NONCE_BYTES
_PROOF_BYTES = 2 * NONCE_BYTES
_open_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_open_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


class RefusedError(Exception):
    """Nobody listens there, or somebody else: the process that did is gone."""


class UnreachableError(Exception):
    """No answer, or a connection that broke: nothing is proved."""


class Receiver(Protocol):
    """Who is told what arrives on a connection."""

    def connected(self, connection: Connection) -> None:
        """Both sides have proved who they are."""

    def received(self, connection: Connection, message: object) -> None:
        """A message has arrived; `Outside` data in it is a writable buffer of its own."""

    def closed(self, connection: Connection) -> None:
        """The connection is over; told once, and only after `connected`."""


def identity_digest(identity: str) -> bytes:
    """Names a listener without telling more than that."""
    return hashlib.sha256(identity.encode()).digest()


def _proof(secret: bytes, side: bytes, greeting: bytes, nonce: bytes) -> bytes:
    return hmac.digest(secret, side + greeting + nonce, "sha256")


class Connection(asyncio.BufferedProtocol):
    """One end of the wire. `is_dialer` tells which; the listener speaks first.

    `send`, `close` and `unsent_bytes` may be used from any thread; the receiver is told on the
    loop's, or on the thread that reads instead of it.
    """

    def __init__(
        self,
        receiver: Receiver,
        secret: bytes,
        identity: str,
        *,
        is_dialer: bool,
        frame_bytes_max: int,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        """`identity` is the listener's: its own, or the one that the dialer expects."""
        self._receiver = receiver
        self._secret = secret
        self._digest = identity_digest(identity)
        self._is_dialer = is_dialer
        self._frames = FrameWriter(frame_bytes_max, message_bytes_max)
        self._reader = FrameReader(frame_bytes_max, message_bytes_max)
        self._writer: SocketWriter | None = None
        self._greeting = b""
        self._nonce = b""
        self._is_proved = False
        self._is_closing = False
        self._read_elsewhere: socket.socket | None = None
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self.proved: asyncio.Future[None] = self._loop.create_future()
        self.bad_frames = 0

    # --- asyncio.BufferedProtocol -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Turn off delays; the listener greets."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        _open_connections.add(self)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._writer = SocketWriter(raw, self._loop, transport.abort)
        except OSError:  # No descriptor is free.
            transport.abort()
            return
        if not self._is_dialer:
            self._greeting = MAGIC + self._digest + secrets.token_bytes(NONCE_BYTES)
            self._write(self._greeting)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's hint is -1
        """Where the next bytes belong."""
        return self._reader.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Take in bytes; hand out whole messages once both sides are proved."""
        self._reader.filled(nbytes)
        try:
            if not self._is_proved and not self._shake_hands():
                return
            for message in self._reader.messages():
                if self._is_closing:
                    return
                self._receiver.received(self, message)
        except BadBytesError as error:
            self.bad_frames += 1
            self.close(UnreachableError(str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the receiver, if it knows the connection at all."""
        _open_connections.discard(self)
        self._is_closing = True
        if self._read_elsewhere is None:
            self._reader.close()
        else:
            with contextlib.suppress(OSError):
                self._read_elsewhere.shutdown(socket.SHUT_RDWR)
        if self._writer is not None:
            self._writer.close()
        self._disprove(UnreachableError(f"closed before it was proved: {exc}"))
        if self._is_proved:
            self._is_proved = False
            self._receiver.closed(self)

    # --- for the owner ------------------------------------------------------------------------

    @property
    def unsent_bytes(self) -> int:
        """So many bytes of what was sent wait for the kernel to take them. From any thread."""
        return 0 if self._writer is None else self._writer.unsent_bytes

    def send(self, message: object) -> None:
        """Send a message after those sent before, from any thread, without ever waiting.

        It is written at once if nothing waits. On a closed connection it is lost, as it might be
        on an open one. The data of an `Outside` in it must stay unchanged while `unsent_bytes` is
        not 0. Raises `TooLargeError` for what is above the limits of the wire, and `TypeError` for
        what does not travel; the connection is none the worse for it.
        """
        self.send_packed(*pack_apart(message))

    def send_packed(self, head: bytes, buffers: Sequence[memoryview]) -> None:
        """Send what `encoding.pack_apart` made of a message, as `send` does."""
        writer = self._writer
        if writer is None or not self._is_proved or self._is_closing:
            return
        if buffers:
            writer.write_pieces(*self._frames.frames(head, buffers))
        else:
            writer.write(self._frames.frame(head))

    def close(self, reason: Exception | None = None) -> None:
        """End the connection at once, from any thread; the receiver is told on the loop."""
        self._is_closing = True
        if self._writer is not None:
            self._writer.stop()
        if threading.get_ident() == self._thread_id:
            self._abort(reason)
        else:
            with contextlib.suppress(RuntimeError):  # The loop is closed, and this with it.
                self._loop.call_soon_threadsafe(self._abort, reason)

    def read_elsewhere(self) -> socket.socket | None:
        """Leave the reading to whoever asks, on another thread; None if the connection is over.

        It lays what the socket has into `get_buffer`, says so with `buffer_updated`, and closes the
        socket and the connection when nothing more comes. On the loop, and not while that reads.
        """
        if self._is_closing or self._transport is None:
            return None
        self._transport.pause_reading()
        self._read_elsewhere = self._transport.get_extra_info("socket").dup()
        return self._read_elsewhere

    def close_unproved(self) -> None:
        """The handshake has taken too long: whoever it is has no more time."""
        if not self.proved.done():
            self.close(UnreachableError("the handshake took too long"))

    def close_in_fork(self, null: int) -> None:
        """Give this process's share of the socket up, and say nothing to the other side.

        The transport still owns its number, so that is not closed but made to mean `null`.
        """
        writer, transport = self._writer, self._transport
        self._writer = self._transport = None
        if writer is not None:
            writer.close_in_fork()
        if self._read_elsewhere is not None:
            self._read_elsewhere.close()
        raw = None if transport is None else transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            os.dup2(null, raw.fileno(), inheritable=False)

    def _abort(self, reason: Exception | None) -> None:
        if reason is not None:
            self._disprove(reason)
        if self._transport is not None:
            self._transport.abort()

    def _disprove(self, reason: Exception) -> None:
        if not self.proved.done():
            self.proved.set_exception(reason)
            self.proved.exception()

    # --- handshake ----------------------------------------------------------------------------

    def _shake_hands(self) -> bool:
        """Advance the handshake; True once both sides are proved."""
        done = self._check_listener() if self._is_dialer else self._check_dialer()
        if done:
            self._is_proved = True
            self.proved.set_result(None)
            self._receiver.connected(self)
        return done

    def _check_dialer(self) -> bool:
        answer = self._reader.take(_PROOF_BYTES)
        if answer is None:
            return False
        nonce, proof = answer[:NONCE_BYTES], answer[NONCE_BYTES:]
        if not hmac.compare_digest(proof, _proof(self._secret, b"dialer", self._greeting, nonce)):
            self.bad_frames += 1
            self.close(UnreachableError("the dialer does not know the secret"))
            return False
        self._write(_proof(self._secret, b"listener", self._greeting, nonce))
        return True

    def _check_listener(self) -> bool:
        if not self._greeting:
            greeting = self._reader.take(_GREETING_BYTES)
            if greeting is None:
                return False
            self._greeting = greeting
            if not greeting.startswith(MAGIC + self._digest):
                self.close(RefusedError("somebody else listens there"))
                return False
            self._nonce = secrets.token_bytes(NONCE_BYTES)
            proof = _proof(self._secret, b"dialer", greeting, self._nonce)
            self._write(self._nonce + proof)
        answer = self._reader.take(NONCE_BYTES)
        if answer is None:
            return False
        if not hmac.compare_digest(
            answer, _proof(self._secret, b"listener", self._greeting, self._nonce)
        ):
            self.close(UnreachableError("the listener does not know the secret"))
            return False
        return True

    def _write(self, data: bytes) -> None:
        if self._writer is not None:
            self._writer.write(data)


async def dial(
    address: tuple[str, int],
    secret: bytes,
    identity: str,
    receiver: Receiver,
    *,
    timeout_s: float,
    frame_bytes_max: int,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
) -> Connection:
    """Connect and prove both sides.

    Raises `RefusedError` if nobody, or somebody else, listens there, and `UnreachableError` if
    there is no answer within `timeout_s` seconds or the connection breaks.
    """
    loop = asyncio.get_running_loop()

    def make() -> Connection:
        return Connection(
            receiver,
            secret,
            identity,
            is_dialer=True,
            frame_bytes_max=frame_bytes_max,
            message_bytes_max=message_bytes_max,
        )

    try:
        async with asyncio.timeout(timeout_s):
            _, connection = await loop.create_connection(make, *address)
            try:
                await connection.proved
            except BaseException:
                connection.close()
                raise
    except ConnectionRefusedError as error:
        raise RefusedError(str(error)) from error
    except (OSError, TimeoutError) as error:
        raise UnreachableError(str(error)) from error
    return connection


async def is_refused(address: tuple[str, int], *, timeout_s: float) -> bool:
    """Does nobody listen there? An address that does not answer in time proves nothing."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(*address)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return False


async def listen(  # noqa: PLR0913 - each of them is said by its name
    host: str,
    ports: tuple[int, int] | None,
    secret: bytes,
    identity: str,
    receiver: Receiver,
    *,
    frame_bytes_max: int,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
) -> tuple[asyncio.Server, tuple[str, int]]:
    """Listen on this host's address only, on the first free port of a range or any free one.

    Whoever dials and has not proved itself within `handshake_timeout_s` seconds is cut off.
    Returns the server and its address. Raises `OSError` if no port of the range is free.
    """
    loop = asyncio.get_running_loop()

    def make() -> Connection:
        connection = Connection(
            receiver,
            secret,
            identity,
            is_dialer=False,
            frame_bytes_max=frame_bytes_max,
            message_bytes_max=message_bytes_max,
        )
        timer = loop.call_later(handshake_timeout_s, connection.close_unproved)
        connection.proved.add_done_callback(lambda _: timer.cancel())
        return connection

    bound = _bind(host, ports)
    server = await loop.create_server(make, sock=bound)
    return server, (host, bound.getsockname()[1])


def _bind(host: str, ports: tuple[int, int] | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidates = (0,) if ports is None else range(ports[0], ports[1] + 1)
    for port in candidates:
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.bind((host, port))
            bound.listen()
        except OSError:
            bound.close()
            continue
        _open_sockets.add(bound)
        return bound
    raise OSError(f"no port from {ports} is free on {host}")


def _close_in_fork() -> None:
    """A forked child must keep nothing open here, or its parent's death would go unseen."""
    for bound in list(_open_sockets):
        bound.close()
    if _open_connections:
        null = os.open(os.devnull, os.O_RDWR)
        for connection in list(_open_connections):
            connection.close_in_fork(null)
        os.close(null)


os.register_at_fork(after_in_child=_close_in_fork)
