"""Whoever waits reads, nobody reads twice, and a connection's end is told as ever."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from raphub.actors.encoding import Outside
from raphub.actors.peer_reader import PeerReader
from raphub.actors.wire import Connection
from tests.unit.wire_ends import LIMIT_S, Recorder, dialled, forked, listening, played

FRAME_BYTES_MAX = 65_536


@dataclass
class Threads(Recorder):
    """A recorder that keeps which thread told it what, and may be told to fail."""

    threads: list[int] = field(default_factory=list)
    fails_at: object = None

    def received(self, connection: Connection, message: object) -> None:
        if message == self.fails_at:
            raise ZeroDivisionError
        self.threads.append(threading.get_ident())
        self.messages.append(message)


@asynccontextmanager
async def read_apart() -> AsyncIterator[tuple[PeerReader, Connection, Threads, Recorder]]:
    """The reader, the end that it reads for, who is told, and the other side's recorder."""
    async with listening(frame_bytes_max=FRAME_BYTES_MAX) as listener:
        told = Threads()
        connection = await dialled(listener.address, told, frame_bytes_max=FRAME_BYTES_MAX)
        await listener.recorder.until_told("connected")
        reader = PeerReader()
        reader.take(connection)
        yield reader, connection, told, listener.recorder


async def until(is_met: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not is_met():  # noqa: ASYNC110 - other threads make it so
            await asyncio.sleep(0.001)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def in_a_thread(reader: PeerReader, count: int, told: Threads) -> int:
    """Read on one thread until so many messages have come; which thread that was."""

    def read() -> int:
        gives_up_at = time.monotonic() + LIMIT_S
        while len(told.messages) < count and time.monotonic() < gives_up_at:
            reader.read(0.05)
        return threading.get_ident()

    return await asyncio.to_thread(read)


@played
async def test_while_nobody_waits_a_thread_of_its_own_reads_in_order() -> None:
    async with read_apart() as (_, _, told, other):
        for number in range(100):
            other.connections[0].send(number)
        await until(lambda: len(told.messages) == 100)
        assert told.messages == list(range(100))
        assert threading.get_ident() not in told.threads


@played
async def test_whoever_waits_reads_on_its_own_thread() -> None:
    async with read_apart() as (reader, _, told, other):
        reading = asyncio.create_task(in_a_thread(reader, 500, told))
        for number in range(500):
            other.connections[0].send(number)
            await asyncio.sleep(0.0005)
        thread = await reading
        assert told.messages == list(range(500))
        assert told.threads.count(thread) > 400, "the other thread left it the reading"


@played
async def test_large_messages_come_whole_whoever_reads() -> None:
    async with read_apart() as (reader, _, told, other):
        reading = asyncio.create_task(in_a_thread(reader, 3, told))
        for size in (3_000_000, 10, 200_000):
            other.connections[0].send(Outside(os.urandom(size)))
        await reading
        assert [len(message) for message in told.messages] == [3_000_000, 10, 200_000]  # type: ignore[arg-type]


@played
async def test_who_catches_up_has_all_that_came_before() -> None:
    """The other thread is made slow to look: only the one that catches up can have read."""
    async with read_apart() as (reader, _, told, other):
        for number in range(1, 101):
            reader._read_at = time.monotonic()  # Somebody has just read: the thread leaves it.
            other.connections[0].send(number)
            await asyncio.to_thread(reader.catch_up)
            assert told.messages == list(range(1, number + 1))


@played
async def test_news_from_elsewhere_end_a_wait() -> None:
    async with read_apart() as (reader, _, _, _):
        began_at = time.monotonic()
        waiting = asyncio.create_task(asyncio.to_thread(reader.read, LIMIT_S))
        while not waiting.done():
            await asyncio.sleep(0.001)
            reader.interrupt()
        assert time.monotonic() - began_at < LIMIT_S / 2


@played
async def test_the_other_side_ends___told_once_and_no_descriptor_is_left() -> None:
    before = descriptors()
    async with read_apart() as (_, _, told, other):
        other.connections[0].close()
        await until(lambda: told.story == ["connected", "closed"])
    await until(lambda: descriptors() <= before + 2)  # its own two remain


@played
async def test_closed_here___the_other_side_is_told() -> None:
    async with read_apart() as (_, connection, told, other):
        connection.close()
        await until(lambda: other.story == ["connected", "closed"])
        await until(lambda: told.story == ["connected", "closed"])


@played
async def test_who_is_told_fails___this_connection_ends_and_others_go_on() -> None:
    async with read_apart() as (reader, _, told, other):
        told.fails_at = "bad"
        async with listening(frame_bytes_max=FRAME_BYTES_MAX) as second:
            more = Threads()
            reader.take(await dialled(second.address, more, frame_bytes_max=FRAME_BYTES_MAX))
            await second.recorder.until_told("connected")
            other.connections[0].send("bad")
            await until(lambda: told.story == ["connected", "closed"])
            second.recorder.connections[0].send("good")
            await until(lambda: more.messages == ["good"])


@played
async def test_forked_child_lives_on___the_connection_ends_with_its_parents_end() -> None:
    async with read_apart() as (_, connection, _, other), forked():
        connection.close()
        await until(lambda: other.story == ["connected", "closed"])
