"""By which name do two processes know a class that no module has?

A class of a script, a notebook or a function travels by value, with all its methods: kilobytes, and
a quarter of a millisecond. So its definition travels once, under a name that is made up here.
"""

from __future__ import annotations

import uuid
import weakref

_names: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
_classes: dict[str, type] = {}


def name_of(cls: type) -> str | None:
    """The name under which the class was entered, if it was."""
    try:
        return _names.get(cls)
    except TypeError:  # its metaclass has made it unhashable
        return None


def enter(cls: type, name: str = "") -> str:
    """Let the class be known by this name from now on, or by a new one. From any thread."""
    name = name or f"{cls.__qualname__}#{uuid.uuid4().hex}"
    _classes[name] = cls
    _names[cls] = name
    return name


def is_known(name: str) -> bool:
    """Was a class of this name entered in this process?"""
    return name in _classes


def class_named(name: str) -> type:
    """The class. Raises `LookupError` if it was not entered."""
    return _classes[name]
