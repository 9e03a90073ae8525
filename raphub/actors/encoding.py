"""How do the core's values become bytes, on the wire and in the journal?

msgpack. A dataclass is a map with the one key True, which holds its name and its fields; so a dict
whose only key is True does not travel. Only the classes listed here can be read, and bytes from
elsewhere can at worst be refused: nothing is unpickled.

Large data may go beside the bytes: where a value holds `Outside(data)`, `pack_apart` leaves the
data where it is and hands it out as a buffer of its own.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from operator import attrgetter
from pickle import PickleBuffer
from typing import Any

import msgpack  # type: ignore[import-untyped]

from raphub.core import dedup, journal, log, messages, model, quorum, records, shipments, views

MODULES = (model, quorum, records, log, dedup, shipments, messages, journal, views)
"""The dataclasses of these modules travel. Their names differ from one another."""

APART_BYTES_MIN = 1024
"""Data below this size goes along with the other bytes: a buffer of its own would cost more."""

_APART = 1
_WITHIN = 2
_INDEX_BYTES = 4
_PACKED_BYTES_KEPT_MAX = 1024 * 1024


class BadBytesError(ValueError):
    """The bytes are not what this version of raphub writes."""


class Outside:
    """Data that is packed without a copy, and arrives as a writable buffer in place of this.

    `data` is bytes, or anything whose memory is in one piece. Whoever packs it must leave it
    unchanged until it has been sent.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes | bytearray | memoryview | PickleBuffer) -> None:
        """Raises `BufferError` or `TypeError` if the memory is not in one piece."""
        raw = data.raw() if isinstance(data, PickleBuffer) else memoryview(data)
        self.data = raw.cast("B") if raw.nbytes else memoryview(b"")


def _classes() -> dict[str, type[Any]]:
    found: dict[str, type[Any]] = {}
    for module in MODULES:
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == module.__name__:
                kind: type[Any] = value
                if is_dataclass(kind):
                    assert name not in found, f"two dataclasses that travel are named {name}"
                    found[name] = kind
    return found


def _enum_in(hint: Any) -> type[Enum] | None:  # noqa: ANN401 - a type hint can be anything
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next((enum for part in typing.get_args(hint) if (enum := _enum_in(part))), None)
    return None


def _reader(cls: type) -> Callable[..., Any]:
    """How an instance is made of its fields; text becomes an enum where one is declared."""
    hints = typing.get_type_hints(cls)
    enums: list[tuple[int, dict[Any, Any]]] = [
        (index, {None: None} | {member.value: member for member in enum})
        for index, field in enumerate(fields(cls))
        if (enum := _enum_in(hints[field.name])) is not None
    ]
    if not enums:
        return cls

    def read(*values: Any) -> Any:  # noqa: ANN401 - any of the classes
        changed = list(values)
        for index, members in enums:
            changed[index] = members[changed[index]]
        return cls(*changed)

    return read


def _writer(cls: type) -> Callable[[Any], dict[bool, tuple[Any, ...]]]:
    """How an instance becomes what msgpack knows."""
    name = cls.__name__
    match [field.name for field in fields(cls)]:
        case []:
            return lambda _: {True: (name,)}
        case [single]:
            get = attrgetter(single)
            return lambda value: {True: (name, get(value))}
        case several:
            get = attrgetter(*several)
            return lambda value: {True: (name, *get(value))}


_CLASSES = _classes()
_READERS = {name: _reader(cls) for name, cls in _CLASSES.items()}
_WRITERS = {cls: _writer(cls) for cls in _CLASSES.values()}


class _Packer:
    """A msgpack packer and where it lays what goes apart; for one thread at a time."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(default=self._write)
        self._apart: list[memoryview] | None = None

    def pack(self, value: object, apart: list[memoryview] | None) -> bytes:
        self._apart = apart
        packed: bytes = self._packer.pack(value)
        self._apart = None
        return packed

    def _write(self, value: object) -> object:
        write = _WRITERS.get(type(value))
        if write is not None:
            return write(value)
        if not isinstance(value, Outside):
            raise TypeError(f"{type(value).__name__} does not travel")
        if self._apart is None or len(value.data) < APART_BYTES_MIN:
            return msgpack.ExtType(_WITHIN, bytes(value.data))
        self._apart.append(value.data)
        index = len(self._apart) - 1
        return msgpack.ExtType(_APART, index.to_bytes(_INDEX_BYTES, "big"))


_idle_packers: list[_Packer] = []


def _pack(value: object, apart: list[memoryview] | None) -> bytes:
    """Packers are used again, as making one costs more than most values; a failed one is not."""
    try:
        packer = _idle_packers.pop()
    except IndexError:
        packer = _Packer()
    packed = packer.pack(value, apart)
    if len(packed) <= _PACKED_BYTES_KEPT_MAX:
        _idle_packers.append(packer)
    return packed


def pack(value: object) -> bytes:
    """The value as bytes. Tuples, dicts, text, bytes, numbers and the core's dataclasses.

    From any thread. Raises `TypeError` for what does not travel.
    """
    return _pack(value, None)


def pack_apart(value: object) -> tuple[bytes, list[memoryview]]:
    """The value as bytes, and the data that `Outside` holds in it, not copied, as `pack` else."""
    apart: list[memoryview] = []
    return _pack(value, apart), apart


def unpack(data: bytes | memoryview, apart: Sequence[bytearray | memoryview] = ()) -> Any:  # noqa: ANN401 - any of the values that `pack` takes
    """The value that was packed. Raises `BadBytesError` for anything else.

    However deep the bytes are nested, no stack overflows: msgpack reads without recursion, and
    refuses what is more than about a thousand deep.
    """
    try:
        return msgpack.unpackb(
            data,
            object_pairs_hook=_read_map,
            ext_hook=partial(_read_extension, apart) if apart else _read_extension_within,
            use_list=False,
            strict_map_key=False,
        )
    except (ValueError, TypeError, LookupError, RecursionError, msgpack.UnpackException) as error:
        raise BadBytesError(f"cannot read {len(data)} bytes: {error!r}") from error


def _read_map(pairs: list[tuple[Any, Any]]) -> Any:  # noqa: ANN401 - a dict, or any of the classes
    if len(pairs) == 1 and pairs[0][0] is True:
        content = pairs[0][1]
        return _READERS[content[0]](*content[1:])
    return dict(pairs)


def _read_extension(
    apart: Sequence[bytearray | memoryview], code: int, data: bytes
) -> bytearray | memoryview:
    if code == _WITHIN:
        return bytearray(data)
    if code == _APART and len(data) == _INDEX_BYTES:
        return apart[int.from_bytes(data, "big")]
    raise BadBytesError(f"unknown extension {code}")


_read_extension_within = partial(_read_extension, ())
