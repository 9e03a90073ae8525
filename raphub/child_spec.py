"""What does a user ask for with one child?"""

from __future__ import annotations

import importlib
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast

from pydantic import AfterValidator, Field, JsonValue, field_serializer, field_validator

from raphub.errors import InvalidSetting
from raphub.options import ReplicatedOptions

CHILD_ID_LENGTH_MAX = 200


def qualified_name(cls: type | str) -> str:
    """The class as `module:QualName`, the form in which it dumps to JSON and is compared."""
    return cls if isinstance(cls, str) else f"{cls.__module__}:{cls.__qualname__}"


def load_class(name: str) -> type:
    """Import the class that `package.module:Class` names.

    Raises `InvalidSetting` if the name has another form, or nothing is there, or it is no class.
    """
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidSetting(
            f"the class {name!r} cannot be imported here: {error}.",
            field="cls",
            hint="Write `package.module:Class`, of a module that this process can import.",
        ) from error
    if not isinstance(found, type):
        raise InvalidSetting(
            f"{name!r} is a {type(found).__name__}, not a class.",
            field="cls",
            hint="Write `package.module:Class`.",
        )
    return found


class ChildSpec(ReplicatedOptions):
    """One child: its name, its class, the constructor's arguments, and options that go first.

    `cls` is a class, or its name as `"package.module:Class"`. Every option of `@replicated` may be
    given, too, and goes before the class's own and the hub's. `metadata` is plain JSON and is
    shown in the child's status. Raises `InvalidSetting` naming the field and the way to mend it.
    Not promised: that a class given by name exists, before it is started.
    """

    hints_for_unknown: ClassVar[Mapping[str, str]] = {
        **ReplicatedOptions.hints_for_unknown,
        "id": "Did you mean `child_id`?",
        "start": "Give the class as `cls` and its arguments as `args` and `kwargs`.",
        "restart": "`restart` comes in a later version; a child runs until it is stopped.",
    }

    child_id: str = Field(
        description="the child's name in its hub: 1 to 200 characters, no `#`, none for control"
    )
    cls: type[Any] | str = Field(description='a class, or "package.module:Class"')
    args: Annotated[Sequence[Any], AfterValidator(tuple)] = Field(
        default=(), description="the constructor's positional arguments, as a tuple or list"
    )
    kwargs: dict[str, Any] = Field(
        default_factory=dict, description="the constructor's keyword arguments, by name"
    )
    metadata: dict[str, JsonValue] = Field(
        default_factory=dict, description="what you want to remember of the child, as plain JSON"
    )

    @field_validator("child_id")
    @classmethod
    def _check_child_id(cls, child_id: str) -> str:
        if not child_id.strip():
            raise ValueError("should not be empty")
        if len(child_id) > CHILD_ID_LENGTH_MAX:
            raise ValueError(f"should have at most {CHILD_ID_LENGTH_MAX} characters")
        if "#" in child_id:
            raise ValueError('should not contain "#", which separates a copy\'s number')
        if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in child_id):
            raise ValueError("should not contain control characters or line breaks")
        return child_id

    @field_validator("cls", mode="plain")
    @classmethod
    def _check_cls(cls, value: object) -> type | str:
        if isinstance(value, type):
            return value
        if isinstance(value, str):
            module, colon, path = value.partition(":")
            if module and colon and path:
                return value
            raise ValueError(f'should be written as "package.module:Class", not {value!r}')
        if type(value).__module__.startswith("ray."):
            raise InvalidSetting(
                "a Ray actor class cannot be replicated",
                hint="Give the plain class, without `@ray.remote`; raphub makes the actors.",
            )
        raise ValueError(f"should be a class, not of type {type(value).__name__}")

    @field_validator("args", mode="before")
    @classmethod
    def _check_args(cls, value: object) -> object:
        # A string is a sequence, too, but whoever writes args="ab" does not mean "a" and "b".
        if isinstance(value, str | bytes | bytearray):
            raise ValueError(  # noqa: TRY004 - pydantic collects ValueErrors only
                f"should be a tuple or list, not {value!r}: write ({value!r},)"
            )
        return value

    @field_serializer("cls")
    def _dump_cls(self, value: type | str) -> str:
        return qualified_name(value)

    @field_serializer("args", "kwargs", when_used="json")
    def _dump_arguments(self, value: Sequence[Any] | dict[str, Any]) -> JsonValue:
        return _as_json(value)

    @property
    def cls_name(self) -> str:
        """The class as `module:QualName`."""
        return qualified_name(self.cls)


_JSON_DEPTH_MAX = 20


def _as_json(value: object, depth: int = 0) -> JsonValue:
    """The value as JSON, the same in every process: what JSON cannot hold is told by its type."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case type():
            return f"<class {qualified_name(value)}>"
        case list() | tuple() if depth < _JSON_DEPTH_MAX:
            items = cast("Sequence[object]", value)
            return [_as_json(item, depth + 1) for item in items]
        case dict() if depth < _JSON_DEPTH_MAX:
            pairs = cast("Mapping[object, object]", value).items()
            return {str(key): _as_json(item, depth + 1) for key, item in pairs}
        case float():
            return f"<{value}>"
        case _:
            return f"<{qualified_name(type(value))}>"
