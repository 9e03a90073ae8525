"""Which ways are there to keep copies, to place them, and to go on when nodes are missing?

Strategies are values: what they decide is decided by pure functions of the core.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raphub.core.model import Model, Signal
from raphub.settings import Factor, ModelChoice, Setting, SignalChoice, StateChoice


class Singularity(Setting):
    """One copy of each child; when it is lost, it is started again elsewhere."""

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
        default="none", description='how state is replicated; in this version only "none"'
    )


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
