"""Are two values the same, although they are in two processes?

A digest of structure and content. Addresses never enter it, nor does the order of a set, which
differs between processes. The order of a dict does, as the user's code can see it.
"""

from __future__ import annotations

import copyreg
import hashlib
import struct
import types
from collections.abc import Callable, Iterable
from enum import Enum
from operator import itemgetter
from typing import Any

import ray
import ray.actor

from raphub.actors.attributes import attributes_of
from raphub.actors.state_image import StateImage

DIGEST_BYTES = 16

BUDGET = 1_000_000
"""So many objects are looked at; of what comes after, only the type counts, and the length."""

_DEPTH_MAX = 150
"""Below this depth, likewise. Each level takes some of the interpreter's own stack."""

_PROTOCOL = 4
_PICKLES = ("__reduce_ex__", "__reduce__", "__getstate__")
_APART_BYTES_MIN = 256
_ARRAY = ("numpy", "ndarray")


def digest_of(value: object, budget: int = BUDGET) -> bytes:
    """16 bytes that are equal for equal values, in whatever process.

    Types count: 1, 1.0 and True differ. So does the sign of 0.0. Classes and functions count by
    their names, exceptions by type and arguments, an object that cannot be pickled by its type.
    Whether two parts are one object does not count, except where a value holds itself.
    """
    write = _ATOMS.get(type(value))
    content = _Walk(budget).read(value, 0)[0] if write is None else write(value)
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def state_digest(target: object, image: StateImage, budget: int = BUDGET) -> bytes:
    """The digest of what `image` replicates of `target`, as `digest_of`.

    Attributes that are local to this copy do not count, and the order of the others does not.
    """
    state = image.state()
    if type(state) is dict and not image.gives_own_state:
        state = dict(sorted(state.items()))
    walk = _Walk(budget)
    walk.enter(target)
    content, _ = walk.read(state, 1)
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _sized(tag: bytes, content: bytes) -> bytes:
    return b"%b%d:" % (tag, len(content)) + content


def _int(value: Any) -> bytes:  # noqa: ANN401 - an int
    if -(1 << 63) <= value < 1 << 63:
        return b"i%d;" % value
    return _sized(b"I", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _str(value: Any) -> bytes:  # noqa: ANN401 - a str
    return _sized(b"s", value.encode("utf-8", "surrogatepass"))


_float_bytes = struct.Struct(">d").pack
_complex_bytes = struct.Struct(">dd").pack

_ATOMS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    type(Ellipsis): lambda _: b"E",
    type(NotImplemented): lambda _: b"M",
    bool: lambda value: b"T" if value else b"F",
    int: _int,
    float: lambda value: b"f" + _float_bytes(value),
    complex: lambda value: b"c" + _complex_bytes(value.real, value.imag),
    str: _str,
    bytes: lambda value: _sized(b"b", value),
    bytearray: lambda value: _sized(b"B", value),
}

_BY_NAME = (
    type,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)

_Read = tuple[bytes, int]
"""What is to be digested of a value, and the depth of the outermost value that it refers back to.

That depth is the value's own, or below it, where the value stands by itself.
"""


