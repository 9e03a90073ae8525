"""Which ways are there to keep copies, to place them, and to go on when nodes are missing?

Strategies are values: what they decide is decided by pure functions of the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raphub.core.model import Acks, ChildId, ChildPlan, Model, OnDataLoss, Signal, State
from raphub.settings import (
    DEFAULT_STATE,
    AcksChoice,
    Count,
    Factor,
    ModelChoice,
    OnDataLossChoice,
    Seconds,
    Setting,
    SignalChoice,
    StateChoice,
    refuse_combination,
)

_PLAN = ChildPlan(ChildId(""))


class Singularity(Setting):
    """One copy of each child; when it is lost, it is started again elsewhere, with fresh state."""

    kind: Literal["singularity"] = "singularity"


class Replication(Setting):
    """Several copies of each child, each on a node of its own.

    A child's own options go before these.
    """

    kind: Literal["replication"] = "replication"
    factor: Factor = Field(
        default=2, description='how many copies: a whole number from 1, or "cluster_size"'
    )
    model: ModelChoice = Field(
        default=Model.ACTIVE_PASSIVE,
        description='who serves: "active_passive" (one copy) or "active_active" (all of them)',
    )
    signal: SignalChoice = Field(
        default=Signal.ALL,
        description='the roles that `on_role_change` is told: "all", "active", "passive", "none"',
    )
    state: StateChoice = Field(
        default=DEFAULT_STATE,
        description="how state is replicated: "
        '"snapshot" (what changed), "log" (the calls) or "none" (each copy has its own)',
    )
    acks: AcksChoice = Field(
        default=Acks.IN_SYNC,
        description="when a write is answered: "
        '"in_sync" (all copies in sync have it) or "active" (the active has it)',
    )
    min_in_sync: Count = Field(
        default=_PLAN.min_in_sync,
        description="how many copies, the active among them, must be in sync for a write",
    )
    max_lag_writes: Count = Field(
        default=_PLAN.max_lag_writes,
        description='how many writes a passive that is read, or all with acks="active", may miss',
    )
    start_grace_s: Seconds = Field(
        default=_PLAN.start_grace_s,
        description="how long the first writes wait for all copies to be in sync",
    )
    on_data_loss: OnDataLossChoice = Field(
        default=OnDataLoss.STOP,
        description='what follows when no copy has the state: "stop" or "restart_empty"',
    )

    @model_validator(mode="before")
    @classmethod
    def _fit_state(cls, values: Any) -> Any:  # noqa: ANN401 - not checked yet
        """Where all copies serve and nothing is said of the state, each has its own."""
        if isinstance(values, Mapping) and values.get("model") == Model.ACTIVE_ACTIVE:
            return {"state": State.NONE, **values}
        return values

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


class ConsistentHashing(Setting):
    """Copies are placed by a hash of child and node: a node that joins moves few of them."""

    kind: Literal["consistent_hashing"] = "consistent_hashing"


class Divergence(Setting):
    """The hub goes on whatever number of nodes is left."""

    kind: Literal["divergence"] = "divergence"


Redundancy = Annotated[Singularity | Replication, Field(discriminator="kind")]
# There is one strategy of each of these kinds yet; the next one makes it a union told by `kind`.
Distribution = ConsistentHashing
PartitionTolerance = Divergence
