"""What does a user ask for, and what does it come to?

All settings are found here; this module resolves them into the plan that the core reads.
Precedence: explicit `ChildSpec` > options of `@replicated` > the hub's > defaults.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_serializer

from raphub.child_spec import ChildSpec, load_class, qualified_name
from raphub.core.model import Acks, ChildId, ChildPlan, Model, OnDataLoss, Signal, Spread, State
from raphub.core.placement import Candidate
from raphub.errors import InvalidSetting
from raphub.hub_config import HubConfig
from raphub.options import OPTIONS_ATTRIBUTE, GivenOptions, ReplicatedOptions, class_options
from raphub.settings import refuse_combination
from raphub.strategies import (
    ConsistentHashing,
    CustomDistribution,
    DistributionStrategy,
    Divergence,
    DynamicQuorum,
    Guided,
    LeastLoaded,
    MajorityQuorum,
    Replication,
    Singularity,
    StaticQuorum,
)

__all__ = [
    "OPTIONS_ATTRIBUTE",
    "Candidate",
    "ChildSpec",
    "ConsistentHashing",
    "CustomDistribution",
    "DistributionStrategy",
    "Divergence",
    "DynamicQuorum",
    "GivenOptions",
    "Guided",
    "HubConfig",
    "LeastLoaded",
    "MajorityQuorum",
    "ReplicatedOptions",
    "Replication",
    "Singularity",
    "StartedSpec",
    "StaticQuorum",
    "class_options",
    "load_class",
    "plan_child",
    "qualified_name",
]


def plan_child(
    spec: ChildSpec,
    config: HubConfig,
    *,
    class_options: ReplicatedOptions,
    job_id: str | None,
    payload: bytes,
    read_only: tuple[str, ...] = (),
) -> ChildPlan:
    """Resolve what was said of a child into what the hub needs to know.

    `class_options` are those of the spec's class; `job_id` is the job that asks, kept only if the
    child lives with it (`lifetime="job"`; the default is `"detached"`); `payload` is the class and
    its arguments as bytes for replicas; `read_only` names its methods that change no state. Raises
    `InvalidSetting` for what cannot be together, and for a child that should live with a job when
    there is none.
    """
    said = spec.over(class_options)
    redundancy = config.redundancy
    if isinstance(redundancy, Singularity):
        # Its only copy starts again when it is lost: nobody could hold its state meanwhile.
        redundancy = Replication(factor=1, state=State.NONE)
    factor = said.factor or redundancy.factor
    model = Model(said.model or redundancy.model)
    acks = Acks(said.acks or redundancy.acks)
    min_in_sync = said.min_in_sync or redundancy.min_in_sync
    state = _state(said, redundancy, model)
    refuse_combination(factor=factor, model=model, state=state, acks=acks, min_in_sync=min_in_sync)
    lifetime = said.lifetime or "detached"
    if lifetime == "job" and job_id is None:
        raise InvalidSetting(
            f'the child {spec.child_id!r} has lifetime="job", but no Ray job asks for it.',
            field="lifetime",
            hint='Use lifetime="detached", or start it from a connected driver.',
        )
    shown = {
        "cls": spec.cls_name,
        "lifetime": lifetime,
        "call_timeout_s": said.call_timeout_s,
        "runtime_env": said.runtime_env,
        "metadata": spec.metadata,
    }
    return ChildPlan(
        child_id=ChildId(spec.child_id),
        factor=None if factor == "cluster_size" else factor,
        model=model,
        signal=Signal(said.signal or redundancy.signal),
        spread=Spread(said.spread or Spread.PREFERRED),
        zone_label=said.zone_label,
        label_selector=dict(said.label_selector or {}),
        resources=_resources(said),
        job_id=job_id if lifetime == "job" else None,
        state=state,
        acks=acks,
        min_in_sync=min_in_sync,
        max_lag_writes=said.max_lag_writes or redundancy.max_lag_writes,
        start_grace_s=said.start_grace_s or redundancy.start_grace_s,
        read_only=read_only,
        on_data_loss=OnDataLoss(said.on_data_loss or redundancy.on_data_loss),
        options=json.dumps(shown),
        payload=payload,
    )


def _state(said: ReplicatedOptions, redundancy: Replication, model: Model) -> State:
    """The hub's word on state is for children of which one copy serves."""
    if said.state is None and model is Model.ACTIVE_ACTIVE:
        return State.NONE
    return State(said.state or redundancy.state)


def _resources(said: ReplicatedOptions) -> dict[str, float]:
    """What each copy reserves, under Ray's names; CPU always, the rest if asked for."""
    asked = {"GPU": said.num_gpus, "memory": said.memory, **(said.resources or {})}
    return {
        "CPU": said.num_cpus or 0.0,
        **{name: amount for name, amount in asked.items() if amount},
    }


class StartedSpec(BaseModel):
    """What a child was started with: every option as it was resolved.

    It has the fields of `ChildSpec` without the constructor's arguments, which travel as opaque
    bytes that only replicas read, so it shows a child and cannot start one. `resources` holds all
    that a copy reserves, under Ray's names (`CPU`, `GPU`, `memory` in bytes, and custom ones).
    Dumped to JSON, the values of `runtime_env["env_vars"]` are hidden: they may be secret.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    child_id: str
    cls: str
    factor: int | Literal["cluster_size"]
    model: Model
    signal: Signal
    state: State
    acks: Acks
    min_in_sync: int
    max_lag_writes: int
    start_grace_s: float
    on_data_loss: OnDataLoss
    read_only: tuple[str, ...] = ()
    spread: Spread
    zone_label: str | None = None
    lifetime: Literal["job", "detached"]
    resources: dict[str, float]
    label_selector: dict[str, str]
    call_timeout_s: float | None = None
    runtime_env: dict[str, JsonValue] | None = Field(default=None, repr=False)
    metadata: dict[str, JsonValue]

    @classmethod
    def of(cls, plan: ChildPlan) -> StartedSpec:
        """Read back what `plan_child` wrote."""
        return cls(
            child_id=plan.child_id,
            factor="cluster_size" if plan.factor is None else plan.factor,
            model=plan.model,
            signal=plan.signal,
            state=plan.state,
            acks=plan.acks,
            min_in_sync=plan.min_in_sync,
            max_lag_writes=plan.max_lag_writes,
            start_grace_s=plan.start_grace_s,
            on_data_loss=plan.on_data_loss,
            read_only=plan.read_only,
            spread=plan.spread,
            zone_label=plan.zone_label,
            resources=plan.resources,
            label_selector=plan.label_selector,
            **json.loads(plan.options),
        )

    @field_serializer("runtime_env", when_used="json")
    def _hide_secrets(self, value: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        env_vars = None if value is None else value.get("env_vars")
        if value is None or not isinstance(env_vars, dict):
            return value
        return {**value, "env_vars": dict.fromkeys(env_vars, "***")}
