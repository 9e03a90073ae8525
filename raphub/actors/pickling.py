"""How do a user's values become bytes, and values again, while the other threads go on?

cloudpickle, so that lambdas and the classes of a script travel, with large buffers (arrays) beside
the pickle. The pickler writes frames of 64 KiB to a file object in Python, and the unpickler reads
from one: at each frame the interpreter may let another thread run, a heartbeat for example.
"""

from __future__ import annotations

import functools
import gc
import pickle
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType, MappingProxyType, NoneType
from typing import Any

import ray
from ray.cloudpickle import CloudPickler

from raphub.actors import script_classes
from raphub.errors import StateNotReplicable

_CloudPickler: Any = CloudPickler

Buffer = bytes | bytearray | memoryview

ATOMS = frozenset({int, float, complex, str, bytes, bool, NoneType})
"""Values of exactly these types cannot change and hold nothing else."""

APART_BYTES_MIN = 2048
"""A smaller buffer stays within the pickle: a part of its own would cost more."""

_PROTOCOL = 5
_FRAMED_BYTES_MIN = 256 * 1024
_BY_NAME_LENGTH = 2
_STEP_BYTES = 8 * 1024 * 1024


class Pickled:
    """A value as a pickle, and the buffers beside it, which still are the value's own memory.

    Until `release`, the owner of such a buffer cannot be resized. `classes` are those that are only
    named in the pickle.
    """

    __slots__ = ("classes", "stream", "views")

    def __init__(
        self,
        stream: bytes | bytearray,
        views: Sequence[memoryview] = (),
        classes: Mapping[str, type] = MappingProxyType({}),
    ) -> None:
        """Made by `dump`."""
        self.stream = stream
        self.views = views
        self.classes = classes

    def copied(self) -> tuple[Buffer, ...]:
        """The parts to send. The buffers are copied, so that the value may change."""
        return (self.stream, *map(_copied, self.views))

    def release(self) -> None:
        """Let go of the value's memory."""
        for view in self.views:
            view.release()
        self.views = ()


