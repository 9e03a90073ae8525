"""How is the user's object kept the same on every copy?

By what changed in it (`state="snapshot"`): the active executes, and its copies take over the
attributes that differ afterwards. Or by what was called (`state="log"`): every copy executes the
same calls in the same order, and what they came to is compared.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from raphub import context
from raphub.actors import calling
from raphub.actors.attributes import local_names
from raphub.actors.digest import digest_of, state_digest
from raphub.actors.encoding import Outside
from raphub.actors.exceptions import portable
from raphub.actors.pickling import Buffer, dumps, loads
from raphub.actors.state_image import StateImage
from raphub.actors.user_object import UserObject
from raphub.core.log import Write
from raphub.core.model import State
from raphub.errors import StateNotReplicable

APART_BYTES_MIN = 1024
WRITE_BYTES = 128
"""About what a write takes besides its answer and its change."""

STATE_CHECK_WRITES = 256
STATE_CHECK_SHARE = 0.01
"""The whole state is compared so seldom that it takes this share of the time at most."""

Parts = tuple[bytes | Outside, ...]


class DivergedError(Exception):
    """The object does not come to what the active's came to."""


@dataclass(frozen=True, slots=True)
class Written:
    """What one call came to: its answer, the same for the wire, and what it changed."""

    answer: Any
    packed: Parts
    change: Any
    answer_bytes: int
    size: int


def parts_of(buffers: Sequence[Buffer]) -> Parts:
    """The buffers as the wire takes them: large ones apart."""
    return tuple(
        bytes(buffer) if len(buffer) < APART_BYTES_MIN else Outside(buffer) for buffer in buffers
    )


def kept(write: Write) -> Write:
    """A write that has arrived, as it can be sent on to others."""
    parts = (*(write.answer or ()), *(write.change or ()))
    if all(type(part) is bytes for part in parts):
        return write
    return replace(write, answer=_sendable(write.answer), change=_sendable(write.change))


def _sendable(parts: Any) -> Any:  # noqa: ANN401 - parts, or nothing
    if parts is None:
        return None
    return tuple(part if isinstance(part, bytes) else Outside(part) for part in parts)


def size_of(parts: Parts) -> int:
    """How many bytes these are."""
    return sum(len(part.data if isinstance(part, Outside) else part) for part in parts)


def held(parts: Sequence[Any]) -> tuple[Buffer, ...]:
    """What stays in the log: whoever builds upon it has to make a copy of its own."""
    return tuple(
        memoryview(part.data if isinstance(part, Outside) else part).toreadonly() for part in parts
    )


