"""Which ways are there to keep copies, to place them, and to go on when nodes are missing?

Strategies are values: what they decide is decided by pure functions of the core.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import AfterValidator, Field, JsonValue, field_validator, model_validator

from raphub.core.model import (
    Acks,
    ChildId,
    ChildPlan,
    Distribution,
    DistributionKind,
    Model,
    OnDataLoss,
    Signal,
    State,
)
from raphub.core.placement import Candidate
from raphub.core.quorum import DynamicRule, MajorityRule, Rule, StaticRule
from raphub.errors import InvalidMapping, InvalidSetting
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
    """Copies are placed by a hash of child and node: a node that joins moves few of them.

    Rendezvous hashing (Thaler and Ravishankar, 1996).
    """

    kind: Literal["consistent_hashing"] = "consistent_hashing"

    def for_core(self) -> Distribution:
        """As the core reads it."""
        return Distribution()


class Guided(Setting):
    """Copies are placed exactly where `mapping` says, and nowhere else.

    `mapping` names the nodes of each child, by Ray's node id or by address: the first copy goes to
    the first node, and further ones than the factor are spares, used in their order. A copy whose
    node is lost waits, and its child is degraded, until a mapped node is there. Name addresses
    where machines come back: a restarted node has another id. `zone_label` matters only with
    `spread="strict"`. A child that is not in the mapping, or whose mapping cannot be kept when it
    is started, raises `InvalidMapping`, and nothing of that request starts.
    """

    kind: Literal["guided"] = "guided"
    mapping: Mapping[str, Annotated[Sequence[str], AfterValidator(tuple)]] = Field(
        default_factory=dict,
        description="for each child id, its nodes by id or address, the first copy's node first",
    )

    @field_validator("mapping", mode="before")
    @classmethod
    def _check_mapping(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            raise InvalidMapping(
                f"should be a dictionary, not {value!r}.",
                hint='Write Guided(mapping={"child1": [node, ...]}).',
            )
        for child_id, nodes in cast("Mapping[object, object]", value).items():
            wrong = _wrong_entries(nodes)
            if wrong:
                raise InvalidMapping(
                    f"has for {child_id!r} {wrong}.",
                    child_id=str(child_id),
                    hint=f"Give {child_id!r} a list of node ids or addresses, each once.",
                )
        return cast("object", value)

    def for_core(self) -> Distribution:
        """As the core reads it."""
        mapping = {ChildId(child_id): tuple(nodes) for child_id, nodes in self.mapping.items()}
        return Distribution(DistributionKind.GUIDED, mapping)


def _wrong_entries(nodes: object) -> str:
    if not isinstance(nodes, list | tuple):
        return f"{nodes!r}, which is not a list of nodes"
    listed = cast("Sequence[object]", nodes)
    if not listed:
        return "no nodes"
    if not all(isinstance(node, str) and node for node in listed):
        return f"{listed!r}, which are not all node ids or addresses"
    twice = next((node for node in listed if listed.count(node) > 1), None)
    return "" if twice is None else f"the node {twice!r} twice"


class LeastLoaded(Setting):
    """Copies are placed where the load is least.

    The load of a node is the largest share in use of its CPUs, its memory and what else the child
    asks for, by Ray's figures, which are about two seconds old, and by what was placed since. A copy
    counts as a tenth of a CPU at least. Equal nodes are told apart by consistent hashing. Not
    promised: that CPU time which nobody has reserved with Ray is seen.
    """

    kind: Literal["least_loaded"] = "least_loaded"

    def for_core(self) -> Distribution:
        """As the core reads it."""
        return Distribution(DistributionKind.LEAST_LOADED)


class CustomDistribution(Setting):
    """A distribution strategy of the user's own, by the name of its class.

    It is what a `DistributionStrategy` becomes in a `HubConfig`; write it yourself in a file.
    """

    kind: Literal["custom"] = "custom"
    cls: str = Field(
        description='the strategy\'s class, as "package.module:Class", importable on the head node'
    )
    settings: dict[str, JsonValue] = Field(
        default_factory=dict, description="the values of the strategy's fields, as plain JSON"
    )

    @field_validator("cls")
    @classmethod
    def _check_cls(cls, name: str) -> str:
        module, colon, path = name.partition(":")
        if not (module and colon and path):
            raise ValueError(f'should be written as "package.module:Class", not {name!r}')
        if module == "__main__" or "<locals>" in path:
            raise InvalidSetting(
                f"the hub cannot import the class {name!r}: it is in the script that runs, "
                "in a notebook or in a function.",
                hint="Put the strategy's class into a module that the head node can import.",
            )
        return name

    def for_core(self) -> Distribution:
        """As the core reads it."""
        return Distribution(
            DistributionKind.CUSTOM, cls=self.cls, settings=json.dumps(self.settings)
        )


class DistributionStrategy(Setting):
    """Derive from it to say yourself where copies go; fields are settings, as in pydantic.

    An instance is given as `HubConfig(distribution=...)`. It reaches the hub as the name of its
    class and its fields as JSON, so the class must be in a module that the head node can import;
    `Hub.start` raises `InvalidSetting` if it cannot. `rank` runs in the hub's own process, one call
    at a time, for each copy that is placed, and nothing else is decided meanwhile: answer within a
    millisecond, from the arguments and the fields alone. If it raises, answers with what is not
    allowed, or takes longer than half a second, consistent hashing decides, and an event
    `strategy_failed` says why. Copies are not moved later on because `rank` would answer otherwise.
    """

    kind: ClassVar[str] = "custom"

    @abstractmethod
    def rank(
        self, child_id: str, nodes: Sequence[Candidate], taken: Mapping[str, int]
    ) -> Sequence[str]:
        """The ids of the nodes for one further copy of the child, the best one first, as a list.

        `nodes` are all that may hold it; those without a copy of the child, if there are any.
        `taken` counts the child's copies on each node. A node that is left out gets no copy; if all
        are left out, the copy waits for the next change of the child or of the nodes. Nodes where a
        copy was lost half a minute ago come last, and a zone with fewer copies first, whatever the
        order says.
        """

    def named(self) -> CustomDistribution:
        """The strategy as it is kept: the name of its class, and its fields."""
        kind = type(self)
        return CustomDistribution(
            cls=f"{kind.__module__}:{kind.__qualname__}", settings=self.model_dump(mode="json")
        )

    def for_core(self) -> Distribution:
        """As the core reads it."""
        return self.named().for_core()


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
if TYPE_CHECKING:
    # A user's strategy may be given, too; what is read back is a `CustomDistribution` then.
    DistributionChoice = (
        ConsistentHashing | Guided | LeastLoaded | CustomDistribution | DistributionStrategy
    )
else:
    DistributionChoice = Annotated[
        ConsistentHashing | Guided | LeastLoaded | CustomDistribution, Field(discriminator="kind")
    ]
PartitionTolerance = Annotated[
    Divergence | StaticQuorum | DynamicQuorum | MajorityQuorum, Field(discriminator="kind")
]
