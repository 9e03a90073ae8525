"""How is a message cut into frames, and put together again?

A frame is a length of four bytes and its content. Most messages are one frame of packed bytes. One
with data apart begins with a frame whose length has the top bit set: it holds the count of buffers
and the packed bytes. Each buffer follows as its size in eight bytes and then as frames, its chunks.

No frame is longer than a limit, and no message than another: neither end need take more at once.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from raphub.actors.encoding import APART_BYTES_MIN, BadBytesError, unpack

Buffer = bytearray | memoryview
Piece = bytes | memoryview

MESSAGE_BYTES_MAX = 4 * 1024**3
_LENGTH = struct.Struct(">I")
_COUNT = struct.Struct(">I")
_SIZE = struct.Struct(">Q")
_HAS_BUFFERS = 1 << 31
_INBOX_BYTES = 16 * 1024
_ROOM_BYTES_MIN = 4 * 1024
_DIRECT_BYTES_MIN = 8 * 1024
"""Less than this goes through the inbox: another turn of the loop costs more than the copy."""
_READ_BYTES_MAX = 256 * 1024
"""So much is read in one turn of the loop, that others wait for less than a millisecond."""
_PIECE_BYTES_MAX = 256 * 1024
"""So large is a piece that a writer gets, that it can write a little at a time."""
_MAPPED_BYTES_MIN = 1024 * 1024
_mmap_flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class TooLargeError(ValueError):
    """The message is above a limit of the wire, and was not sent."""


class FrameWriter:
    """Cuts messages into frames. Keeps nothing, so any thread may use it at any time."""

    def __init__(self, frame_bytes_max: int, message_bytes_max: int) -> None:
        self._frame_bytes_max = min(frame_bytes_max, _HAS_BUFFERS - 1)
        self._message_bytes_max = message_bytes_max

    def frame(self, head: bytes) -> bytes:
        """A message without data apart, as one frame. Raises `TooLargeError`."""
        length = len(head)
        self._check(length, length)
        return _LENGTH.pack(length) + head

    def frames(self, head: bytes, buffers: Sequence[memoryview]) -> tuple[Iterator[Piece], int]:
        """The pieces to write one after the other, and their bytes. Raises `TooLargeError`."""
        length = _COUNT.size + len(head)
        self._check(length, length + sum(map(len, buffers)))
        size = _LENGTH.size + length
        for buffer in buffers:
            chunks = -(-len(buffer) // self._frame_bytes_max)
            size += _SIZE.size + chunks * _LENGTH.size + len(buffer)
        return self._cut(head, buffers), size

    def _check(self, frame_bytes: int, message_bytes: int) -> None:
        if frame_bytes > self._frame_bytes_max:
            raise TooLargeError(
                f"a frame would have {frame_bytes} bytes, and {self._frame_bytes_max} are allowed"
            )
        if message_bytes > self._message_bytes_max:
            raise TooLargeError(
                f"a message would have {message_bytes} bytes, and"
                f" {self._message_bytes_max} are allowed"
            )

    def _cut(self, head: bytes, buffers: Sequence[memoryview]) -> Iterator[Piece]:
        length = _COUNT.size + len(head)
        yield _LENGTH.pack(_HAS_BUFFERS | length) + _COUNT.pack(len(buffers)) + head
        for buffer in buffers:
            before = _SIZE.pack(len(buffer))
            for start in range(0, len(buffer), self._frame_bytes_max):
                chunk = buffer[start : start + self._frame_bytes_max]
                yield before + _LENGTH.pack(len(chunk))
                for at in range(0, len(chunk), _PIECE_BYTES_MAX):
                    yield chunk[at : at + _PIECE_BYTES_MAX]
                before = b""


class FrameReader:
    """Puts messages together from bytes, however these are parted.

    Who has bytes lays them into `space()`, says with `filled` how many, and asks for `messages()`.
    Small frames are read from one inbox, where they lie; large data goes straight to its buffer.
    """

    def __init__(self, frame_bytes_max: int, message_bytes_max: int) -> None:
        self._frame_bytes_max = min(frame_bytes_max, _HAS_BUFFERS - 1)
        self._message_bytes_max = message_bytes_max
        self._inbox = memoryview(bytearray(_INBOX_BYTES))
        self._start = 0
        self._end = 0
        self._wanted: memoryview | None = None
        self._is_direct = False
        self._large: Generator[None, None, Any] | None = None

    def space(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self._start == self._end:
            self._start = self._end = 0
            if self._wanted is not None and len(self._wanted) >= _DIRECT_BYTES_MIN:
                self._is_direct = True
                return self._wanted[:_READ_BYTES_MAX]
        elif _INBOX_BYTES - self._end < _ROOM_BYTES_MIN:
            left = self._end - self._start
            self._inbox[:left] = self._inbox[self._start : self._end]
            self._start, self._end = 0, left
        return self._inbox[self._end :]

    def filled(self, count: int) -> None:
        """So many bytes were laid into `space()`."""
        if self._is_direct:
            assert self._wanted is not None
            self._is_direct = False
            self._wanted = self._wanted[count:]
        else:
            self._end += count

    def take(self, count: int) -> bytes | None:
        """The next bytes, outside any frame; None if fewer have come. For the handshake."""
        if self._end - self._start < count:
            return None
        self._start += count
        return bytes(self._inbox[self._start - count : self._start])

    def messages(self) -> Iterator[Any]:
        """The messages that are whole by now. Raises `BadBytesError` for what is none."""
        while True:
            if self._large is None:
                start = self._start
                left = self._end - start - _LENGTH.size
                if left < 0:
                    return
                (length,) = _LENGTH.unpack_from(self._inbox, start)
                if length < _INBOX_BYTES - _LENGTH.size and length <= self._frame_bytes_max:
                    if left < length:
                        return
                    start += _LENGTH.size
                    self._start = start + length
                    yield unpack(self._inbox[start : start + length])
                    continue
                self._start += _LENGTH.size
                self._large = self._read_large(length)
            try:
                next(self._large)
            except StopIteration as stop:
                self._large = None
                yield stop.value
            else:
                return

    def close(self) -> None:
        """Give up what is on its way."""
        self._wanted = self._large = None

    # --- large messages: each `yield` waits for more bytes ------------------------------------

    def _read_large(self, word: int) -> Generator[None, None, Any]:
        length = word & ~_HAS_BUFFERS
        if length > self._frame_bytes_max:
            raise BadBytesError(f"a frame of {length} bytes is above the limit")
        head = memoryview(_allocate(length))
        yield from self._read_into(head)
        if word == length:
            return unpack(head)
        if length < _COUNT.size:
            raise BadBytesError("a frame without its count of buffers")
        buffers: list[Buffer] = []
        (count,) = _COUNT.unpack_from(head)
        bytes_left = self._message_bytes_max - length
        for _ in range(count):
            (size,) = _SIZE.unpack((yield from self._read(_SIZE.size)))
            bytes_left -= size
            if bytes_left < 0 or size < APART_BYTES_MIN:
                raise BadBytesError(f"a buffer of {size} bytes is outside the limits")
            buffer = _allocate(size)
            yield from self._read_chunks(memoryview(buffer))
            buffers.append(buffer)
        return unpack(head[_COUNT.size :], buffers)

    def _read_chunks(self, target: memoryview) -> Generator[None, None, None]:
        while target:
            (length,) = _LENGTH.unpack((yield from self._read(_LENGTH.size)))
            if not 0 < length <= min(len(target), self._frame_bytes_max):
                raise BadBytesError(f"a chunk of {length} bytes, {len(target)} are to come")
            yield from self._read_into(target[:length])
            target = target[length:]

    def _read_into(self, target: memoryview) -> Generator[None, None, None]:
        self._wanted = target
        while True:
            count = min(self._end - self._start, len(self._wanted))
            self._wanted[:count] = self._inbox[self._start : self._start + count]
            self._start += count
            self._wanted = self._wanted[count:]
            if not self._wanted:
                break
            yield
        self._wanted = None

    def _read(self, count: int) -> Generator[None, None, bytes]:
        while (taken := self.take(count)) is None:
            yield
        return taken


def _allocate(size: int) -> Buffer:
    """A buffer to write to. A large one is not touched here: that would take many milliseconds.

    The kernel gives it memory as it fills. Private, or a forked child would share it.
    """
    try:
        if size < _MAPPED_BYTES_MIN:
            return bytearray(size)
        return memoryview(mmap.mmap(-1, size, flags=_mmap_flags))
    except (MemoryError, OSError) as error:
        raise BadBytesError(f"no room for a buffer of {size} bytes: {error}") from error
