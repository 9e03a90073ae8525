"""How are settings read, and how is a wrong one refused?

The ground of every pydantic model that a user fills in: frozen, closed, and refusing with
`InvalidSetting`, which names the field and the way to mend it, instead of pydantic's own error.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from raphub.core.model import Acks, DeathProof, Model, OnDataLoss, Signal, Spread, State
from raphub.errors import InvalidSetting

DEFAULT_STATE = State.SNAPSHOT
"""How state is replicated where nobody says anything."""

# --- The model --------------------------------------------------------------------------------


class Setting(BaseModel):
    """A value that says how something is to be: frozen, closed to unknown names.

    A wrong value raises `InvalidSetting` at once, wherever it is given: in the constructor, in
    `model_validate`, in `model_validate_json` or in `model_copy(update=...)`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    hints_for_unknown: ClassVar[Mapping[str, str]] = {}
    """What to tell who gives a name that does not exist here but might be expected to."""

    def __init__(self, /, **data: Any) -> None:  # noqa: ANN401 - checked here
        """Read the settings, or raise `InvalidSetting`."""
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise _refusal(type(self), error) from None

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:  # noqa: ANN401 - as in pydantic
        """Read the settings from a dictionary, or raise `InvalidSetting`."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise _refusal(cls, error) from None

    @classmethod
    def model_validate_json(
        cls,
        json_data: str | bytes | bytearray,
        **options: Any,  # noqa: ANN401 - as in pydantic
    ) -> Self:
        """Read the settings from JSON, or raise `InvalidSetting`."""
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            raise _refusal(cls, error) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The same settings with some changed; the changed ones are checked, too."""
        copied = super().model_copy(deep=deep)
        if not update:
            return copied
        given = {name: getattr(copied, name) for name in copied.model_fields_set}
        return type(self)(**{**given, **update})

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Only what differs from the defaults: the shortest text that makes an equal value."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            default = field.get_default(call_default_factory=True, validated_data={})
            if field.repr and value != default:
                yield name, str(value) if isinstance(value, StrEnum) else value

    def __str__(self) -> str:
        """The same as the repr."""
        return repr(self)


# --- Refusals ---------------------------------------------------------------------------------


def _refusal(model: type[Setting], error: ValidationError) -> InvalidSetting:
    """All that pydantic found wrong, as one error for people."""
    wrongs = [_wrong(model, details) for details in error.errors(include_url=False)]
    fields = {field for field, _, _ in wrongs}
    hints = dict.fromkeys(hint for _, _, hint in wrongs if hint)
    inner = _inner(error.errors(include_url=False)[0])
    kind = InvalidSetting if inner is None or len(wrongs) > 1 else type(inner)
    return kind(
        f"{model.__name__}: " + "; ".join(text for _, text, _ in wrongs) + ".",
        field=fields.pop() if len(fields) == 1 else "",
        hint=" ".join(hints) or None,
    )


def _wrong(model: type[Setting], details: ErrorDetails) -> tuple[str, str, str]:
    """The field, what is wrong with it, and the hint."""
    loc = details["loc"]
    name = str(loc[0]) if loc else ""
    hint = _described(model, name)
    inner = _inner(details)
    if inner is not None:
        # What follows the field's own name is the tag of a union, unless it is a position.
        field = name + "".join(f"[{part}]" for part in loc[1:] if isinstance(part, int))
        path = ".".join(part for part in (field, inner.field) if part)
        text = inner.message.removeprefix(f"{model.__name__}: ").removesuffix(".")
        own_hint = hint if inner.hint == InvalidSetting.default_hint else inner.hint
        return path, f"`{field}`: {text}" if field else text, own_hint
    path = name + "".join(f"[{part!r}]" for part in loc[1:])
    subject = f"`{path}`" if path else "what was given"
    match details["type"]:
        case "extra_forbidden":
            return path, f"there is no setting {subject}", _unknown_hint(model, name)
        case "missing":
            return path, f"{subject} is missing", hint
        case "union_tag_not_found" | "union_tag_invalid":
            tags = details.get("ctx", {}).get("expected_tags")
            return path, f"{subject} has no `kind`" + (f" of {tags}" if tags else ""), hint
        case "value_error":
            return path, f"{subject} {details['msg'].removeprefix('Value error, ')}", hint
        case _:
            asked = details["msg"].removeprefix("Input ")
            if asked == details["msg"]:
                asked = f"is refused: {asked}"
            return path, f"{subject} {asked}, not {reprlib.repr(details['input'])}", hint


def _described(model: type[Setting], name: str) -> str:
    field = model.model_fields.get(name)
    if field is None or not field.description:
        return ""
    unit = " (seconds)" if name.endswith("_s") else ""
    return f"`{name}`: {field.description}{unit}."


