"""What has changed in a user's object since it was last shipped, and how does a copy follow?

The state is the object's attributes, except those that belong to the copy, or what `get_state`
gives. Attributes that share something that can change travel in one pickle, so that they share it
in the copy, too; all others travel alone, and only when they have changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raphub.actors import script_classes
from raphub.actors.attributes import ABSENT, HEAP_TYPE, attributes_of, in_slot, slots_of
from raphub.actors.change import (
    OWN_STATE,
    Change,
    Content,
    Group,
    Names,
    group_of,
    mark_of,
    read,
    written,
)
from raphub.actors.culprit import refusal, refusal_of_class
from raphub.actors.pickling import ATOMS, Pickled, dump, loads
from raphub.actors.sharing import sharing
from raphub.actors.shipped import Shipped
from raphub.errors import StateNotReplicable


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


class StateImage:
    """The state of one object, and what the other copies hold of it.

    `local` are the names that the class marks, see `attributes.local_names`. Nothing here waits or
    locks: the caller sees to it that no other thread runs the object's methods, or this, meanwhile.
    """

    def __init__(self, target: object, local: Iterable[str] = ()) -> None:
        """Nothing is known to be shipped. Raises `StateNotReplicable` as `gives_own_state`."""
        self._target: Any = target
        self._local = set(local)
        self._slots = slots_of(type(target))
        self.gives_own_state = gives_own_state(type(target))
        self._shipped = Shipped()
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
        values, groups, classes = self._difference(self._shipped)
        gone = self._gone(values)
        if not (groups or gone):
            return None
        change = written(Content(tuple(groups), tuple(classes), gone))
        for group in groups:
            self._shipped.take(group, values)
        for name in gone:
            self._shipped.forget(name)
        return change

    def whole(self) -> Change:
        """Everything, for a copy that knows nothing. The next `capture` tells what changed since.

        So the copies that follow already miss what was not captured before. Raises as `capture`.
        """
        shipped = Shipped()
        values, groups, classes = self._difference(shipped)
        kept = tuple(sorted(self._local))
        change = written(Content(tuple(groups), tuple(classes), kept=kept, is_whole=True))
        for group in groups:
            shipped.take(group, values)
        self._shipped = shipped
        return change

    def _gone(self, values: Mapping[str, Any]) -> Names:
        local = self._local
        known = self._shipped.attributes()
        return tuple([name for name in known if name not in values and name not in local])

    def _difference(self, shipped: Shipped) -> tuple[dict[str, Any], list[Group], list[Group]]:
        """The state's attributes, the groups that are not shipped, and the classes they need."""
        values = {} if self.gives_own_state else self._attributes()
        groups, others = [], {}
        for name, value in values.items():
            if type(value) not in ATOMS:
                others[name] = value
            elif not shipped.has_atom(name, value):
                groups.append(group_of((name,), dump(value)))
        if self.gives_own_state:
            pickled = {OWN_STATE: self._dump(OWN_STATE, (self._target.get_state(),))}
        elif others:
            pickled = self._pickled(shipped, others)
        else:
            return values, groups, []
        classes: dict[str, type] = {}
        try:
            for names, one in pickled.items():
                mark = mark_of(one)
                if not shipped.has_group(names, mark):
                    groups.append(group_of(names, one, mark))
                    classes.update(one.classes)
        finally:
            _release(pickled)
        return values, groups, self._definitions(shipped, classes) if classes else []

    def _definitions(self, shipped: Shipped, classes: Mapping[str, type]) -> list[Group]:
        """Whoever has the state that was shipped knows the classes in it, and no others."""
        known = shipped.classes()
        return [_definition(cls, name) for name, cls in classes.items() if name not in known]

    def _pickled(self, shipped: Shipped, values: dict[str, Any]) -> dict[Names, Pickled]:
        """All groups of these attributes, each in one pickle."""
        pickled: dict[Names, Pickled] = {}
        reached: dict[Names, list[object]] = {}

        def look_at(names: Names) -> None:
            found = reached[names] = []
            pickled[names] = self._dump(names, [values[name] for name in names], reached=found)

        try:
            for names in shipped.groups_of(values):
                look_at(names)
                if len(names) > 1 and not shipped.has_group(names, mark_of(pickled[names])):
                    # It changed, so it is shipped anyway; by now it may be in several groups.
                    del reached[names]
                    for name in names:
                        look_at((name,))
            together = [_merged(groups) for groups in sharing(reached, self._target)]
            for names in together:
                if names not in pickled:
                    pickled[names] = self._dump(names, [values[name] for name in names])
        except BaseException:
            _release(pickled)
            raise
        return {names: pickled[names] for names in together}

    def _dump(
        self, names: Names, values: Sequence[Any], *, reached: list[object] | None = None
    ) -> Pickled:
        value = values[0] if len(values) == 1 else tuple(values)
        try:
            return dump(value, owner=self._target, reached=reached, names_classes=True)
        except MemoryError:
            raise
        except Exception as error:
            raise refusal(self._target, names, values, error) from error

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
        for content in contents:
            for definition in content.classes:
                self._define(definition)
        if self.gives_own_state:
            self._apply_own_state(contents)
        else:
            self._apply_attributes(contents)

    def _define(self, definition: Group) -> None:
        (name,) = definition.names
        if script_classes.is_known(name):
            return
        cls = loads(definition.pickle)
        if not isinstance(cls, type):
            raise ValueError(f"a change of a state defines {name} as {cls!r}")  # noqa: TRY004 - bad bytes
        script_classes.enter(cls, name)

    def _apply_own_state(self, contents: Sequence[Content]) -> None:
        groups = [group for content in contents for group in content.groups]
        if any(group.names != OWN_STATE for group in groups):
            raise ValueError("this change is one of attributes, and not of what get_state gave")
        if groups:
            self._target.set_state(loads(groups[-1].pickle, owner=self._target))
            self._shipped.take(groups[-1], {})

    def _apply_attributes(self, contents: Sequence[Content]) -> None:
        settled: set[str] = set()
        newest: list[tuple[Group, dict[str, Any]]] = []
        gone: list[str] = []
        for content in reversed(contents):
            for group in content.groups:
                if group.names == OWN_STATE:
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
            self._shipped = Shipped()
            present = settled.difference(gone).union(contents[0].kept)
            gone += [name for name in self._attributes() if name not in present]
        for name in gone:
            self._delete(name)
        for group, values in newest:
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


def _definition(cls: type, name: str) -> Group:
    try:
        return group_of((name,), dump(cls))
    except MemoryError:
        raise
    except Exception as error:
        raise refusal_of_class(cls, error) from error


def _merged(groups: Iterable[Names]) -> Names:
    return tuple(sorted(name for names in groups for name in names))


def _release(pickled: Mapping[Names, Pickled]) -> None:
    for one in pickled.values():
        one.release()
