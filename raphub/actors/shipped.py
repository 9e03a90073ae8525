"""What of an object's state do the other copies hold already?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raphub.actors.change import Group, Names
from raphub.actors.pickling import ATOMS

_FLOATS = (float, complex)


class Shipped:
    """The simple values themselves, and of all other groups the marks and the classes.

    `forms` tells the group in which an attribute was shipped. Where that group is not in `groups`
    any more, the attribute is known to exist there, and no more than that.
    """

    __slots__ = ("atoms", "forms", "groups")

    def __init__(self) -> None:
        """They hold nothing."""
        self.atoms: dict[str, Any] = {}
        self.forms: dict[str, Names] = {}
        self.groups: dict[Names, Group] = {}

    def has_atom(self, name: str, value: object) -> bool:
        """Do they hold exactly this simple value?"""
        if name not in self.atoms:
            return False
        held = self.atoms[name]
        if held is value:
            return True
        kind = type(value)
        if type(held) is not kind or held != value:
            return False
        return kind not in _FLOATS or repr(held) == repr(value)  # 0.0 equals -0.0

    def has_group(self, names: Names, mark: bytes) -> bool:
        """Do they hold exactly this?"""
        held = self.groups.get(names)
        return held is not None and held.mark == mark

    def attributes(self) -> Iterator[str]:
        """The attributes that they have."""
        yield from self.atoms
        yield from self.forms

    def classes(self) -> set[str]:
        """The classes that they must know to have this state."""
        return {name for group in self.groups.values() for name in group.classes}

    def groups_of(self, values: Mapping[str, object]) -> list[Names]:
        """The groups that consist of attributes in `values`; those in no such group are alone."""
        found: dict[Names, None] = {}
        for name in values:
            form = self.forms.get(name, ())
            is_there = form in self.groups and all(other in values for other in form)
            found[form if is_there and form else (name,)] = None
        return list(found)

    def take(self, group: Group, values: Mapping[str, Any]) -> None:
        """They hold this group now, which has these values."""
        for name in group.names:
            self.forget(name)
        if len(group.names) == 1 and type(values[group.names[0]]) in ATOMS:
            self.atoms[group.names[0]] = values[group.names[0]]
            return
        self.groups[group.names] = group._replace(parts=())
        for name in group.names:
            self.forms[name] = group.names

    def forget(self, name: str) -> None:
        """Nothing is known of this attribute any more."""
        self.atoms.pop(name, None)
        form = self.forms.pop(name, None)
        if form is not None:
            self.groups.pop(form, None)