def _inner(details: ErrorDetails) -> InvalidSetting | None:
    """The refusal that a setting inside, or a check of ours, raised itself."""
    raised = details.get("ctx", {}).get("error")
    return raised if isinstance(raised, InvalidSetting) else None


def _unknown_hint(model: type[Setting], name: str) -> str:
    if name in model.hints_for_unknown:
        return model.hints_for_unknown[name]
    near = difflib.get_close_matches(name, model.model_fields, n=1)
    if near:
        return f"Did you mean `{near[0]}`?"
    known = [known for known in model.model_fields if known != "kind"]
    return f"There are: {', '.join(known)}." if known else f"{model.__name__} has no settings."


# --- The kinds of values ----------------------------------------------------------------------


def _one_of(choices: type[StrEnum]) -> Callable[[object], StrEnum]:
    def chosen(value: object) -> StrEnum:
        if value in tuple(choices):
            return choices(str(value))
        names = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"should be {names}, not {reprlib.repr(value)}")

    return chosen


def _checked_factor(value: object) -> object:
    if value == "cluster_size":
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError(
        f'should be a whole number from 1, or "cluster_size", not {reprlib.repr(value)}'
    )


_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"([A-Za-z0-9.-]{{1,253}}/)?{_LABEL}")
_LABEL_TERM = re.compile(rf"!?({_LABEL}|in\({_LABEL}(, ?{_LABEL})*\))")


def _checked_label_key(key: str) -> str:
    if _LABEL_KEY.fullmatch(key):
        return key
    raise ValueError(f'should be a label\'s name, such as "zone", not {key!r}')


def _checked_selector(selector: dict[str, str]) -> dict[str, str]:
    for key, term in selector.items():
        _checked_label_key(key)
        if not _LABEL_TERM.fullmatch(term):
            raise ValueError(
                f'has for {key!r} the value {term!r}: use "a", "!a", "in(a,b)" or "!in(a,b)"'
            )
    return selector


# Each choice is written twice, as an enumeration for the core and as literals for the checkers of
# a user who writes strings; a test keeps the two equal. What is read back is the enumeration.
Factor = Annotated[int | Literal["cluster_size"], BeforeValidator(_checked_factor)]
ModelChoice = Annotated[
    Model | Literal["active_passive", "active_active"], BeforeValidator(_one_of(Model))
]
SignalChoice = Annotated[
    Signal | Literal["all", "active", "passive", "none"], BeforeValidator(_one_of(Signal))
]
SpreadChoice = Annotated[Spread | Literal["preferred", "strict"], BeforeValidator(_one_of(Spread))]
DeathProofChoice = Annotated[
    DeathProof | Literal["port", "lease"], BeforeValidator(_one_of(DeathProof))
]
StateChoice = Annotated[State | Literal["none", "snapshot", "log"], BeforeValidator(_one_of(State))]
AcksChoice = Annotated[Acks | Literal["in_sync", "active"], BeforeValidator(_one_of(Acks))]
OnDataLossChoice = Annotated[
    OnDataLoss | Literal["stop", "restart_empty"], BeforeValidator(_one_of(OnDataLoss))
]
LabelKey = Annotated[str, AfterValidator(_checked_label_key)]
LabelSelector = Annotated[dict[str, str], AfterValidator(_checked_selector)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def refuse_combination(
    *,
    factor: int | str | None,
    model: str | None,
    state: str | None,
    acks: str | None,
    min_in_sync: int | None,
) -> None:
    """Raise `InvalidSetting` for what cannot be together; None is what nobody said yet."""
    is_replicated = state is not None and state != State.NONE
    if model == Model.ACTIVE_ACTIVE and is_replicated:
        raise InvalidSetting(
            f'model="active_active" cannot have state="{state}": where all copies serve, none of '
            "them has the one true state",
            hint='Use model="active_passive" to replicate state, or state="none".',
        )
    if isinstance(factor, int) and min_in_sync is not None and min_in_sync > factor:
        raise InvalidSetting(
            f"min_in_sync={min_in_sync} is above factor={factor}, so no write could ever be done",
            hint="Lower `min_in_sync`, which counts the active, or raise `factor`.",
        )
    needs = 'acks="active"' if acks == Acks.ACTIVE else ""
    needs = needs or (f"min_in_sync={min_in_sync}" if (min_in_sync or 1) > 1 else "")
    if state == State.NONE and needs:
        raise InvalidSetting(
            f'{needs} means nothing with state="none": every copy keeps its own state',
            hint=f'Say state="snapshot" or state="log" beside it, or leave {needs} out.',
        )
