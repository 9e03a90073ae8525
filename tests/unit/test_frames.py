"""Is every message put together as it was cut, and nothing accepted that is above a limit?"""

from __future__ import annotations

import gc
import os
import struct
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raphub.actors.encoding import APART_BYTES_MIN, BadBytesError, Outside, pack_apart
from raphub.actors.frames import FrameReader, FrameWriter, TooLargeError

FRAME_BYTES_MAX = 5000
MESSAGE_BYTES_MAX = 100_000
TOP_BIT = 1 << 31


def written(message: object, frame_bytes_max: int, message_bytes_max: int = 10**9) -> bytes:
    head, buffers = pack_apart(message)
    writer = FrameWriter(frame_bytes_max, message_bytes_max)
    if not buffers:
        return writer.frame(head)
    pieces, size = writer.frames(head, buffers)
    whole = b"".join(pieces)
    assert len(whole) == size
    return whole


def read(reader: FrameReader, data: bytes, steps: Sequence[int] = (10**9,)) -> list[object]:
    """What comes of the data when it arrives in pieces of these sizes, over and over."""
    messages: list[object] = []
    left, turn = memoryview(data), 0
    while left:
        space = reader.space()
        count = min(len(space), len(left), steps[turn % len(steps)])
        space[:count] = left[:count]
        reader.filled(count)
        messages += reader.messages()
        left, turn = left[count:], turn + 1
    return messages


def limited() -> FrameReader:
    return FrameReader(FRAME_BYTES_MAX, MESSAGE_BYTES_MAX)


