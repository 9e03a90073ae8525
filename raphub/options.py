"""What may be said of a replicated class, and what does not belong there?

The options of `@replicated`, of `Class.options(...)` and of `ChildSpec`: one list for all three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypedDict

from pydantic import AfterValidator, Field, JsonValue, model_validator

from raphub.errors import InvalidSetting
from raphub.settings import (
    AcksChoice,
    Count,
    Factor,
    LabelKey,
    LabelSelector,
    ModelChoice,
    OnDataLossChoice,
    Seconds,
    Setting,
    SignalChoice,
    SpreadChoice,
    StateChoice,
    refuse_combination,
)

_PLACES = "raphub itself chooses each copy's node; restrict the choice with `label_selector`"
_NAMES = "raphub itself names each copy; use `child_id`"
_ORDERS = "raphub runs a copy's calls one after the other, or its role could change in mid-call"
_RETRIES = "raphub itself retries, and never runs a call twice; see `retry` of a call's options"

_OWNED_BY_RAPHUB: dict[str, str] = {
    "scheduling_strategy": _PLACES,
    "fallback_strategy": _PLACES,
    "placement_group": _PLACES,
    "placement_group_bundle_index": _PLACES,
    "placement_group_capture_child_tasks": _PLACES,
    "accelerator_type": _PLACES,
    "name": _NAMES,
    "namespace": "everything of raphub lives in the Ray namespace `raphub`",
    "max_concurrency": _ORDERS,
    "concurrency_groups": _ORDERS,
    "allow_out_of_order_execution": _ORDERS,
    "max_task_retries": _RETRIES,
    "retry_exceptions": _RETRIES,
    "max_pending_calls": "raphub bounds the calls that wait by itself",
    "num_returns": "a call has one answer; return a tuple",
    "object_store_memory": "raphub does not reserve object store memory; use `resources`",
}


def _acts_later(default: object, hint: str) -> Callable[[Any], Any]:
    """Refuse what a later version will understand, rather than ignore it."""

    def checked(value: object) -> object:
        if value is None or value == default:
            return value
        raise InvalidSetting(
            f"this version does not act on it, so {value!r} would be a false promise; leave it out",
            hint=hint,
        )

    return checked


_CRASH_LIMIT = "raphub replaces lost copies by itself; `crash_limit` of `HubConfig` is the bound."


def _checked_resources(resources: dict[str, float]) -> dict[str, float]:
    own = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    for name, amount in resources.items():
        if name in own:
            raise ValueError(f"should not hold {name!r}: use `{own[name]}`")
        if not name or amount < 0:
            raise ValueError(f"should hold names and amounts from 0, not {name!r}: {amount!r}")
    return resources


Amount = Annotated[float, Field(ge=0)]


class ReplicatedOptions(Setting):
    """The options of `@replicated`. None means that nothing was said, so the hub's word counts.

    Options that this version would not act on are refused rather than ignored; Ray options that
    raphub owns are refused with the reason.
    """

    hints_for_unknown: ClassVar[Mapping[str, str]] = {
        name: f"`{name}` is raphub's own: {why}." for name, why in _OWNED_BY_RAPHUB.items()
    }

    factor: Factor | None = Field(
        default=None, description='how many copies: a whole number from 1, or "cluster_size"'
    )
    model: ModelChoice | None = Field(
        default=None, description='who serves: "active_passive" (one copy) or "active_active" (all)'
    )
    signal: SignalChoice | None = Field(
        default=None,
        description='the roles that `on_role_change` is told: "all", "active", "passive", "none"',
    )
    state: StateChoice | None = Field(
        default=None,
        description="how state is replicated: "
        '"snapshot" (what changed), "log" (the calls) or "none" (each copy has its own)',
    )
    acks: AcksChoice | None = Field(
        default=None,
        description="when a write is answered: "
        '"in_sync" (all copies in sync have it) or "active" (the active has it)',
    )
    min_in_sync: Count | None = Field(
        default=None,
        description="how many copies, the active among them, must be in sync for a write",
    )
    max_lag_writes: Count | None = Field(
        default=None,
        description='how many writes a passive that is read, or all with acks="active", may miss',
    )
    spread: SpreadChoice | None = Field(
        default=None,
        description='"preferred" (copies may share a node if nodes are few) or "strict" (never)',
    )
    zone_label: LabelKey | None = Field(
        default=None, description="the node label over whose values copies are spread"
    )
    lifetime: Literal["job", "detached"] | None = Field(
        default=None,
        description='"job" (the child ends with the job that made it) or "detached" (it stays)',
    )
    start_grace_s: Seconds | None = Field(
        default=None, description="how long the first writes wait for all copies to be in sync"
    )
    on_data_loss: OnDataLossChoice | None = Field(
        default=None,
        description='what follows when no copy has the state: "stop" or "restart_empty"',
    )
    num_cpus: Amount | None = Field(
        default=None, description="the CPUs that each copy reserves, from 0 (the default)"
    )
    num_gpus: Amount | None = Field(
        default=None, description="the GPUs that each copy reserves, from 0 (the default)"
    )
    resources: Annotated[dict[str, float], AfterValidator(_checked_resources)] | None = Field(
        default=None, description="the custom Ray resources that each copy reserves, by name"
    )
    memory: Amount | None = Field(
        default=None, description="the memory in bytes that each copy reserves"
    )
    runtime_env: dict[str, JsonValue] | None = Field(
        default=None,
        description="Ray's runtime environment for the copies, as a dictionary of plain JSON",
        repr=False,
    )
    label_selector: LabelSelector | None = Field(
        default=None,
        description='node labels that copies need: "a", "!a", "in(a,b)" or "!in(a,b)" for each',
    )
    max_restarts: Annotated[int | None, AfterValidator(_acts_later(None, _CRASH_LIMIT))] = Field(
        default=None, description="not used in this version"
    )
    call_timeout_s: Seconds | None = Field(
        default=None, description="how long a call waits for its answer; else for ever"
    )

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        refuse_combination(
            factor=self.factor,
            model=self.model,
            state=self.state,
            acks=self.acks,
            min_in_sync=self.min_in_sync,
        )
        return self

    def over(self, below: ReplicatedOptions) -> ReplicatedOptions:
        """These options where they say something, and those of `below` where they do not."""
        said = {**_said(below), **_said(self)}
        return ReplicatedOptions(**said)


def _said(options: ReplicatedOptions) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in ReplicatedOptions.model_fields}
    return {name: value for name, value in values.items() if value is not None}


class GivenOptions(TypedDict, total=False):
    """The same options for checkers, where they are given as `**options: Unpack[GivenOptions]`.

    A test keeps its names equal to those of `ReplicatedOptions`.
    """

    factor: Factor | None
    model: ModelChoice | None
    signal: SignalChoice | None
    state: StateChoice | None
    acks: AcksChoice | None
    min_in_sync: int | None
    max_lag_writes: int | None
    spread: SpreadChoice | None
    zone_label: str | None
    lifetime: Literal["job", "detached"] | None
    start_grace_s: float | None
    on_data_loss: OnDataLossChoice | None
    num_cpus: float | None
    num_gpus: float | None
    resources: dict[str, float] | None
    memory: float | None
    runtime_env: dict[str, JsonValue] | None
    label_selector: dict[str, str] | None
    max_restarts: int | None
    call_timeout_s: float | None


OPTIONS_ATTRIBUTE = "__raphub_options__"
"""Where `@replicated` leaves a class's own options."""


def class_options(cls: type) -> ReplicatedOptions:
    """What `@replicated` said of the class, or of the nearest class that it derives from.

    A class that nothing was said of has empty options, so the hub's word counts.
    """
    options = getattr(cls, OPTIONS_ATTRIBUTE, None)
    return options if isinstance(options, ReplicatedOptions) else ReplicatedOptions()
