"""Two ends of a wire on one loop, for tests that look at both."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from raphub.actors.frames import MESSAGE_BYTES_MAX
from raphub.actors.wire import HANDSHAKE_TIMEOUT_S, Connection, dial, listen

HOST = "127.0.0.1"
SECRET = b"s" * 32
IDENTITY = "hub/child#1"
FRAME_BYTES_MAX = 1000
LIMIT_S = 10.0


@dataclass
class Recorder:
    """A receiver that writes down what it is told."""

    story: list[str] = field(default_factory=list)
    messages: list[object] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    has_news: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, connection: Connection) -> None:
        self.connections.append(connection)
        self._tell("connected")

    def received(self, connection: Connection, message: object) -> None:
        assert connection in self.connections
        self.messages.append(message)
        self._tell("received")

    def closed(self, connection: Connection) -> None:
        assert connection in self.connections
        self._tell("closed")

    def _tell(self, event: str) -> None:
        self.story.append(event)
        self.has_news.set()

    async def until(self, is_met: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not is_met():
                self.has_news.clear()
                await self.has_news.wait()

    async def until_told(self, *story: str) -> None:
        """The story is exactly this."""
        await self.until(lambda: len(self.story) >= len(story))
        assert self.story == list(story)


@dataclass
class Listener:
    """The replica's end."""

    server: asyncio.Server
    address: tuple[str, int]
    recorder: Recorder


@asynccontextmanager
async def listening(
    identity: str = IDENTITY,
    *,
    frame_bytes_max: int = FRAME_BYTES_MAX,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
) -> AsyncIterator[Listener]:
    recorder = Recorder()
    server, address = await listen(
        HOST,
        None,
        SECRET,
        identity,
        recorder,
        frame_bytes_max=frame_bytes_max,
        message_bytes_max=message_bytes_max,
        handshake_timeout_s=handshake_timeout_s,
    )
    try:
        yield Listener(server, address, recorder)
    finally:
        server.close()
        for connection in recorder.connections:
            connection.close()


async def dialled(
    address: tuple[str, int],
    recorder: Recorder,
    *,
    secret: bytes = SECRET,
    identity: str = IDENTITY,
    timeout_s: float = LIMIT_S,
    frame_bytes_max: int = FRAME_BYTES_MAX,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
) -> Connection:
    return await dial(
        address,
        secret,
        identity,
        recorder,
        timeout_s=timeout_s,
        frame_bytes_max=frame_bytes_max,
        message_bytes_max=message_bytes_max,
    )


def played(story: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a test on an event loop of its own, where nothing fails unseen."""

    async def play() -> None:
        troubles: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: troubles.append(told))
        async with asyncio.timeout(LIMIT_S * 2):
            await story()
        assert troubles == []

    def run() -> None:
        asyncio.run(play())

    run.__name__ = getattr(story, "__name__", "story")
    return run


def give(connection: Connection, data: bytes) -> None:
    """As if the data had come over the connection in one piece."""
    left = memoryview(data)
    while left:
        space = connection.get_buffer(-1)
        count = min(len(space), len(left))
        space[:count] = left[:count]
        connection.buffer_updated(count)
        left = left[count:]


def framed(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


@asynccontextmanager
async def forked() -> AsyncIterator[int]:
    """A child of this process that does nothing, as a user's `multiprocessing` makes them."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, b".")
        signal.pause()
        os._exit(0)
    assert os.read(ready, 1)
    os.close(ready)
    os.close(tell)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)  # noqa: ASYNC222 - it is dead
