"""Which ways are there to keep copies, to place them, and to go on when nodes are missing?

Strategies are values: what they decide is decided by pure functions of the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raphub.core.model import Acks, ChildId, ChildPlan, Model, OnDataLoss, Signal, State
from raphub.core.quorum import DynamicRule, MajorityRule, Rule, StaticRule
from raphub.errors import InvalidSetting
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

    def rule(self) -> Rule | None:
        """What the core goes by: nothing."""
        return None


class StaticQuorum(Setting):
    """The hub goes on with `size` usable nodes, and is partitioned with fewer.

    A partitioned hub's children serve nobody and keep their state until enough nodes are there again.
    Without `startup_confirm` the hub may begin with fewer, until `size` nodes were usable once.
    """

    kind: Literal["static"] = "static"
    size: Count = Field(default=3, description="how many nodes must be usable, from 1")
    startup_confirm: bool = Field(
        default=False,
        description="whether as many are wanted before there ever were so many: True or False",
    )

    def rule(self) -> Rule:
        """What the core goes by."""
        return StaticRule(self.size, self.startup_confirm)


class DynamicQuorum(Setting):
    """The hub is partitioned while fewer than `percent` of its latest nodes are usable.

    It compares with the most nodes that were usable at one time within the last `threshold_time_s`: a
    sudden loss stops the children, a slow one does not. They go on, with their state, when enough
    nodes are back or the loss is older than that. Not promised: that a hub which has lost nodes for
    good stays partitioned.
    """

    kind: Literal["dynamic"] = "dynamic"
    percent: int = Field(
        default=50, ge=1, le=100, description="how many nodes of a hundred must be left: 1 to 100"
    )
    threshold_time_s: Seconds = Field(
        default=30.0, description="how long a lost node is missed, not below `lease_duration_s`"
    )

    def rule(self) -> Rule:
        """What the core goes by."""
        return DynamicRule(self.percent, self.threshold_time_s)


class MajorityQuorum(Setting):
    """The hub goes on with more than half of the cluster, and is partitioned with less.

    The cluster is as large as it ever was (`track_max_size`), from `initial_cluster_size` on; a
    restart of the hub's actor does not forget that. `Hub.reset_cluster_size` says how large it is
    after it was made smaller on purpose. Replacing nodes, a new one before the old one has gone, makes
    it larger for good.
    """

    kind: Literal["majority"] = "majority"
    initial_cluster_size: Count = Field(
        default=1, description="how many nodes the cluster has at first, from 1"
    )
    track_max_size: bool = Field(
        default=True, description="whether nodes that join make the cluster larger: True or False"
    )

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.initial_cluster_size == 1 and not self.track_max_size:
            raise InvalidSetting(
                "initial_cluster_size=1 means nothing with track_max_size=False: one node is always "
                "more than half of one",
                field="initial_cluster_size",
                hint="Say how many nodes the cluster has, or leave `track_max_size` out.",
            )
        return self

    def rule(self) -> Rule:
        """What the core goes by."""
        return MajorityRule(self.initial_cluster_size, self.track_max_size)


Redundancy = Annotated[Singularity | Replication, Field(discriminator="kind")]
# There is one strategy of this kind yet; the next one makes it a union told by `kind`.
Distribution = ConsistentHashing
PartitionTolerance = Annotated[
    Divergence | StaticQuorum | DynamicQuorum | MajorityQuorum, Field(discriminator="kind")
]
