"""What has changed in a user's object since it was last shipped, and how does a copy follow?

The state is the object's attributes, except those that belong to the copy, or what `get_state`
gives. Attributes that share something that can change travel in one pickle, so that they share it
in the copy, too; all others travel alone, and only when they have changed.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import hashlib
import inspect
import logging
import pathlib
import re
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from raphub.actors.attributes import ABSENT, HEAP_TYPE, attributes_of, in_slot, slots_of
from raphub.actors.change import MARK_BYTES, Change, Content, Group, Names, read, written
from raphub.actors.culprit import culprit
from raphub.actors.pickling import ATOMS, Pickled, dump, loads
from raphub.errors import StateNotReplicable

_MARK_BYTES_WHOLE_MAX = 4096
"""A pickle below this size is its own mark, and travels in the head of the change."""

_OWN_STATE: Names = ()

_FLOATS = (float, complex)

_UNSHARED = ATOMS | {
    tuple,
    frozenset,
    range,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    types.CodeType,
    type(Ellipsis),
    type(NotImplemented),
}
_VALUES = (
    type,
    enum.Enum,
    dt.date,
    dt.time,
    dt.timedelta,
    dt.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    pathlib.PurePath,
    re.Pattern,
    logging.Logger,  # found by its name in the copy, too
)
_DTYPE = ("numpy", "dtype")


def gives_own_state(cls: type) -> bool:
    """Has the class `get_state` and `set_state`? Raises `StateNotReplicable` if it has but one.

    It also raises where the attributes cannot be all of the state.
    """
    has = [name for name in ("get_state", "set_state") if hasattr(cls, name)]
    for name in has:
        if inspect.iscoroutinefunction(getattr(cls, name)):
            raise StateNotReplicable(
                f"{cls.__qualname__}.{name} is a coroutine function.",
                hint=f"Write `def {name}` without `async`: no call runs at the same time.",
            )
    if len(has) == 1:
        missing = "set_state" if has == ["get_state"] else "get_state"
        raise StateNotReplicable(
            f"{cls.__qualname__} has {has[0]}, but no {missing}.",
            hint=f"Give it {missing}, too; or drop {has[0]}, and the attributes are the state.",
        )
    if not has:
        for base in cls.__mro__:
            if base is not object and not base.__flags__ & HEAP_TYPE:
                raise StateNotReplicable(
                    f"{cls.__qualname__} derives from {base.__qualname__}, whose content is in no "
                    f"attribute.",
                    hint="Keep it in an attribute, or give the class get_state and set_state.",
                )
    return bool(has)


class _Shipped:
    """What the other copies hold: the simple values themselves, and the marks of all other groups.

    `forms` tells the group in which an attribute was shipped. Where that group has no mark any
    more, the attribute is known to exist there, and no more than that.
    """

    __slots__ = ("atoms", "forms", "marks")

    def __init__(self) -> None:
        self.atoms: dict[str, Any] = {}
        self.marks: dict[Names, bytes] = {}
        self.forms: dict[str, Names] = {}

    def take(self, group: Group, values: Mapping[str, Any]) -> None:
        """This group was shipped."""
        for name in group.names:
            self.forget(name)
        if len(group.names) == 1 and type(values[group.names[0]]) in ATOMS:
            self.atoms[group.names[0]] = values[group.names[0]]
            return
        self.marks[group.names] = group.mark
        for name in group.names:
            self.forms[name] = group.names

    def forget(self, name: str) -> None:
        """Nothing is known of this attribute any more."""
        self.atoms.pop(name, None)
        form = self.forms.pop(name, None)
        if form is not None:
            self.marks.pop(form, None)

    def known(self) -> Iterator[str]:
        """The attributes that the other copies have."""
        yield from self.atoms
        yield from self.forms


class StateImage:
    """The state of one object, and what the other copies hold of it.

    `local` are the names that the class marks, see `attributes.local_names`. Nothing here waits or locks: the
    caller sees to it that neither the object's methods nor anything else of this runs meanwhile.
    """

    def __init__(self, target: object, local: Iterable[str] = ()) -> None:
        """Nothing is known to be shipped. Raises `StateNotReplicable` as `gives_own_state`."""
        self._target: Any = target
        self._local = set(local)
        self._slots = slots_of(type(target))
        self.gives_own_state = gives_own_state(type(target))
        self._shipped = _Shipped()
        self._before_callback: dict[str, Any] | None = None

    # --- questions ----------------------------------------------------------------------------

    @property
    def local(self) -> frozenset[str]:
        """The names of the attributes that belong to this copy, as far as is known by now."""
        return frozenset(self._local)

    def state(self) -> Any:  # noqa: ANN401 - the user's
        """What is replicated: a dict of attributes, or what `get_state` gives."""
        return self._target.get_state() if self.gives_own_state else self._attributes()

    def _attributes(self) -> dict[str, Any]:
        values = attributes_of(self._target, self._slots)
        for name in self._local:
            values.pop(name, None)
        return values

    # --- role callbacks -----------------------------------------------------------------------

    def before_callback(self) -> None:
        """`on_role_change` is about to be called."""
        self._before_callback = attributes_of(self._target, self._slots)

    def after_callback(self) -> frozenset[str]:
        """It has returned or raised: what it has bound, rebound or deleted is local from now on.

        Returns the names of these. Assigning the very object that an attribute has already cannot
        be seen.
        """
        before, self._before_callback = self._before_callback, None
        assert before is not None, "after_callback was called without before_callback"
        after = attributes_of(self._target, self._slots)
        bound = frozenset(
            name
            for name in before.keys() | after.keys()
            if before.get(name, ABSENT) is not after.get(name, ABSENT)
        )
        self._local |= bound
        return bound

    # --- the active's part --------------------------------------------------------------------

    def capture(self) -> Change | None:
        """What has changed since the last `capture`, `whole` or `apply`; None if nothing has.

        Everything in it is a copy, the object may change at once. Raises `StateNotReplicable`, and
        what `get_state` raises; then this image is as it was.
        """
        values, groups = self._changed(self._shipped)
        gone = tuple(
            name for name in self._shipped.known() if name not in values and name not in self._local
        )
        if not (groups or gone):
            return None
        for group in groups:
            self._shipped.take(group, values)
        for name in gone:
            self._shipped.forget(name)
        return written(Content(tuple(groups), gone))

    def whole(self) -> Change:
        """Everything, for a copy that knows nothing. The next `capture` tells what changed since.

        The copies that follow already miss what was not captured before. Raises as `capture`.
        """
        shipped = _Shipped()
        values, groups = self._changed(shipped)
        for group in groups:
            shipped.take(group, values)
        self._shipped = shipped
        return written(Content(tuple(groups), kept=tuple(sorted(self._local)), is_whole=True))

    def _changed(self, shipped: _Shipped) -> tuple[dict[str, Any], list[Group]]:
        """The state's attributes, and the groups of them that are not known to be shipped."""
        if self.gives_own_state:
            state = self._target.get_state()
            return {}, self._new_groups(shipped, {_OWN_STATE: self._dump(_OWN_STATE, (state,))})
        values = self._attributes()
        atoms, others, groups = shipped.atoms, {}, []
        for name, value in values.items():
            if type(value) not in ATOMS:
                others[name] = value
            elif not _is_same_atom(atoms.get(name, ABSENT), value):
                groups.append(_group((name,), dump(value)))
        if others:
            groups += self._new_groups(shipped, self._pickled(shipped, others))
        return values, groups

    def _new_groups(self, shipped: _Shipped, pickled: dict[Names, Pickled]) -> list[Group]:
        try:
            return [
                _group(names, one, mark)
                for names, one in pickled.items()
                if shipped.marks.get(names) != (mark := _mark(one))
            ]
        finally:
            for one in pickled.values():
                one.release()

    def _pickled(self, shipped: _Shipped, values: dict[str, Any]) -> dict[Names, Pickled]:
        """All groups of these attributes, each in one pickle."""
        if len(values) == 1:
            return {(name,): self._dump((name,), (value,)) for name, value in values.items()}
        pickled: dict[Names, Pickled] = {}
        reached: dict[Names, list[object]] = {}

        def look_at(names: Names) -> None:
            reached[names] = []
            pickled[names] = self._dump(names, [values[name] for name in names], reached[names])

        for names in _groups_before(shipped, values):
            look_at(names)
            if len(names) > 1 and _mark(pickled[names]) != shipped.marks[names]:
                # It changed, so it is shipped anyway; by now it may be in several groups.
                del reached[names]
                for name in names:
                    look_at((name,))
        together = [_merged(merged) for merged in _sharing(reached, self._target)]
        for names in together:
            if names not in pickled:
                pickled[names] = self._dump(names, [values[name] for name in names])
        return {names: pickled[names] for names in together}

    def _dump(
        self, names: Names, values: Sequence[Any], reached: list[object] | None = None
    ) -> Pickled:
        value = values[0] if len(values) == 1 else tuple(values)
        try:
            return dump(value, owner=self._target, reached=reached)
        except MemoryError:
            raise
        except Exception as error:
            raise self._refusal(names, values, error) from error

    def _refusal(self, names: Names, values: Sequence[Any], error: Exception) -> StateNotReplicable:
        cls = type(self._target).__qualname__
        why = error.message if isinstance(error, StateNotReplicable) else str(error)
        if names == _OWN_STATE:
            path, found = culprit("state", values[0], self._target)
            return StateNotReplicable(
                f"what {cls}.get_state gave cannot be copied, because of {path} "
                f"({_kind(found)}): {why}",
                hint="Leave it out in get_state, and make it anew in set_state.",
            )
        for name, value in zip(names, values, strict=True):
            path, found = culprit(f"self.{name}", value, self._target)
            if found is not value or len(names) == 1:
                break
        advice = f"{error.hint} Or mark" if isinstance(error, StateNotReplicable) else "Mark"
        return StateNotReplicable(
            f"the attribute {name!r} of {cls} cannot be copied, because of {path} "
            f"({_kind(found)}): {why}",
            hint=f"{advice} it `{name}: raphub.Local[...]`, set it in on_role_change, or give the "
            f"class get_state and set_state.",
        )

    # --- the passive's part -------------------------------------------------------------------

    def apply(self, changes: Sequence[Change]) -> None:
        """Follow the active: several changes in their order, each attribute unpickled once.

        The object's arrays are built upon the parts of the changes, and may write into them.
        Raises `ValueError` for what is no change, and what unpickling raises; then neither the
        object nor this image has changed. What `set_state` raises comes through as well.
        """
        contents = [read(change) for change in changes]
        wholes = [index for index, content in enumerate(contents) if content.is_whole]
        if wholes:
            contents = contents[wholes[-1] :]
        if self.gives_own_state:
            self._apply_own_state(contents)
        else:
            self._apply_attributes(contents)

    def _apply_own_state(self, contents: Sequence[Content]) -> None:
        groups = [group for content in contents for group in content.groups]
        if any(group.names != _OWN_STATE for group in groups):
            raise ValueError("this change is one of attributes, and not of what get_state gave")
        if groups:
            self._target.set_state(loads(groups[-1].pickle, owner=self._target))
            self._shipped.marks[_OWN_STATE] = groups[-1].mark

    def _apply_attributes(self, contents: Sequence[Content]) -> None:
        settled: set[str] = set()
        newest: list[tuple[Group, dict[str, Any]]] = []
        gone: list[str] = []
        for content in reversed(contents):
            for group in content.groups:
                if group.names == _OWN_STATE:
                    raise ValueError("this change is what get_state gave, and not attributes")
                if not settled.issuperset(group.names):
                    loaded = loads(group.pickle, owner=self._target)
                    each = loaded if len(group.names) > 1 else (loaded,)
                    named = zip(group.names, each, strict=True)
                    newest.append((group, {n: v for n, v in named if n not in settled}))
                    settled.update(group.names)
            gone += [name for name in content.gone if name not in settled]
            settled.update(content.gone)
        if contents and contents[0].is_whole:
            self._shipped = _Shipped()
            present = settled.difference(gone).union(contents[0].kept)
            gone += [name for name in self._attributes() if name not in present]
        for name in gone:
            self._delete(name)
        for group, values in reversed(newest):
            for name, value in values.items():
                self._set(name, value)
            if self._local.isdisjoint(group.names) and len(values) == len(group.names):
                self._shipped.take(group, values)

    def _set(self, name: str, value: object) -> None:
        if name in self._local:
            return
        self._shipped.forget(name)
        if name in self._slots:
            self._slots[name].__set__(self._target, value)
        else:
            self._target.__dict__[name] = value

    def _delete(self, name: str) -> None:
        if name in self._local:
            return
        self._shipped.forget(name)
        if name not in self._slots:
            self._target.__dict__.pop(name, None)
        elif in_slot(self._slots[name], self._target) is not ABSENT:
            self._slots[name].__delete__(self._target)


