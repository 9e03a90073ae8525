"""Which attributes has an object, and which of them does its class mark as the copy's own?

An object's attributes are in its dict and in its slots. Those annotated `raphub.Local[...]`, in the
class or in one that it derives from, belong to each copy alone.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from typing import Any

ABSENT: Any = object()
"""Stands for the value of an attribute that there is not."""

HEAP_TYPE = 1 << 9
"""Python's flag of a class that is not built in: a class statement has made it, or nearly so."""

_MARK = ("raphub.decorator", "LocalMark")
_WORD = re.compile(r"\bLocal\b(?=\s*(?:\[|$))")
_QUOTES = ("'", '"')

Slots = dict[str, types.MemberDescriptorType]


def slots_of(cls: type) -> Slots:
    """The attributes in `__slots__`, of the class and of those that it derives from."""
    found: Slots = {}
    for base in cls.__mro__:
        if base.__flags__ & HEAP_TYPE and "__slots__" in vars(base):
            for name, member in vars(base).items():
                if isinstance(member, types.MemberDescriptorType):
                    found.setdefault(name, member)
    return found


def in_slot(slot: types.MemberDescriptorType, target: object) -> Any:  # noqa: ANN401 - the user's
    """The value, or `ABSENT`."""
    try:
        return slot.__get__(target)
    except AttributeError:
        return ABSENT


def attributes_of(target: object, slots: Slots | None = None) -> dict[str, Any]:
    """All attributes by name; `slots` are those of its class, if they are known."""
    values: dict[str, Any] = dict(getattr(target, "__dict__", ()))
    for name, slot in (slots_of(type(target)) if slots is None else slots).items():
        value = in_slot(slot, target)
        if value is not ABSENT:
            values[name] = value
    return values


def local_names(cls: type) -> frozenset[str]:
    """The names of the attributes that `cls` marks as local.

    An annotation that cannot be evaluated here is read as text: its names may be imported for type
    checkers only.
    """
    return frozenset(
        name
        for base in cls.__mro__
        for name, hint in _annotations(base).items()
        if _is_local(hint, base)
    )


def _annotations(cls: type) -> dict[str, Any]:
    try:
        return dict(inspect.get_annotations(cls))
    except Exception:  # noqa: BLE001 - from Python 3.14 on, this runs the user's own words
        return _texts(cls)


def _texts(cls: type) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415 - there is none in an older Python

        return annotationlib.get_annotations(cls, format=annotationlib.Format.STRING)
    return {}


def _is_local(hint: Any, cls: type) -> bool:  # noqa: ANN401 - an annotation can be anything
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        names = getattr(sys.modules.get(cls.__module__), "__dict__", {})
        try:
            meant = eval(hint, dict(names), dict(vars(cls)))  # noqa: S307 - the user's own words
        except Exception:  # noqa: BLE001 - whatever they raise
            return _WORD.search(hint) is not None
        return (hint[0] in _QUOTES or not isinstance(meant, str)) and _is_local(meant, cls)
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return any(_is_mark(said) for said in hint.__metadata__)
    if origin in (typing.ClassVar, typing.Final, typing.Union, types.UnionType):
        return any(_is_local(part, cls) for part in typing.get_args(hint))
    return False


def _is_mark(said: object) -> bool:
    """The mark is known by its name: the module that defines it is above this one."""
    kind = type(said)
    return (kind.__module__, kind.__name__) == _MARK
