"""In what circumstances does a seeded run go: with which settings, and which children?

One seed in five is short of nodes, and its hub has a rule for that. Of the others, every other seed
has children whose state is replicated. Of the rest, half live with the plain settings, and the
others mix what a hub can be told to do; seeds that end with 8 also mix where copies go.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from raphub.core.model import (
    Acks,
    ChildId,
    ChildPlan,
    DeathProof,
    Distribution,
    DistributionKind,
    HubSettings,
    Model,
    Signal,
    Spread,
    State,
)
from raphub.core.quorum import DynamicRule, MajorityRule, Rule, StaticRule

MACHINES = 4
"""Nodes come and go on so many machines; a new node of a machine has another id."""

DISTRIBUTED_SEEDS_END_WITH = 8

PLAIN_SETTINGS = HubSettings(
    crash_limit=1000, crash_backoff_max_s=2.0, role_deadline_s=2.0, placement_deadline_s=5.0
)
PLAIN_PLANS = (
    ChildPlan(ChildId("a"), factor=2),
    ChildPlan(ChildId("b"), factor=3, spread=Spread.STRICT),
    ChildPlan(ChildId("c"), factor=2, model=Model.ACTIVE_ACTIVE),
)

RULES: tuple[Rule, ...] = (
    StaticRule(4),
    StaticRule(4, startup_confirm=True),
    StaticRule(3),
    DynamicRule(80, 12.0),
    DynamicRule(60, 9.0),
    MajorityRule(4, track_max_size=False),
    MajorityRule(1),
)


@dataclass(frozen=True)
class Scenario:
    """The settings of the hub, and the children that are wanted from the first to the last second.

    `fault_length` stretches or shrinks pauses, and cuts between copies. `copy_delay_max_s` is how
    long a message between copies usually takes at most. Where the head `is_head_spared`, faults
    strike copies only, so that there are far more failovers. With `moves`, people ask for copies to
    be elsewhere. Below `nodes_min` nodes, one more joins within `node_comes_s`; where the cluster
    `is_short_of_nodes`, the faults are mostly losses of nodes.
    """

    settings: HubSettings = PLAIN_SETTINGS
    plans: tuple[ChildPlan, ...] = PLAIN_PLANS
    fault_every_s: float = 0.75
    fault_length: float = 1.0
    copy_delay_max_s: float = 0.003
    is_head_spared: bool = False
    moves: bool = False
    is_short_of_nodes: bool = False
    nodes_min: int = 3
    node_comes_s: tuple[float, float] = (0.5, 4.0)

    @property
    def is_particular(self) -> bool:
        """Do the children need more than four nodes of any kind?"""
        is_strict = any(plan.zone_label and plan.spread is Spread.STRICT for plan in self.plans)
        return is_strict or self.settings.distribution.kind is DistributionKind.GUIDED

    @property
    def has_state(self) -> bool:
        """Are there children whose state is replicated?"""
        return any(plan.state is not State.NONE for plan in self.plans)

    def plan(self, child_id: str) -> ChildPlan:
        """A child of the scenario, or one that comes and goes."""
        known = {plan.child_id: plan for plan in self.plans}
        return known.get(ChildId(child_id), ChildPlan(ChildId(child_id), factor=2))


PLAIN = Scenario()


def scenario(seed: int) -> Scenario:
    """The circumstances of a seed."""
    chance = random.Random(f"circumstances of {seed}")
    moves = random.Random(f"moves of {seed}").random() < 0.4
    return replace(_scenario(seed, chance), moves=moves)


def _scenario(seed: int, chance: random.Random) -> Scenario:
    if seed % 5 == 4:
        return short_of_nodes(seed)
    if seed % 2:
        return _with_state(chance)
    is_distributed = seed % 10 == DISTRIBUTED_SEEDS_END_WITH
    if chance.random() < 0.5 and not is_distributed:
        return PLAIN
    settings = replace(
        PLAIN_SETTINGS,
        lease_duration_s=chance.choice([2.0, 3.0, 3.0]),
        clock_drift_max=chance.choice([0.01, 0.05]),
        death_proof=chance.choice([DeathProof.PORT, DeathProof.PORT, DeathProof.LEASE]),
        replicas_starting_max=chance.choice([2, 16]),
        tombstones_max=chance.choice([1, 1000]),
    )
    a, b, c = PLAIN_PLANS
    plans = [
        replace(a, signal=chance.choice(list(Signal)), zone_label=chance.choice([None, "zone"])),
        replace(b, spread=chance.choice(list(Spread))),
        c,
    ]
    if chance.random() < 0.3:
        plans.append(ChildPlan(ChildId("d"), factor=None))
    # A lone copy is soon the last one that is ready.
    plans[2] = replace(c, factor=chance.choice([1, 2]))
    mixed = Scenario(settings, tuple(plans))
    return distributed(seed, mixed) if is_distributed else mixed


def distributed(
    seed: int, plain: Scenario = PLAIN, kind: DistributionKind | None = None
) -> Scenario:
    """The same with one of the distribution strategies, a strict spread over zones, and labels."""
    chance = random.Random(f"distribution of {seed}")
    drawn = chance.choice(list(DistributionKind))
    plans = list(plain.plans)
    if chance.random() < 0.5:
        plans[0] = replace(plans[0], zone_label="zone", spread=Spread.STRICT)
    if chance.random() < 0.5:
        plans = [replace(p, resources={"CPU": chance.choice([0.5, 2.0])}) for p in plans]
    mapping = {
        plan.child_id: tuple(f"machine{n}" for n in chance.sample(range(MACHINES), MACHINES))
        for plan in plans
    }
    for plan in plans:
        if plan.factor is not None and not plan.zone_label:
            spares = chance.choice([0, 1])
            mapping[plan.child_id] = mapping[plan.child_id][: plan.factor + spares]
    kind = drawn if kind is None else kind
    settings = replace(
        plain.settings,
        distribution=Distribution(kind, mapping if kind is DistributionKind.GUIDED else {}),
        label_selector={"disk": "fast"} if kind is DistributionKind.CUSTOM else {},
    )
    return replace(plain, settings=settings, plans=tuple(plans))


def rough(seed: int) -> Scenario:
    """Children with state whose copies are never left alone: where planted bugs show soonest."""
    return replace(
        _with_state(random.Random(f"rough {seed}"), acks_active=1.0),
        fault_every_s=0.25,
        fault_length=0.25,
        copy_delay_max_s=0.15,
        is_head_spared=True,
    )


def short_of_nodes(seed: int) -> Scenario:
    """Nodes are lost for a while, and the hub has a rule for how many it wants."""
    chance = random.Random(f"short of nodes {seed}")
    with_state = _with_state(chance)
    settings = replace(
        with_state.settings,
        partition_tolerance=RULES[seed // 5 % len(RULES)],
        lease_duration_s=chance.choice([2.0, 3.0]),
        death_proof=chance.choice([DeathProof.PORT, DeathProof.PORT, DeathProof.LEASE]),
    )
    return replace(
        with_state,
        settings=settings,
        plans=(*with_state.plans, PLAIN_PLANS[0], PLAIN_PLANS[2]),
        is_head_spared=False,
        is_short_of_nodes=True,
        nodes_min=2,
        node_comes_s=(8.0, 16.0),
    )


def _with_state(chance: random.Random, acks_active: float = 0.3) -> Scenario:
    settings = replace(
        PLAIN_SETTINGS,
        replicas_starting_max=chance.choice([2, 16]),
        answers_per_client_max=chance.choice([8, 1000]),
    )
    plans = [
        ChildPlan(ChildId("s"), factor=2, state=State.SNAPSHOT, start_grace_s=3.0),
        ChildPlan(
            ChildId("t"),
            factor=3,
            state=State.LOG,
            min_in_sync=chance.choice([1, 2]),
            start_grace_s=3.0,
        ),
    ]
    if chance.random() < acks_active:
        acks = ChildPlan(ChildId("u"), factor=2, state=State.SNAPSHOT, acks=Acks.ACTIVE)
        lag = chance.choice([2, 5])
        plans.append(replace(acks, max_lag_writes=lag, start_grace_s=3.0))
    return Scenario(
        settings,
        tuple(plans),
        chance.choice([0.75, 0.4]),
        chance.choice([1.0, 0.25]),
        chance.choice([0.003, 0.15]),
        is_head_spared=chance.random() < 0.4,
    )
