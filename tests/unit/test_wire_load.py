"""Does the wire keep order, wait for nobody and lose nothing, whoever sends and however much?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from raphub.actors.encoding import Outside
from raphub.actors.socket_writer import SocketWriter
from raphub.actors.wire import Connection
from tests.unit.wire_ends import LIMIT_S, Recorder, dialled, forked, listening, played

FRAME_BYTES_MAX = 65_536
MB = 1_000_000


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, Recorder, Connection, Recorder]]:
    """The dialer's end and what it was told; the listener's end, and what that was told."""
    async with listening(frame_bytes_max=FRAME_BYTES_MAX) as listener:
        recorder = Recorder()
        connection = await dialled(listener.address, recorder, frame_bytes_max=FRAME_BYTES_MAX)
        await listener.recorder.until_told("connected")
        yield connection, recorder, listener.recorder.connections[0], listener.recorder


def hold_reading(connection: Connection) -> None:
    assert connection._transport is not None
    connection._transport.pause_reading()


def go_on_reading(connection: Connection) -> None:
    assert connection._transport is not None
    connection._transport.resume_reading()


def descriptor(connection: Connection) -> int:
    assert connection._transport is not None
    return connection._transport.get_extra_info("socket").fileno()  # type: ignore[no-any-return]


def in_threads(count: int, work: Callable[[int], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def run_in_threads(count: int, work: Callable[[int], None]) -> None:
    """Wait for the threads, and let the loop stand still."""
    for thread in in_threads(count, work):
        thread.join(LIMIT_S)
        assert not thread.is_alive()


@played
async def test_sent_from_a_thread___written_at_once_while_the_loop_stands_still() -> None:
    async with connected() as (connection, _, other, listener):
        run_in_threads(1, lambda _: connection.send("at once"))
        assert select.select([descriptor(other)], [], [], LIMIT_S)[0]
        await listener.until_told("connected", "received")


def payload(number: int) -> object:
    """Of very different sizes, so that some are written in place and others queued."""
    size = (0, 10, 2000, 70_000, 300_000)[number % 5]
    data = number.to_bytes(4, "big") * (size // 4)
    return number, Outside(data) if number % 2 else data[: FRAME_BYTES_MAX // 2]


@pytest.mark.parametrize("is_read_meanwhile", [True, False])
def test_sent_from_many_threads___received_whole_and_in_the_order_of_the_calls(
    is_read_meanwhile: bool,
) -> None:
    @played
    async def story() -> None:
        async with connected() as (connection, _, other, listener):
            lock, numbers = threading.Lock(), itertools.count()

            def work(_: int) -> None:
                for _ in range(50):
                    with lock:
                        connection.send(payload(next(numbers)))

            if is_read_meanwhile:
                threads = in_threads(8, work)
            else:
                hold_reading(other)
                run_in_threads(8, work)
                assert connection.unsent_bytes > 0
                threads = []
                go_on_reading(other)
            await listener.until(lambda: len(listener.messages) == 400)
            for thread in threads:
                thread.join()
            assert connection.unsent_bytes == 0
            for number, (received, data) in enumerate(listener.messages):  # type: ignore[misc]
                _, sent = payload(number)  # type: ignore[misc]
                assert (received, data) == (number, getattr(sent, "data", sent))

    story()


@played
async def test_sent_from_many_threads_without_a_lock___each_threads_own_in_order() -> None:
    async with connected() as (connection, _, _, listener):

        def work(number: int) -> None:
            for turn in range(200):
                connection.send((number, turn, Outside(bytes(turn * 20))))

        in_threads(8, work)
        await listener.until(lambda: len(listener.messages) == 1600)
        for number in range(8):
            turns = [turn for thread, turn, _ in listener.messages if thread == number]  # type: ignore[misc]
            assert turns == list(range(200))


@played
async def test_50_mb___arrive_as_they_were_and_can_be_written_to_and_nobody_else_waits() -> None:
    async with connected() as (connection, _, _, listener):
        seconds = Recorder()
        [address] = {listener.connections[0]._transport.get_extra_info("sockname")}  # type: ignore[union-attr]
        second = await dialled(address, seconds, frame_bytes_max=FRAME_BYTES_MAX)
        await listener.until(lambda: len(listener.connections) == 2)
        data = bytearray(os.urandom(MB)) * 50
        connection.send(("large", Outside(data)))
        assert connection.unsent_bytes > 40 * MB
        connection.send("behind it")
        second.send("on another connection")
        await listener.until(lambda: len(listener.messages) == 3)
        [first, (name, arrived), last] = listener.messages  # type: ignore[misc]
        assert (first, name, last) == ("on another connection", "large", "behind it")
        assert arrived == data
        arrived[0] ^= 1
        arrived[-1] ^= 1
        assert arrived != data


@played
async def test_peer_that_does_not_read___what_waits_grows_and_nothing_blocks() -> None:
    async with connected() as (connection, told, other, listener):
        hold_reading(other)
        seen: list[int] = []

        def work(_: int) -> None:
            for _ in range(100):
                connection.send(Outside(bytes(MB)))
                connection.send("and a small one")
                seen.append(connection.unsent_bytes)

        run_in_threads(1, work)
        assert seen[-1] > 80 * MB
        assert seen[-50:] == sorted(seen[-50:])
        # The other way is free meanwhile.
        other.send("heartbeat")
        await told.until_told("connected", "received")
        go_on_reading(other)
        await listener.until(lambda: len(listener.messages) == 200)
        assert connection.unsent_bytes == 0


@played
async def test_small_messages_that_fill_the_kernel___the_rest_waits_and_all_arrive_in_order() -> (
    None
):
    async with connected() as (connection, _, other, listener):
        hold_reading(other)
        sent, filler = 0, "x" * 5000
        while connection.unsent_bytes < MB:
            connection.send((sent, filler))
            sent += 1
        go_on_reading(other)
        await listener.until(lambda: len(listener.messages) == sent)
        assert listener.messages == [(number, filler) for number in range(sent)]
        assert connection.unsent_bytes == 0
        connection.send("in place again")
        assert connection.unsent_bytes == 0
        await listener.until(lambda: listener.messages[-1] == "in place again")


@played
async def test_closed_from_a_thread_while_much_waits___both_are_told_once() -> None:
    async with connected() as (connection, told, other, listener):
        hold_reading(other)
        connection.send(Outside(bytes(50 * MB)))
        await asyncio.sleep(0)
        run_in_threads(1, lambda _: connection.close())
        assert connection.unsent_bytes == 0
        await told.until_told("connected", "closed")
        go_on_reading(other)
        await listener.until_told("connected", "closed")


@played
async def test_closed_while_much_waits___nothing_waits_any_more_and_both_are_told_once() -> None:
    async with connected() as (connection, told, other, listener):
        hold_reading(other)
        connection.send(Outside(bytes(50 * MB)))
        # The loop is watching for room by now.
        await asyncio.sleep(0)
        assert connection.unsent_bytes > 0
        connection.close()
        assert connection.unsent_bytes == 0
        go_on_reading(other)
        await told.until_told("connected", "closed")
        await listener.until_told("connected", "closed")


@played
async def test_closed_from_a_thread___both_are_told_once_and_nothing_more_is_sent() -> None:
    async with connected() as (connection, told, _, listener):

        def work(_: int) -> None:
            connection.send("before")
            connection.close()
            connection.send("after")
            connection.close()

        in_threads(1, work)
        await told.until_told("connected", "closed")
        await listener.until_told("connected", "received", "closed")
        assert listener.messages == ["before"]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@played
async def test_sent_and_closed_at_once_from_many_threads___no_descriptor_is_left_or_mistaken() -> (
    None
):
    async with connected() as (steady, _, _, listener):
        before = descriptors()
        [address] = {listener.connections[0]._transport.get_extra_info("sockname")}  # type: ignore[union-attr]
        for turn in range(30):
            told = Recorder()
            connection = await dialled(address, told, frame_bytes_max=FRAME_BYTES_MAX)

            def work(number: int, closing: Connection = connection, turn: int = turn) -> None:
                for size in range(20):
                    closing.send(Outside(bytes(size * 10_000)))
                    if number == turn % 8 and size == turn % 10:
                        closing.close()

            threads = in_threads(8, work)
            await told.until(lambda told=told: told.story == ["connected", "closed"])  # type: ignore[misc]
            for thread in threads:
                thread.join()
        await listener.until(lambda: listener.story.count("closed") == 30)
        assert descriptors() == before
        # Had bytes been written to another's descriptor, this one would be the first to be hit.
        steady.send("intact")
        await listener.until(lambda: listener.messages[-1] == "intact")


class Interrupted:
    """A socket in whose write a signal strikes."""

    def __init__(self, writing: Connection) -> None:
        assert writing._writer is not None
        self._socket = writing._writer._socket
        writing._writer._socket = self  # type: ignore[assignment]

    def send(self, data: bytes, flags: int) -> int:
        self._socket.send(data[:3], flags)
        raise KeyboardInterrupt

    def sendmsg(self, data: object, ancillary: object, flags: int) -> int:
        self._socket.send(b"abc", flags)
        raise KeyboardInterrupt

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


@pytest.mark.parametrize("message", ["small", Outside(bytes(5000))])
def test_interrupted_in_the_midst_of_writing___closed_rather_than_garbled(message: object) -> None:
    @played
    async def story() -> None:
        async with connected() as (connection, told, _, listener):
            Interrupted(connection)
            with pytest.raises(KeyboardInterrupt):
                connection.send(message)
            connection.send("after")
            await told.until_told("connected", "closed")
            await listener.until_told("connected", "closed")

    story()


@pytest.mark.parametrize("message", ["small", Outside(bytes(5000))])
def test_sent_to_a_peer_that_has_gone___closed_and_the_sender_hears_nothing(
    message: object,
) -> None:
    @played
    async def story() -> None:
        async with connected() as (connection, told, other, _):
            other.close()
            while "closed" not in told.story:
                connection.send(message)
                await asyncio.sleep(0)
            assert connection.unsent_bytes == 0

    story()


@played
async def test_closed_before_the_loop_has_begun_to_watch_for_room___it_never_does() -> None:
    near, far = socket.socketpair()
    near.settimeout(0)
    with near, far:
        writer = SocketWriter(near, asyncio.get_running_loop(), lambda: None)
        writer.write(bytes(50 * MB))
        writer.close()
        writer.close()
        # `played` tells if the loop has had trouble in its next turns.
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def test_written_after_the_loop_has_ended___lost() -> None:
    near, far = socket.socketpair()
    near.settimeout(0)
    loop = asyncio.new_event_loop()
    writer = SocketWriter(near, loop, lambda: None)
    loop.close()
    writer.write(bytes(50 * MB))
    assert writer.unsent_bytes == 0
    writer.write(b"lost")
    writer.close_in_fork()
    near.close()
    with far:
        taken = 0
        while data := far.recv(MB):
            assert data == bytes(len(data))
            taken += len(data)
    assert 0 < taken < 50 * MB


# --- forked children ------------------------------------------------------------------------------


def sockets_of(process: int | str) -> set[Path]:
    found: set[Path] = set()
    for path in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # The listing's own is gone by now.
            found.add(path.readlink())
    return found


def inode(connection: Connection) -> Path:
    return Path(f"/proc/self/fd/{descriptor(connection)}").readlink()


@played
async def test_forked_while_much_waits___the_child_has_no_socket_and_the_parent_goes_on() -> None:
    async with connected() as (connection, _, other, listener):
        hold_reading(other)
        connection.send(Outside(bytes(20 * MB)))
        await asyncio.sleep(0)
        inodes = {inode(connection), inode(other)}
        assert inodes <= sockets_of("self")
        async with forked() as child:
            assert not inodes & sockets_of(child)
            go_on_reading(other)
            await listener.until_told("connected", "received")
            connection.send("after the fork")
            await listener.until_told("connected", "received", "received")


@played
async def test_forked_in_the_midst_of_writing___the_child_does_not_hang_and_sends_nothing() -> None:
    async with connected() as (connection, _, _, listener):
        assert connection._writer is not None
        with connection._writer._lock:
            child = os.fork()
            if child == 0:
                signal.alarm(int(LIMIT_S))
                connection.send("from the child")
                connection.close()
                os._exit(connection.unsent_bytes)
        assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222 - it ends at once, or by its alarm
        connection.send("from the parent")
        await listener.until_told("connected", "received")
        assert listener.messages == ["from the parent"]