class ReplicatedObject(UserObject):
    """The user's object in a copy whose state is replicated."""

    def __init__(self, state: State) -> None:
        """Nothing is built yet."""
        super().__init__()
        self._is_log = state is State.LOG
        self._checked_seq = 0
        self._check_not_before = 0.0
        self.image: StateImage

    def build(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the constructor, and see whether its state can travel; raises if it cannot."""
        super().build(cls, args, kwargs)
        self.image = StateImage(self.target, local_names(cls))
        self.image.whole()

    # --- the active's part --------------------------------------------------------------------

    def write(
        self, header: calling.Header, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Written:
        """Run a call for whoever is alone. Raises `StateNotReplicable` if what it did cannot travel."""
        if self._is_log:
            record = dumps((header.method, args, kwargs, header.is_map))
            answer = self.answer(header.method, args, kwargs, is_map=header.is_map)
            checked = self._state_check()
            change: Any = (_digest(answer), checked, *parts_of(record))
            size = size_of(change[2:])
        else:
            answer = self.answer(header.method, args, kwargs, is_map=header.is_map)
            changed = self.image.capture()
            change = None if changed is None else parts_of(changed)
            size = 0 if change is None else size_of(change)
        try:
            packed = parts_of(dumps(answer))
        except Exception as error:  # noqa: BLE001 - the user's; the call did what it did
            answer = portable(_unpicklable(header.method, error))
            packed = parts_of(dumps(answer))
        answer_bytes = size_of(packed)
        return Written(answer, packed, change, answer_bytes, answer_bytes + size + WRITE_BYTES)

    def answer(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_map: bool
    ) -> Any:  # noqa: ANN401 - the user's
        """What the caller gets: a result, or what `calling` has in its place."""
        if is_map:
            return calling.Mapped(tuple(self._one(method, item, {}) for item in args[0]))
        return self._one(method, args, kwargs)

    def _one(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - the user's
        try:
            return self.run(method, args, kwargs)
        except Exception as error:  # noqa: BLE001 - the user's; it reaches the caller unchanged
            return portable(error)

    def take_whole(self) -> tuple[Any, Parts]:
        """What nobody was sent yet, if there is something, and the whole state for a new copy."""
        change = None if self._is_log else self.image.capture()
        missing = None if change is None else parts_of(change)
        return missing, parts_of(self.image.whole())

    def _state_check(self) -> bytes:
        """The digest of the whole state after this write, now and then."""
        self._checked_seq += 1
        began = time.monotonic()
        if self._checked_seq < STATE_CHECK_WRITES or began < self._check_not_before:
            return b""
        self._checked_seq = 0
        digest = state_digest(self.target, self.image)
        took_s = time.monotonic() - began
        self._check_not_before = began + took_s / STATE_CHECK_SHARE
        return digest

    # --- a passive's part ---------------------------------------------------------------------

    def apply(self, writes: Sequence[Write]) -> None:
        """Take in what the active has written, alone. Raises `DivergedError`, or what goes wrong."""
        with self.gate.alone():
            if self._is_log:
                for write in writes:
                    self._execute(write)
            else:
                changes = [held(write.change) for write in writes if write.change is not None]
                if changes:
                    self.image.apply(changes)

    def install(self, image: Sequence[Any]) -> None:
        """Take in a whole state, alone."""
        with self.gate.alone():
            self.image.apply([tuple(image)])

    def _execute(self, write: Write) -> None:
        if write.change is None:
            return
        digest, checked, *record = write.change
        method, args, kwargs, is_map = loads(held(record))
        with context.calling(f"{write.client}:{write.number}"):
            own = _digest(self.answer(method, args, kwargs, is_map=is_map))
        if own != bytes(digest):
            raise DivergedError(f"{method}() came to something else here at {write.position}")
        if checked and state_digest(self.target, self.image) != bytes(checked):
            raise DivergedError(f"the state is another one here after {write.position}")

    def told(self, callback: str, told: object, *, is_active: bool) -> tuple[str, Any]:
        """Call a callback, alone. Returns what went wrong, and what it changed to be sent.

        What the callback binds belongs to this copy from now on.
        """
        self.image.before_callback()
        trouble = self.tell(callback, told)
        self.image.after_callback()
        if not is_active or self._is_log:
            return trouble, None
        try:
            changed = self.image.capture()
        except StateNotReplicable as error:
            return trouble or str(error), None
        return trouble, None if changed is None else parts_of(changed)


def stored(parts: Sequence[Any]) -> Any:  # noqa: ANN401 - the user's
    """The answer that was kept for a retry."""
    return loads(held(parts))


def _digest(answer: object) -> bytes:
    """What an answer comes to; of an exception, its type and text, not where it was raised."""
    match answer:
        case calling.Raised(error, _):
            return digest_of(("raised", _revived(error)))
        case calling.Mapped(results):
            return digest_of([_digest(result) for result in results])
        case _:
            return digest_of(answer)


def _revived(error: bytes) -> object:
    return loads((error,))


def _unpicklable(method: str, error: Exception) -> StateNotReplicable:
    return StateNotReplicable(
        f"what {method}() returned cannot be pickled, so it cannot be answered: {error}",
        hint="Return plain data. What the method changed stays changed, on every copy.",
    )
