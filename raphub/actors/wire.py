"""How do a hub actor and a replica talk without Ray between them?

One TCP connection, dialled by the hub, kept open: its breaking is the fastest sign of a death. Each
side proves by challenge and response that it knows the hub's secret before any payload is read.
Frames are a length and msgpack bytes; a frame that is too long or unreadable closes the connection.
Everything here runs on one asyncio loop and calls back on it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import socket
import struct
import weakref
from typing import Protocol

from raphub.actors.encoding import BadBytesError, pack, unpack

MAGIC = b"raphub1\n"
NONCE_BYTES = 32
_LENGTH = struct.Struct(">I")
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
        """A frame has arrived."""

    def closed(self, connection: Connection) -> None:
        """The connection is over; told once, and only after `connected`."""


def identity_digest(identity: str) -> bytes:
    """Names a listener without telling more than that."""
    return hashlib.sha256(identity.encode()).digest()


def _proof(secret: bytes, side: bytes, greeting: bytes, nonce: bytes) -> bytes:
    return hmac.digest(secret, side + greeting + nonce, "sha256")


class Connection(asyncio.Protocol):
    """One end of the wire. `is_dialer` tells which; the listener speaks first."""

    def __init__(
        self,
        receiver: Receiver,
        secret: bytes,
        identity: str,
        *,
        is_dialer: bool,
        frame_bytes_max: int,
    ) -> None:
        """`identity` is the listener's: its own, or the one that the dialer expects."""
        self._receiver = receiver
        self._secret = secret
        self._digest = identity_digest(identity)
        self._is_dialer = is_dialer
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._greeting = b""
        self._nonce = b""
        self._is_proved = False
        self._transport: asyncio.Transport | None = None
        self.proved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.bad_frames = 0

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Turn off delays; the listener greets."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        _open_connections.add(self)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._is_dialer:
            self._greeting = MAGIC + self._digest + secrets.token_bytes(NONCE_BYTES)
            transport.write(self._greeting)

    def data_received(self, data: bytes) -> None:
        """Take in bytes; hand out whole frames once both sides are proved."""
        self._buffer += data
        try:
            if not self._is_proved and not self._shake_hands():
                return
            while (frame := self._next_frame()) is not None:
                self._receiver.received(self, unpack(frame))
        except BadBytesError as error:
            self.bad_frames += 1
            self.close(UnreachableError(str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the receiver, if it knows the connection at all."""
        _open_connections.discard(self)
        if not self.proved.done():
            self.proved.set_exception(UnreachableError(f"closed before it was proved: {exc}"))
            self.proved.exception()
        if self._is_proved:
            self._is_proved = False
            self._receiver.closed(self)

    # --- for the owner ------------------------------------------------------------------------

    def send(self, message: object) -> None:
        """Queue a frame; on a closed connection it is lost, as it might be on an open one."""
        if self._transport is not None and self._is_proved and not self._transport.is_closing():
            frame = pack(message)
            self._transport.write(_LENGTH.pack(len(frame)) + frame)

    def close(self, reason: Exception | None = None) -> None:
        """End the connection at once."""
        if reason is not None and not self.proved.done():
            self.proved.set_exception(reason)
            self.proved.exception()
        if self._transport is not None:
            self._transport.abort()

    def close_in_fork(self, null: int) -> None:
        """Give this process's share of the socket up, and say nothing to the other side.

        The transport still owns the number, so it is not closed but made to mean `null`.
        """
        raw = None if self._transport is None else self._transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            os.dup2(null, raw.fileno(), inheritable=False)

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
        if len(self._buffer) < _PROOF_BYTES:
            return False
        nonce, proof = (
            bytes(self._buffer[:NONCE_BYTES]),
            bytes(self._buffer[NONCE_BYTES:_PROOF_BYTES]),
        )
        del self._buffer[:_PROOF_BYTES]
        if not hmac.compare_digest(proof, _proof(self._secret, b"dialer", self._greeting, nonce)):
            self.bad_frames += 1
            self.close(UnreachableError("the dialer does not know the secret"))
            return False
        self._write(_proof(self._secret, b"listener", self._greeting, nonce))
        return True

    def _check_listener(self) -> bool:
        if not self._greeting:
            if len(self._buffer) < _GREETING_BYTES:
                return False
            self._greeting = bytes(self._buffer[:_GREETING_BYTES])
            del self._buffer[:_GREETING_BYTES]
            if not self._greeting.startswith(MAGIC + self._digest):
                self.close(RefusedError("somebody else listens there"))
                return False
            self._nonce = secrets.token_bytes(NONCE_BYTES)
            proof = _proof(self._secret, b"dialer", self._greeting, self._nonce)
            self._write(self._nonce + proof)
        if len(self._buffer) < NONCE_BYTES:
            return False
        proof = bytes(self._buffer[:NONCE_BYTES])
        del self._buffer[:NONCE_BYTES]
        if not hmac.compare_digest(
            proof, _proof(self._secret, b"listener", self._greeting, self._nonce)
        ):
            self.close(UnreachableError("the listener does not know the secret"))
            return False
        return True

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _next_frame(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > self._frame_bytes_max:
            raise BadBytesError(f"a frame of {length} bytes is above the limit")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return frame


async def dial(
    address: tuple[str, int],
    secret: bytes,
    identity: str,
    receiver: Receiver,
    *,
    timeout_s: float,
    frame_bytes_max: int,
) -> Connection:
    """Connect and prove both sides.

    Raises `RefusedError` if nobody, or somebody else, listens there, and `UnreachableError` if
    there is no answer within `timeout_s` seconds or the connection breaks.
    """
    loop = asyncio.get_running_loop()

    def make() -> Connection:
        return Connection(
            receiver, secret, identity, is_dialer=True, frame_bytes_max=frame_bytes_max
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


async def listen(
    host: str,
    ports: tuple[int, int] | None,
    secret: bytes,
    identity: str,
    receiver: Receiver,
    *,
    frame_bytes_max: int,
) -> tuple[asyncio.Server, tuple[str, int]]:
    """Listen on this host's address only, on the first free port of a range or any free one.

    Returns the server and its address. Raises `OSError` if no port of the range is free.
    """

    def make() -> Connection:
        return Connection(
            receiver, secret, identity, is_dialer=False, frame_bytes_max=frame_bytes_max
        )

    bound = _bind(host, ports)
    server = await asyncio.get_running_loop().create_server(make, sock=bound)
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