class _Frames:
    """Collects what the pickler writes."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, frame: Buffer) -> None:
        self.data += frame


class _Reader:
    """Hands out what the unpickler reads, without a copy."""

    __slots__ = ("_at", "_view")

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)
        self._at = 0

    def read(self, size: int) -> Any:  # noqa: ANN401 - a buffer does, though the types want bytes
        start = self._at
        piece = self._view[start : start + size]
        self._at = start + len(piece)
        return piece

    def readinto(self, target: memoryview) -> int:
        piece = self.read(len(target))
        target[: len(piece)] = piece
        return len(piece)

    def readline(self) -> bytes:
        """Only pickles of old protocols have lines."""
        rest = bytes(self._view[self._at :])
        return bytes(self.read(rest.find(b"\n") + 1 or len(rest)))


class _Pickler(_CloudPickler):  # type: ignore[misc] # cloudpickle has no types
    """cloudpickle, but for references that may dangle, and for the object whose state this is."""

    def __init__(
        self,
        frames: _Frames,
        views: list[memoryview],
        owner: object,
        classes: dict[str, type] | None,
    ) -> None:
        # Not a method of its own: the pickler would hold itself, and with it all that it has met.
        super().__init__(frames, _PROTOCOL, functools.partial(_is_kept_within, views))
        self._owner = owner
        self._classes = classes
        self._plain: set[type] = set()

    def reducer_override(self, obj: Any) -> Any:  # noqa: ANN401 - what pickle wants
        kind = type(obj)
        if kind in self._plain and obj is not self._owner:
            return obj.__reduce_ex__(_PROTOCOL)
        if kind is FunctionType:
            return super().reducer_override(obj)
        if issubclass(kind, type):
            return self._reduced_class(obj)
        if obj is self._owner:
            return owner_of_state, ()
        if isinstance(obj, ray.ObjectRef):
            raise StateNotReplicable(
                f"an ObjectRef ({obj.hex()}) is inside: its owner can die, and the data with it.",
                hint="Keep the value instead: ray.get(ref).",
            )
        if kind not in self.dispatch_table:
            # What pickle would do next. Looking this up for each object costs more than the rest.
            self._plain.add(kind)
            return obj.__reduce_ex__(_PROTOCOL)
        return NotImplemented

    def _reduced_class(self, cls: type) -> Any:  # noqa: ANN401 - what pickle wants
        name = script_classes.name_of(cls)
        if self._classes is None or name is None:
            reduced = super().reducer_override(cls)
            travels_by_value = isinstance(reduced, tuple) and len(reduced) > _BY_NAME_LENGTH
            if self._classes is None or not travels_by_value or type(cls).__hash__ is None:
                return reduced
            name = script_classes.enter(cls)
        self._classes[name] = cls
        return script_classes.class_named, (name,)


def _is_kept_within(views: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    try:
        view = buffer.raw()
    except BufferError:  # not in one piece: the pickler says so
        return True
    if view.nbytes < APART_BYTES_MIN:
        return True
    views.append(view)
    return False


def dump(
    value: object,
    *,
    owner: object = None,
    reached: list[object] | None = None,
    names_classes: bool = False,
) -> Pickled:
    """Pickle a value and leave its large buffers where they are.

    Where the value refers to `owner`, the copy will refer to its own. Every object that the
    pickler comes by is appended to `reached`. Classes that no module has travel by value; with
    `names_classes`, only their names do, and `script_classes` has to know them where the value is
    loaded. Raises `StateNotReplicable` for an `ObjectRef`, and whatever the value's own code raises.
    """
    if type(value) in ATOMS:
        return Pickled(pickle.dumps(value, _PROTOCOL))
    frames, views, classes = _Frames(), list[memoryview](), dict[str, type]()
    pickler = _Pickler(frames, views, owner, classes if names_classes else None)
    if reached is not None:
        # Asked for a name of each object; `append` is as quick as it gets, and says there is none.
        pickler.persistent_id = reached.append
    pickler.dump(value)
    return Pickled(frames.data, views, classes)


def dumps(value: object) -> tuple[Buffer, ...]:
    """The pickle, and after it the large buffers, copied once: the value may change afterwards.

    From any thread. Raises as `dump`.
    """
    if type(value) in ATOMS:
        return (pickle.dumps(value, _PROTOCOL),)
    pickled = dump(value)
    parts = pickled.copied()
    pickled.release()
    return parts


def loads(parts: Sequence[Buffer], *, owner: object = None) -> Any:  # noqa: ANN401 - the user's
    """The value again. Arrays are built upon the parts themselves, which now belong to them.

    A part that cannot be written to is copied. `owner` stands where the original referred to its
    own. Raises what the value's own code raises, or pickle for bad bytes.
    """
    stream = parts[0]
    before = getattr(_owners, "current", None)
    _owners.current = owner
    try:
        if len(stream) < _FRAMED_BYTES_MIN:
            return pickle.loads(stream, buffers=_writable(parts[1:]))  # noqa: S301 - a copy's own
        unpickler = pickle.Unpickler(_Reader(stream), buffers=_writable(parts[1:]))  # noqa: S301
        with _no_collection:
            return unpickler.load()
    finally:
        _owners.current = before


_owners = threading.local()


def owner_of_state() -> Any:  # noqa: ANN401 - the user's
    """Stands in a pickle for the object whose state it is."""
    return _owners.current


class _NoCollection:
    """Keeps Python from searching for garbage while many objects are being made.

    That would stop all threads, again and again, for longer than the loading takes. Afterwards the
    new objects count as old ones, so that they are not searched at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_on = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._was_on = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._was_on:
                if gc.get_freeze_count() == 0:  # nothing of the user's would be thawed
                    gc.freeze()
                    gc.unfreeze()
                gc.enable()


_no_collection = _NoCollection()


def _writable(parts: Iterable[Buffer]) -> list[Buffer]:
    return [
        bytearray(part) if isinstance(part, bytes) or memoryview(part).readonly else part
        for part in parts
    ]


def _copied(view: memoryview) -> bytearray:
    """Copy by steps, between which another thread may run."""
    if view.nbytes <= _STEP_BYTES:
        return bytearray(view)
    copy = bytearray()
    for start in range(0, view.nbytes, _STEP_BYTES):
        copy += view[start : start + _STEP_BYTES]
    return copy
