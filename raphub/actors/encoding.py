"""How do the core's values become bytes, on the wire and in the journal?

msgpack, with each dataclass as an extension that holds its name and its fields. Only the classes
listed here can be read, so bytes from elsewhere can at worst be refused: nothing is unpickled.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import msgpack  # type: ignore[import-untyped]

from raphub.core import journal, messages, model, records, views

DEPTH_MAX = 10
"""So many dataclasses may be inside each other: deep ones would overflow the stack of C."""
_DATACLASS = 1


class BadBytesError(ValueError):
    """The bytes are not what this version of raphub writes."""


def _classes() -> dict[str, type[Any]]:
    found: dict[str, type[Any]] = {}
    for module in (model, records, messages, journal, views):
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == module.__name__:
                kind: type[Any] = value
                if is_dataclass(kind):
                    found[name] = kind
    return found


def _enum_in(hint: Any) -> type[Enum] | None:  # noqa: ANN401 - a type hint can be anything
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next((enum for part in typing.get_args(hint) if (enum := _enum_in(part))), None)
    return None


def _reader(cls: type) -> Callable[[tuple[Any, ...]], Any]:
    """How an instance is made of its fields; text becomes an enum where one is declared."""
    hints = typing.get_type_hints(cls)
    enums = [
        (index, enum)
        for index, field in enumerate(fields(cls))
        if (enum := _enum_in(hints[field.name])) is not None
    ]
    if not enums:
        return lambda values: cls(*values)

    def read(values: tuple[Any, ...]) -> Any:  # noqa: ANN401 - any of the classes
        changed = list(values)
        for index, enum in enums:
            if changed[index] is not None:
                changed[index] = enum(changed[index])
        return cls(*changed)

    return read


_CLASSES = _classes()
_READERS = {name: _reader(cls) for name, cls in _CLASSES.items()}
_FIELDS = {cls: [field.name for field in fields(cls)] for cls in _CLASSES.values()}


def pack(value: object) -> bytes:
    """The value as bytes. Tuples, dicts, text, bytes, numbers and the core's dataclasses."""
    return msgpack.packb(value, default=_pack_dataclass)  # type: ignore[no-any-return]


def unpack(data: bytes | memoryview) -> Any:  # noqa: ANN401 - any of the values that `pack` takes
    """The value that was packed. Raises `BadBytesError` for anything else."""
    return _unpack(data, 0)


def _unpack(data: bytes | memoryview, depth: int) -> Any:  # noqa: ANN401 - as above
    try:
        return msgpack.unpackb(data, ext_hook=_HOOKS[depth], use_list=False)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise BadBytesError(f"cannot read {len(data)} bytes: {error}") from error


def _pack_dataclass(value: object) -> msgpack.ExtType:
    names = _FIELDS.get(type(value))
    if names is None:
        raise TypeError(f"{type(value).__name__} does not travel")
    content = (type(value).__name__, *(getattr(value, name) for name in names))
    return msgpack.ExtType(_DATACLASS, pack(content))


def _hook(depth: int) -> Callable[[int, bytes], Any]:
    """What reads a dataclass that is inside `depth` others."""

    def unpack_dataclass(code: int, data: bytes) -> Any:  # noqa: ANN401 - any of the classes
        if code != _DATACLASS:
            raise BadBytesError(f"unknown extension {code}")
        if depth + 1 == DEPTH_MAX:
            raise BadBytesError(f"more than {DEPTH_MAX} values inside each other")
        name, *values = _unpack(data, depth + 1)
        return _READERS[name](tuple(values))

    return unpack_dataclass


_HOOKS = [_hook(depth) for depth in range(DEPTH_MAX)]