def _is_same_atom(before: object, after: object) -> bool:
    if before is after:
        return True
    kind = type(after)
    if type(before) is not kind or before != after:
        return False
    return kind not in _FLOATS or repr(before) == repr(after)  # 0.0 equals -0.0


# --- groups -----------------------------------------------------------------------------------


def _mark(pickled: Pickled) -> bytes:
    """Tells this content from any other."""
    if not pickled.views and len(pickled.stream) < _MARK_BYTES_WHOLE_MAX:
        return bytes(pickled.stream)
    digest = hashlib.blake2b(pickled.stream, digest_size=MARK_BYTES)
    for view in pickled.views:
        digest.update(view.nbytes.to_bytes(8, "big"))
        digest.update(view)
    return digest.digest()


def _group(names: Names, pickled: Pickled, mark: bytes | None = None) -> Group:
    if mark is None:
        mark = _mark(pickled)
    if not pickled.views and len(pickled.stream) < _MARK_BYTES_WHOLE_MAX:
        return Group(names, mark)
    return Group(names, mark, pickled.copied())


def _groups_before(shipped: _Shipped, values: Mapping[str, Any]) -> list[Names]:
    """The groups in which these were shipped, as far as all of them are there; others alone."""
    groups: dict[Names, None] = {}
    for name in values:
        form = shipped.forms.get(name, _OWN_STATE)
        is_there = form in shipped.marks and all(other in values for other in form)
        groups[form if is_there and form else (name,)] = None
    return list(groups)


def _merged(groups: Iterable[Names]) -> Names:
    return tuple(sorted(name for names in groups for name in names))


def _sharing(reached: Mapping[Names, list[object]], target: object) -> list[list[Names]]:
    """Put those together that reach a common object that can change.

    All that was reached is still referred to, so an id is one object's.
    """
    together: dict[Names, list[Names]] = {names: [names] for names in reached}
    holders: dict[int, Names] = {}
    for names in sorted(reached, key=lambda names: len(reached[names])):
        for found in reached[names]:
            if type(found) in _UNSHARED:
                continue
            holder = holders.setdefault(id(found), names)
            ours, theirs = together[names], together[holder]
            if ours is not theirs and found is not target and _can_change(found):
                ours += theirs
                for moved in theirs:
                    together[moved] = ours
    return list({id(groups): groups for groups in together.values()}.values())


def _can_change(found: object) -> bool:
    if isinstance(found, _VALUES):
        return False
    return all((base.__module__, base.__name__) != _DTYPE for base in type(found).__mro__)


def _kind(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