SIZES = st.integers(0, 3000) | st.sampled_from(
    [1023, 1024, 8191, 8192, 16_380, 16_384, 40_000, 2**20 - 1, 2**20 + 5]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(SIZES, st.lists(SIZES, max_size=3)), min_size=1, max_size=4),
    st.lists(st.integers(1, 100_000), min_size=1, max_size=5),
    st.integers(5_000, 200_000),
)
def test_messages_of_any_size_in_pieces_of_any_size___each_as_it_was_sent(
    shapes: list[tuple[int, list[int]]], steps: list[int], frame_bytes_max: int
) -> None:
    sent = [
        (
            number,
            bytes([number]) * min(text, frame_bytes_max - 3500),
            *(bytes([number, place]) * (size // 2) for place, size in enumerate(sizes)),
        )
        for number, (text, sizes) in enumerate(shapes)
    ]
    whole = b"".join(
        written((number, text, *map(Outside, datas)), frame_bytes_max)
        for number, text, *datas in sent
    )
    assert read(FrameReader(frame_bytes_max, 10**9), whole, [*steps, 60_000]) == sent


def test_large_data___no_frame_is_above_the_limit() -> None:
    data = bytes(range(250)) * 92  # More than four chunks.
    whole = written((Outside(data), Outside(data)), FRAME_BYTES_MAX)
    (word,) = struct.unpack_from(">I", whole)
    assert word & TOP_BIT
    at = 4 + (word & ~TOP_BIT)
    for _ in range(2):
        size = struct.unpack_from(">Q", whole, at)[0]
        assert size == len(data)
        at += 8
        chunks = []
        while sum(chunks) < size:
            chunks.append(struct.unpack_from(">I", whole, at)[0])
            at += 4 + chunks[-1]
        assert chunks == [5000, 5000, 5000, 5000, 3000]
    assert at == len(whole)


def test_message_above_a_limit___not_sent() -> None:
    written(b"x" * (FRAME_BYTES_MAX - 3), FRAME_BYTES_MAX)
    with pytest.raises(TooLargeError, match="5001 bytes, and 5000"):
        written(b"x" * (FRAME_BYTES_MAX - 2), FRAME_BYTES_MAX)
    with pytest.raises(TooLargeError):
        written((b"x" * FRAME_BYTES_MAX, Outside(bytes(2000))), FRAME_BYTES_MAX)
    half = Outside(bytes(MESSAGE_BYTES_MAX // 2))
    with pytest.raises(TooLargeError, match="and 100000 are allowed"):
        written((half, half), FRAME_BYTES_MAX, MESSAGE_BYTES_MAX)


def test_message_at_the_limit___received_and_one_byte_more_refused() -> None:
    head, _ = pack_apart((Outside(bytes(2000)), Outside(bytes(2000))))
    left = MESSAGE_BYTES_MAX - 4 - len(head)
    for more in (0, 1):
        datas = (bytes(left // 2), bytes(left - left // 2 + more))
        whole = written(tuple(map(Outside, datas)), FRAME_BYTES_MAX)
        if more:
            with pytest.raises(BadBytesError, match="outside the limits"):
                read(limited(), whole)
        else:
            assert read(limited(), whole) == [datas]
            assert written(tuple(map(Outside, datas)), FRAME_BYTES_MAX, MESSAGE_BYTES_MAX) == whole


def opening(content: bytes) -> bytes:
    return struct.pack(">I", TOP_BIT | len(content)) + content


ONE = opening(struct.pack(">I", 1) + b"\xc0")

BAD = {
    "a frame above the limit": struct.pack(">I", FRAME_BYTES_MAX + 1),
    "an opening above the limit": struct.pack(">I", TOP_BIT | FRAME_BYTES_MAX + 1),
    "no count": opening(b"abc"),
    "unreadable": opening(struct.pack(">I", 0) + b"\xc1"),
    "a small buffer": ONE + struct.pack(">Q", APART_BYTES_MIN - 1),
    "an empty buffer": ONE + struct.pack(">Q", 0),
    "a buffer above the limit": ONE + struct.pack(">Q", MESSAGE_BYTES_MAX),
    "a buffer without end": ONE + struct.pack(">Q", 2**64 - 1),
    "an empty chunk": ONE + struct.pack(">QI", 2000, 0),
    "a chunk beyond its buffer": ONE + struct.pack(">QI", 2000, 2001),
    "a second chunk beyond": ONE + struct.pack(">QI", 2000, 1999) + bytes(1999) + bytes(3) + b"\2",
    "a chunk above the limit": ONE + struct.pack(">QI", 9000, FRAME_BYTES_MAX + 1),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("step", [1, 10**9])
def test_what_is_no_message___bad_bytes_as_soon_as_it_shows(data: bytes, step: int) -> None:
    with pytest.raises(BadBytesError):
        read(limited(), data, [step])


def test_no_room_for_a_buffer___bad_bytes() -> None:
    reader = FrameReader(FRAME_BYTES_MAX, 2**63)
    with pytest.raises(BadBytesError, match="no room"):
        read(reader, ONE + struct.pack(">Q", 2**62))


def test_given_up_half_way___its_memory_is_free_at_once() -> None:
    reader = FrameReader(2**30, 2**32)
    assert read(reader, ONE + struct.pack(">QI", 2**30, 2**30) + bytes(100_000)) == []
    on_its_way = weakref.ref(reader._large)  # type: ignore[type-var]
    gc.disable()
    reader.close()
    gc.enable()
    assert on_its_way() is None


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def test_much_is_announced_and_nothing_comes___no_memory_is_taken() -> None:
    before = resident_bytes()
    reader = FrameReader(2**30, 2**32)
    assert read(reader, ONE + struct.pack(">QI", 3 * 2**30, 2**30) + bytes(100)) == []
    other = FrameReader(2**30, 2**32)
    assert read(other, struct.pack(">I", 2**30) + bytes(100)) == []
    assert resident_bytes() - before < 50_000_000
    reader.close()
    other.close()


def test_large_data_of_every_size___writable_and_its_own() -> None:
    for size in (APART_BYTES_MIN, 2**20 - 1, 2**20, 3 * 2**20):
        data = bytes(size)
        [(one,), (other,)] = read(FrameReader(2**20, 2**30), written((Outside(data),), 2**20) * 2)
        one[-1] = 7  # type: ignore[index]
        assert other == data  # type: ignore[comparison-overlap]


def test_large_data_in_a_forked_child___a_copy_of_its_own() -> None:
    [(data,)] = read(FrameReader(2**20, 2**30), written((Outside(bytes(2**21)),), 2**20))
    child = os.fork()
    if child == 0:
        data[0] = 7  # type: ignore[index]
        os._exit(data[0])  # type: ignore[index]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert data[0] == 0  # type: ignore[index]
