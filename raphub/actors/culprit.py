"""Which object inside a value is it that cannot be pickled?"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Sequence
from typing import Any

from raphub.actors.attributes import attributes_of
from raphub.actors.change import OWN_STATE, Names
from raphub.actors.pickling import ATOMS, dump
from raphub.errors import StateNotReplicable

_TRIES_MAX = 5_000
_KEY_CHARS_MAX = 40


def culprit(name: str, value: object, owner: object) -> tuple[str, object]:
    """Where the innermost object is that fails, as `name["key"][3].lock`, and that object.

    The value as a whole has failed. The search costs pickling it a few times over.
    """
    path, seen = name, {id(value)}
    tries = iter(range(_TRIES_MAX))
    while True:
        for step, part in _parts(value):
            if type(part) in ATOMS or id(part) in seen or next(tries, None) is None:
                continue
            seen.add(id(part))
            if _fails(part, owner):
                path, value = path + step, part
                break
        else:
            return path, value


def refusal(
    target: object, names: Names, values: Sequence[object], error: Exception
) -> StateNotReplicable:
    """The error to raise where these attributes of `target` could not be pickled."""
    cls = type(target).__qualname__
    why = error.message if isinstance(error, StateNotReplicable) else str(error)
    if names == OWN_STATE:
        path, found = culprit("state", values[0], target)
        return StateNotReplicable(
            f"what {cls}.get_state gave cannot be copied, because of {path} ({_kind(found)}): {why}",
            hint="Leave it out in get_state, and make it anew in set_state.",
        )
    for name, value in zip(names, values, strict=True):
        path, found = culprit(f"self.{name}", value, target)
        if found is not value:
            break
    advice = f"{error.hint} Or mark" if isinstance(error, StateNotReplicable) else "Mark"
    return StateNotReplicable(
        f"the attribute {name!r} of {cls} cannot be copied, because of {path} "
        f"({_kind(found)}): {why}",
        hint=f"{advice} it `{name}: raphub.Local[...]`, set it in on_role_change, or give the "
        f"class get_state and set_state.",
    )


def refusal_of_class(cls: type, error: Exception) -> StateNotReplicable:
    """The error to raise where the definition of a class in the state could not be pickled."""
    path: str = cls.__qualname__
    found: object = cls
    for name, value in vars(cls).items():
        if not name.startswith("__") and _fails(value, None):
            path, found = culprit(f"{cls.__qualname__}.{name}", value, None)
            break
    why = error.message if isinstance(error, StateNotReplicable) else str(error)
    return StateNotReplicable(
        f"the state refers to the class {cls.__qualname__}, which no module has and which cannot "
        f"be copied, because of {path} ({_kind(found)}): {why}",
        hint="Define the class in a module that each node can import.",
    )


def _kind(value: object) -> str:
    kind = type(value)
    is_builtin = kind.__module__ == "builtins"
    return kind.__qualname__ if is_builtin else f"{kind.__module__}.{kind.__qualname__}"


def _fails(value: object, owner: object) -> bool:
    try:
        dump(value, owner=owner).release()
    except Exception:  # noqa: BLE001 - whatever the user's code raises
        return True
    return False


def _parts(value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - the user's
    match value:
        case dict():
            for key, part in list(value.items()):
                shown = repr(key) if type(key) in ATOMS else f"<{type(key).__name__}>"
                yield f"[{shown[:_KEY_CHARS_MAX]}]", part
            for key in list(value):
                yield ".keys()", key
        case list() | tuple():
            yield from ((f"[{index}]", part) for index, part in enumerate(list(value)))
        case set() | frozenset():
            yield from (("{...}", part) for part in list(value))
        case types.FunctionType():
            cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=False)
            yield from ((f".<{name}>", cell.cell_contents) for name, cell in cells)
        case types.MethodType():
            yield ".__self__", value.__self__
        case functools.partial():
            yield from ((f".args[{index}]", part) for index, part in enumerate(value.args))
            yield from ((f".keywords[{name!r}]", part) for name, part in value.keywords.items())
    if not isinstance(value, type):
        yield from ((f".{name}", part) for name, part in attributes_of(value).items())
