"""Does the wire let in all and only what knows the secret, and tell of each end exactly once?"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from unittest import mock

import msgpack  # type: ignore[import-untyped]
import pytest

from raphub.actors import wire
from raphub.actors.encoding import BadBytesError, Outside, pack, unpack
from raphub.actors.frames import TooLargeError
from raphub.actors.wire import (
    MAGIC,
    NONCE_BYTES,
    Connection,
    RefusedError,
    UnreachableError,
    identity_digest,
    is_refused,
    listen,
)
from raphub.core.messages import LeaseGranted, RoleTaken
from raphub.core.model import Role
from tests.unit.wire_ends import (
    FRAME_BYTES_MAX,
    HOST,
    IDENTITY,
    LIMIT_S,
    SECRET,
    Recorder,
    dialled,
    forked,
    framed,
    give,
    listening,
    played,
)


@asynccontextmanager
async def pretending(answer: Callable[[bytes], bytes], greeting: bytes) -> AsyncIterator[int]:
    """Somebody who listens, greets so, and answers what is sent first so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        if heard := await reader.read(2 * NONCE_BYTES):
            writer.write(answer(heard))
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def greeting_of(identity: str) -> bytes:
    return MAGIC + identity_digest(identity) + bytes(NONCE_BYTES)


@played
async def test_both_sides_are_told_once_and_messages_cross_in_order() -> None:
    async with listening() as listener:
        hub = Recorder()
        connection = await dialled(listener.address, hub)
        await listener.recorder.until_told("connected")
        report = RoleTaken(Role.ACTIVE, 3, "trouble")
        [other] = listener.recorder.connections
        connection.send(LeaseGranted(3, 1.5))
        connection.send({"plain": ("values", 1, None)})
        other.send(report)
        await listener.recorder.until(lambda: len(listener.recorder.messages) == 2)
        await hub.until_told("connected", "received")
        assert listener.recorder.messages == [LeaseGranted(3, 1.5), {"plain": ("values", 1, None)}]
        assert hub.messages == [report]
        connection.close()
        await hub.until_told("connected", "received", "closed")
        await listener.recorder.until_told("connected", "received", "received", "closed")
        # On a closed connection, what is sent is lost, and closing again tells nothing.
        connection.send("lost")
        connection.close()
        assert hub.story[-2:] == ["received", "closed"]


@played
async def test_wrong_secret___unreachable_and_nobody_is_told() -> None:
    async with listening() as listener:
        hub = Recorder()
        with pytest.raises(UnreachableError, match="before it was proved"):
            await dialled(listener.address, hub, secret=b"guessed")
        assert (hub.story, listener.recorder.story) == ([], [])
        await dialled(listener.address, hub)
        await listener.recorder.until_told("connected")


@played
async def test_other_identity___refused_and_no_proof_is_given_away() -> None:
    heard: list[bytes] = []
    async with listening("hub/child#2") as listener:
        hub = Recorder()
        with pytest.raises(RefusedError, match="somebody else"):
            await dialled(listener.address, hub)
        assert (hub.story, listener.recorder.story) == ([], [])

    def answer(first: bytes) -> bytes:
        heard.append(first)
        return first

    async with pretending(answer, greeting_of("hub/child#2")) as port:
        with pytest.raises(RefusedError):
            await dialled((HOST, port), hub)
    assert heard == []


@played
async def test_impostor_that_repeats_our_own_proof___unreachable() -> None:
    hub = Recorder()
    async with pretending(lambda first: first[NONCE_BYTES:], greeting_of(IDENTITY)) as port:
        with pytest.raises(UnreachableError, match="does not know the secret"):
            await dialled((HOST, port), hub)
    assert hub.story == []


@played
async def test_another_protocol___refused() -> None:
    async with pretending(lambda _: b"", b"HTTP/1.1 400 Bad Request\r\n" + bytes(100)) as port:
        with pytest.raises(RefusedError):
            await dialled((HOST, port), Recorder())


@played
async def test_nobody_listens___refused() -> None:
    async with listening() as listener:
        pass
    with pytest.raises(RefusedError):
        await dialled(listener.address, Recorder())
    assert await is_refused(listener.address, timeout_s=LIMIT_S)


@played
async def test_somebody_listens_and_says_nothing___unreachable_in_time_and_not_refused() -> None:
    with socket.create_server((HOST, 0)) as silent:
        address = (HOST, silent.getsockname()[1])
        began = asyncio.get_running_loop().time()
        with pytest.raises(UnreachableError):
            await dialled(address, Recorder(), timeout_s=0.1)
        assert asyncio.get_running_loop().time() - began < LIMIT_S / 2
        assert not await is_refused(address, timeout_s=LIMIT_S)