class _Walk:
    """One look at a value. Each object within is read once, however often it is met."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._depths: dict[int, int] = {}
        self._known: dict[int, bytes] = {}
        self._kept: list[object] = []

    def enter(self, value: object) -> None:
        """Whatever refers to this value refers to the outermost."""
        self._depths[id(value)] = 0

    def read(self, value: Any, depth: int) -> _Read:  # noqa: ANN401 - the user's
        write = _ATOMS.get(type(value))
        self._budget -= 1
        if write is not None:
            content = write(value)
            return (content if len(content) < _APART_BYTES_MIN else _hashed(content)), depth
        key = id(value)
        known = self._known.get(key)
        if known is not None:
            return known, depth
        outer = self._depths.get(key)
        if outer is not None:
            return b"^%d;" % (depth - outer), outer
        if self._budget < 0 or depth > _DEPTH_MAX:
            return self._outline(value), depth
        self._depths[key] = depth
        content, reach = self._content(value, depth)
        del self._depths[key]
        digest = _hashed(content)
        if reach >= depth:
            self._known[key] = digest
            self._kept.append(value)  # so that its id stays its own
        return digest, min(reach, depth)

    def _content(self, value: Any, depth: int) -> _Read:  # noqa: ANN401 - the user's
        kind = type(value)
        if kind is dict:
            flat = (part for item in value.items() for part in item)
            return self._several(b"{", flat, depth)
        if kind is list or kind is tuple:
            return self._several(b"[" if kind is list else b"(", value, depth)
        if isinstance(value, (set, frozenset)):
            return self._unordered(value, depth)
        named = _named(value)
        if named is not None:
            return named, depth
        if isinstance(value, types.FunctionType):
            held = [_in_cell(cell) for cell in value.__closure__ or ()]
            more = [value.__defaults__, value.__kwdefaults__, *held]
            self._kept.append(more)
            return self._several(b"l" + _name_of(value), more, depth)
        if isinstance(value, BaseException):
            return self._several(b"x" + _name_of(kind), value.args, depth)
        if (kind.__module__, kind.__name__) == _ARRAY:
            return self._array(value, depth)
        return self._object(value, depth)

    def _several(self, tag: bytes, parts: Iterable[Any], depth: int) -> _Read:
        contents, reach = [tag], depth
        for part in parts:
            content, outer = self.read(part, depth + 1)
            contents.append(content)
            reach = min(reach, outer)
        contents.append(b".")
        return b"".join(contents), reach

    def _unordered(self, value: Any, depth: int) -> _Read:  # noqa: ANN401 - a set
        """A set that is too large for the rest of the budget spends all of it, in any order."""
        tag = b"u" + _name_of(type(value))
        read = [self.read(part, depth + 1) for part in list(value)]
        if self._budget < 0:
            self._known.clear()  # which of them were read in full depends on the order
            return self._outline(value), depth
        content = b"".join(sorted(map(itemgetter(0), read)))
        return _sized(tag, content), min([depth, *map(itemgetter(1), read)])

    def _array(self, value: Any, depth: int) -> _Read:  # noqa: ANN401 - numpy's
        tag = b"a" + _name_of(type(value)) + _str(repr(value.dtype)) + _str(repr(value.shape))
        if value.dtype.hasobject:
            return self._several(tag, value.ravel().tolist(), depth)
        try:
            return tag + _hashed(memoryview(value.reshape(-1)).cast("B")), depth
        except (ValueError, TypeError):  # dates, for example, have no such view
            return tag + _hashed(value.tobytes()), depth

    def _object(self, value: Any, depth: int) -> _Read:  # noqa: ANN401 - the user's
        kind = type(value)
        tag = b"o" + _name_of(kind)
        if _is_plain(kind):
            attributes = sorted(attributes_of(value).items())
            return self._several(tag, (part for item in attributes for part in item), depth)
        try:
            reduced = value.__reduce_ex__(_PROTOCOL)
        except Exception:  # noqa: BLE001 - it cannot be pickled, for whatever reason
            return tag, depth
        if isinstance(reduced, str):
            return tag + _str(reduced), depth
        make, args, state, items, pairs = (*reduced, None, None, None)[:5]
        parts = [make, args, state, list(items or ()), list(pairs or ())]
        self._kept.append(parts)
        return self._several(tag, parts, depth)

    @staticmethod
    def _outline(value: Any) -> bytes:  # noqa: ANN401 - the user's
        length = len(value) if type(value) in (dict, list, tuple, set, frozenset) else -1
        return b"~" + _name_of(type(value)) + b"%d;" % length


def _hashed(content: bytes | memoryview) -> bytes:
    return b"#" + hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _name_of(named: Any) -> bytes:  # noqa: ANN401 - a class or a function
    return _str(f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}")


def _in_cell(cell: types.CellType) -> Any:  # noqa: ANN401 - the user's
    try:
        return cell.cell_contents
    except ValueError:
        return NotImplemented  # not yet assigned


def _named(value: Any) -> bytes | None:  # noqa: ANN401 - the user's
    """What is known by its name in each process."""
    if isinstance(value, _BY_NAME):
        return b"t" + _name_of(value)
    if isinstance(value, types.BuiltinFunctionType):
        is_method = not isinstance(value.__self__, (types.ModuleType, type(None)))
        return None if is_method else b"t" + _name_of(value)
    if isinstance(value, types.ModuleType):
        return b"m" + _str(value.__name__)
    if isinstance(value, Enum):
        return b"e" + _name_of(type(value)) + _str(value.name)
    if isinstance(value, ray.ObjectRef):
        return b"r" + _str(value.hex())
    if isinstance(value, ray.actor.ActorHandle):
        return b"h" + _str(value._actor_id.hex())  # noqa: SLF001 - nothing public says it
    return None


def _is_plain(kind: type) -> bool:
    """Has the class nothing of its own to say about how it is pickled?"""
    return (
        all(getattr(kind, name, None) is getattr(object, name, None) for name in _PICKLES)
        and kind not in copyreg.dispatch_table
        and not issubclass(kind, (list, dict, tuple, str, bytes, bytearray, int, float, complex))
    )