@played
async def test_closed_in_the_middle_of_the_handshake___unreachable() -> None:
    async with pretending(lambda _: b"", greeting_of(IDENTITY)[:20]) as port:
        with pytest.raises(UnreachableError):
            await dialled((HOST, port), Recorder(), timeout_s=0.1)


async def broken_by(written: bytes) -> None:
    """The listener closes, and tells once, when this arrives after the handshake."""
    async with listening() as listener:
        hub = Recorder()
        connection = await dialled(listener.address, hub)
        connection.send("good")
        connection._write(written)
        await listener.recorder.until_told("connected", "received", "closed")
        await hub.until_told("connected", "closed")
        [other] = listener.recorder.connections
        assert other.bad_frames == 1
        # The listener itself goes on.
        await dialled(listener.address, Recorder())
        await listener.recorder.until_told("connected", "received", "closed", "connected")


def dataclass_of(*content: object) -> bytes:
    return msgpack.packb({True: content})  # type: ignore[no-any-return]


BAD = {
    "no msgpack": b"\xc1\xc1",
    "nothing": b"",
    "two values": pack(1) + pack(2),
    "cut off": pack("a long text")[:-1],
    "an unknown extension": msgpack.packb(msgpack.ExtType(7, b"x")),
    "an unknown class": dataclass_of("os.system", "true"),
    "a class of Python's": dataclass_of("list", (1, 2)),
    "no name": dataclass_of(),
    "no fields": pack({True: 5}),
    "too few fields": dataclass_of("LeaseGranted", 1),
    "too many fields": dataclass_of("LeaseGranted", 1, 2, 3),
    "no such role": dataclass_of("TakeRole", "king", 1),
    "a role that cannot be one": dataclass_of("TakeRole", {}, 1),
    "a name that cannot be one": dataclass_of({}, 1),
    "a key that cannot be one": b"\x81\x80\x01",
    "a buffer that did not come": msgpack.packb(msgpack.ExtType(1, bytes(4))),
    "a buffer without its number": msgpack.packb(msgpack.ExtType(1, b"")),
    "tuples nested without end": b"\x91" * 100_000 + b"\x01",
    "maps nested without end": b"\x81\xc3" * 100_000 + b"\x01",
    "dataclasses nested without end": b"\x81\xc3\x93\xa7FromHub\x03" * 100_000 + b"\x01",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_unreadable_bytes_are_bad_bytes(content: bytes) -> None:
    with pytest.raises(BadBytesError):
        unpack(content)


@played
async def test_unreadable_frame___closed_and_the_listener_goes_on() -> None:
    for content in BAD.values():
        if len(content) <= FRAME_BYTES_MAX:
            await broken_by(framed(content))


@played
async def test_frame_above_the_limit___closed_before_it_has_arrived() -> None:
    await broken_by(struct.pack(">I", FRAME_BYTES_MAX + 1))


@played
async def test_frame_at_the_limit___received() -> None:
    async with listening() as listener:
        connection = await dialled(listener.address, Recorder())
        text = "x" * (FRAME_BYTES_MAX - 3)
        assert len(pack(text)) == FRAME_BYTES_MAX
        connection.send(text)
        await listener.recorder.until_told("connected", "received")
        assert listener.recorder.messages == [text]


@played
async def test_message_above_a_limit___an_error_for_who_sends_and_the_connection_goes_on() -> None:
    async with listening() as listener:
        connection = await dialled(listener.address, Recorder(), message_bytes_max=5000)
        for too_large in ("x" * FRAME_BYTES_MAX, (Outside(bytes(3000)), Outside(bytes(3000)))):
            with pytest.raises(TooLargeError):
                connection.send(too_large)
        connection.send("fits")
        await listener.recorder.until_told("connected", "received")
        assert listener.recorder.messages == ["fits"]


@played
async def test_announced_total_above_the_limit___closed_before_it_has_arrived() -> None:
    async with listening(message_bytes_max=5000) as listener:
        hub = Recorder()
        connection = await dialled(listener.address, hub)
        connection.send((Outside(bytes(3000)), Outside(bytes(10_000_000))))
        await listener.recorder.until_told("connected", "closed")
        await hub.until_told("connected", "closed")
        assert listener.recorder.connections[0].bad_frames == 1


@played
async def test_closed_by_its_owner_in_the_midst_of_messages___no_more_are_told() -> None:
    for moment in ("connected", "received"):
        async with listening() as listener:
            recorder = listener.recorder
            setattr(recorder, moment, closing_after(getattr(recorder, moment)))
            connection = await dialled(listener.address, Recorder())
            connection._write(framed(pack("one")) + framed(pack("two")))
            told = ("connected", "received", "closed")
            await recorder.until_told(*(event for event in told if event in (moment, *told[::2])))


def closing_after(told: Callable[..., None]) -> Callable[..., None]:
    def tell(connection: Connection, *message: object) -> None:
        told(connection, *message)
        connection.close()

    return tell


@played
async def test_frames_in_single_bytes_and_several_in_one___each_received_once() -> None:
    async with listening() as listener:
        connection = await dialled(listener.address, Recorder())
        await listener.recorder.until_told("connected")
        [other] = listener.recorder.connections
        sent = [LeaseGranted(1, 2.0), "text", 7]
        whole = b"".join(framed(pack(message)) for message in sent)
        for byte in whole:
            give(other, bytes([byte]))
        assert listener.recorder.messages == sent
        give(other, whole + whole[:5])
        assert listener.recorder.messages == sent * 2
        give(other, whole[5:])
        assert listener.recorder.messages == sent * 3
        connection.close()


@played
async def test_handshake_in_single_bytes_with_a_frame_on_its_heels___received() -> None:
    """As TCP may deliver it: nothing depends on where the bytes are parted."""
    async with listening() as listener:
        hub = Recorder()
        connection = Connection(
            hub, SECRET, IDENTITY, is_dialer=True, frame_bytes_max=FRAME_BYTES_MAX
        )
        reader, writer = await asyncio.open_connection(*listener.address)
        # The connection's own bytes go through by hand, one by one.
        connection._write = writer.write  # type: ignore[method-assign]
        while not connection.proved.done():
            async with asyncio.timeout(LIMIT_S):
                give(connection, await reader.readexactly(1))
        await listener.recorder.until_told("connected")
        listener.recorder.connections[0].send("first")
        give(connection, await reader.readexactly(len(framed(pack("first")))))
        assert hub.messages == ["first"]
        writer.close()
        await listener.recorder.until_told("connected", "closed")


@played
async def test_handshake_that_does_not_end___cut_off_and_a_proved_connection_stays() -> None:
    async with listening(handshake_timeout_s=0.05) as listener:
        hub = Recorder()
        connection = await dialled(listener.address, hub)
        for said in (b"", bytes(NONCE_BYTES)):
            reader, writer = await asyncio.open_connection(*listener.address)
            writer.write(said)
            async with asyncio.timeout(LIMIT_S):
                assert (await reader.read()).startswith(MAGIC)
            writer.close()
        connection.send("still here")
        await listener.recorder.until_told("connected", "received")


@played
async def test_no_descriptor_is_free___unreachable() -> None:
    async with listening() as listener:
        with (
            mock.patch.object(wire, "SocketWriter", side_effect=OSError("too many open files")),
            pytest.raises(UnreachableError),
        ):
            await dialled(listener.address, Recorder())


@played
async def test_port_range___first_free_one_and_an_error_when_all_are_taken() -> None:
    async with listening() as taken:
        port = taken.address[1]
        with pytest.raises(OSError, match="no port from"):
            await listen(
                HOST, (port, port), SECRET, IDENTITY, Recorder(), frame_bytes_max=FRAME_BYTES_MAX
            )
        server, address = await listen(
            HOST, (port, port + 20), SECRET, IDENTITY, Recorder(), frame_bytes_max=FRAME_BYTES_MAX
        )
        assert port < address[1] <= port + 20
        server.close()


@played
async def test_forked_child_lives_on___its_parents_port_is_closed_with_the_parent() -> None:
    async with listening() as listener, forked():
        listener.server.close()
        assert await is_refused(listener.address, timeout_s=LIMIT_S)


@played
async def test_forked_child_lives_on___its_parents_connections_break_with_the_parent() -> None:
    async with listening() as listener:
        hub = Recorder()
        await dialled(listener.address, hub)
        await listener.recorder.until_told("connected")
        async with forked():
            # As the kernel does when the parent is killed: this end is closed, and no more said.
            listener.recorder.connections[0].close()
            await hub.until_told("connected", "closed")
