"""What does a user ask for with a hub, and can its bounds be safe together?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, ClassVar, cast

from pydantic import AfterValidator, Field, field_validator, model_validator

from raphub.child_spec import ChildSpec
from raphub.core.model import HubSettings
from raphub.errors import InvalidMapping, InvalidSetting
from raphub.settings import Count, DeathProofChoice, LabelSelector, Seconds, Setting
from raphub.strategies import (
    ConsistentHashing,
    DistributionChoice,
    DistributionStrategy,
    Divergence,
    DynamicQuorum,
    Guided,
    PartitionTolerance,
    Redundancy,
    Replication,
)

HUB_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BOUND = HubSettings()
_FRAME_BYTES_MIN = 64 * 1024
_PORT_MAX = 65535
_DRIFT_LIMIT = 0.1


class HubConfig(Setting):
    """A hub: its name, how it keeps its children, the children it begins with, and its bounds.

    Times are seconds (`_s`), sizes bytes. Raises `InvalidSetting` for a value that cannot be, and
    for lease settings that would not be safe together, naming the rule and the numbers. The
    defaults suit a cluster in one data centre. Not promised: that tighter times than the defaults
    hold on loaded machines.
    """

    hints_for_unknown: ClassVar[Mapping[str, str]] = {
        "id": "Did you mean `hub_id`?",
        "migration": "Migration strategies come in a later version; leave it out.",
        "factor": "Write `redundancy=raphub.Replication(factor=...)`.",
    }

    hub_id: str = Field(
        default="default",
        description="the hub's name in the cluster: 1 to 64 letters, digits, `_`, `-` or `.`",
    )
    redundancy: Redundancy = Field(
        default=Replication(),
        description="how many copies a child has: raphub.Singularity() or raphub.Replication(...)",
    )
    distribution: DistributionChoice = Field(
        default=ConsistentHashing(),
        description="which nodes the copies go to: raphub.ConsistentHashing(), "
        "raphub.Guided(mapping=...), raphub.LeastLoaded() or a DistributionStrategy of your own",
    )
    partition_tolerance: PartitionTolerance = Field(
        default=Divergence(),
        description="when the hub may go on: raphub.Divergence() (always), "
        "StaticQuorum(...), DynamicQuorum(...) or MajorityQuorum(...)",
    )
    child_specs: Annotated[Sequence[ChildSpec], AfterValidator(tuple)] = Field(
        default=(), description="the children that run when the hub has started: ChildSpecs"
    )
    label_selector: LabelSelector = Field(
        default_factory=dict,
        description='labels of the nodes that the hub uses: "a", "!a", "in(a,b)", "!in(a,b)"',
    )
    lease_duration_s: Seconds = Field(
        default=_BOUND.lease_duration_s,
        description="how long an active serves without hearing from the hub",
    )
    lease_renewal_s: Seconds = Field(
        default=_BOUND.lease_renewal_s, description="how often an active renews its lease"
    )
    clock_drift_max: float = Field(
        default=_BOUND.clock_drift_max,
        ge=0,
        lt=_DRIFT_LIMIT,
        description="by which share a machine's clock may be slow or fast: from 0, below 0.1",
    )
    term_check_s: Seconds = Field(
        default=_BOUND.term_check_s,
        description="how long a hub actor trusts that it is still the only one",
    )
    role_deadline_s: Seconds = Field(
        default=_BOUND.role_deadline_s, description="how long `on_role_change` may take"
    )
    placement_deadline_s: Seconds = Field(
        default=_BOUND.placement_deadline_s,
        description="how long room for a copy on a node is awaited before another node is tried",
    )
    build_deadline_s: Seconds = Field(
        default=_BOUND.build_deadline_s, description="how long a copy's constructor may take"
    )
    dial_retry_s: Seconds = Field(
        default=_BOUND.dial_retry_s, description="how long until a lost copy is dialled again"
    )
    dial_timeout_s: Seconds = Field(
        default=_BOUND.dial_timeout_s, description="how long one attempt to dial a copy may take"
    )
    crash_backoff_s: Seconds = Field(
        default=_BOUND.crash_backoff_s,
        description="how long until a crashed copy is replaced; doubled at each crash",
    )
    crash_backoff_max_s: Seconds = Field(
        default=_BOUND.crash_backoff_max_s, description="where that doubling ends"
    )
    crash_limit: Count = Field(
        default=_BOUND.crash_limit,
        description="after how many crashes in a row no more copies of a child are started",
    )
    crash_forgiven_s: Seconds = Field(
        default=_BOUND.crash_forgiven_s, description="how long a copy must run to end such a row"
    )
    replicas_starting_max: Count = Field(
        default=_BOUND.replicas_starting_max, description="how many copies start at the same time"
    )
    answers_max: Count = Field(
        default=_BOUND.answers_max, description="how many answers to requests are kept for retries"
    )
    requests_waiting_max: Count = Field(
        default=_BOUND.requests_waiting_max, description="how many requests may wait for an answer"
    )
    tombstones_max: Count = Field(
        default=_BOUND.tombstones_max, description="how many stopped children are remembered"
    )
    distrust_node_fraction: float = Field(
        default=_BOUND.distrust_node_fraction,
        gt=0,
        le=1,
        description="which share of nodes, gone at once, makes the hub doubt itself: above 0, to 1",
    )
    pause_suspected_s: Seconds = Field(
        default=_BOUND.pause_suspected_s,
        description="how long the hub must have stood still to doubt what it saw before",
    )
    ack_timeout_s: Seconds = Field(
        default=_BOUND.ack_timeout_s,
        description="how long a passive may owe an acknowledgement and stay in sync",
    )
    read_staleness_s: Seconds = Field(
        default=_BOUND.read_staleness_s,
        description="how old a passive's knowledge of its active may be when it answers a read",
    )
    unapplied_max: Count = Field(
        default=_BOUND.unapplied_max,
        description="how many writes a passive may hold that are not in its object yet",
    )
    log_bytes_max: Count = Field(
        default=_BOUND.log_bytes_max,
        description="how many bytes of writes a copy keeps for others that were away",
    )
    clients_max: Count = Field(
        default=_BOUND.clients_max,
        description="how many callers' answers a child keeps for retries",
    )
    answers_per_client_max: Count = Field(
        default=_BOUND.answers_per_client_max,
        description="how many answers to one caller a child keeps for retries",
    )
    answer_bytes_max: Count = Field(
        default=_BOUND.answer_bytes_max,
        description="how many bytes an answer may have that is kept for retries",
    )
    death_proof: DeathProofChoice = Field(
        default=_BOUND.death_proof,
        description='what proves a death: "port" (it refuses) or "lease" (only its end)',
    )
    events_max: Count = Field(default=10_000, description="how many events are kept")
    wire_ports: tuple[int, int] | None = Field(
        default=None,
        description="the first and the last port that copies may listen on; None for any free one",
    )
    frame_bytes_max: int = Field(
        default=16 * 1024 * 1024,
        ge=_FRAME_BYTES_MIN,
        description="how many bytes one message of the wire may have, from 65536",
    )

    @field_validator("hub_id")
    @classmethod
    def _check_hub_id(cls, hub_id: str) -> str:
        if HUB_ID.fullmatch(hub_id):
            return hub_id
        raise ValueError(f"should have 1 to 64 letters, digits, `_`, `-` or `.`, not {hub_id!r}")

    @field_validator("redundancy", "distribution", "partition_tolerance", mode="before")
    @classmethod
    def _check_is_made(cls, value: object) -> object:
        if isinstance(value, type):
            raise ValueError(  # noqa: TRY004 - pydantic collects ValueErrors only
                f"should be a value, not a class: write {value.__name__}()"
            )
        return value

    @field_validator("distribution", mode="before")
    @classmethod
    def _name_strategy(cls, value: object) -> object:
        """A user's strategy is kept by its name, so that whoever reads this need not import it."""
        return value.named() if isinstance(value, DistributionStrategy) else value

    @model_validator(mode="after")
    def _check_mapping(self) -> HubConfig:
        if isinstance(self.distribution, Guided):
            unmapped = [s.child_id for s in self.child_specs]
            unmapped = [c for c in unmapped if c not in self.distribution.mapping]
            if unmapped:
                raise InvalidMapping(
                    f"the mapping names no nodes for {', '.join(map(repr, unmapped))}.",
                    field="distribution.mapping",
                    child_id=unmapped[0],
                    hint="Add each of `child_specs` to `Guided(mapping=...)`.",
                )
        return self

    @field_validator("child_specs")
    @classmethod
    def _check_child_ids(cls, specs: Sequence[ChildSpec]) -> Sequence[ChildSpec]:
        ids = [spec.child_id for spec in specs]
        twice = sorted({child_id for child_id in ids if ids.count(child_id) > 1})
        if twice:
            raise ValueError(f"should name each child once; twice: {', '.join(twice)}")
        return specs

    @field_validator("wire_ports")
    @classmethod
    def _check_wire_ports(cls, ports: tuple[int, int] | None) -> tuple[int, int] | None:
        if ports is None or 1 <= ports[0] <= ports[1] <= _PORT_MAX:
            return ports
        raise ValueError(
            f"should be two ports, the lower first, from 1 to {_PORT_MAX}, not {ports}"
        )

    @model_validator(mode="after")
    def _check_safety(self) -> HubConfig:
        for is_kept, rule, names in self._rules():
            if not is_kept:
                numbers = ", ".join(f"{name} is {getattr(self, name):g}" for name in names)
                raise InvalidSetting(
                    f"these times are not safe together: {rule}, but {numbers}",
                    hint=f"Keep the rule that {rule}, or leave them out: the defaults keep it.",
                )
        return self

    @model_validator(mode="after")
    def _check_threshold(self) -> HubConfig:
        """A loss that is forgotten before the leases have run out would never stop anybody."""
        tolerance = self.partition_tolerance
        if isinstance(tolerance, DynamicQuorum) and (
            tolerance.threshold_time_s < self.lease_duration_s
        ):
            raise InvalidSetting(
                f"threshold_time_s must not be below lease_duration_s, but they are "
                f"{tolerance.threshold_time_s:g} and {self.lease_duration_s:g}",
                field="partition_tolerance.threshold_time_s",
                hint="Raise `threshold_time_s`: leases run out before a loss may be forgotten.",
            )
        return self

    def _rules(self) -> Iterator[tuple[bool, str, tuple[str, ...]]]:
        """Which settings must fit together, in the reader's words."""
        yield (
            # Two renewals may be lost before an active that lives has to stop serving.
            self.lease_renewal_s * 3 <= self.lease_duration_s,
            "lease_renewal_s x 3 must not be above lease_duration_s",
            ("lease_renewal_s", "lease_duration_s"),
        )
        yield (
            # A superseded hub actor must be known to be silent about as soon as its leases are.
            self.term_check_s <= self.lease_duration_s,
            "term_check_s must not be above lease_duration_s",
            ("term_check_s", "lease_duration_s"),
        )
        yield (
            # A copy that is cut off must be dialled at least once before its lease has run out.
            self.dial_timeout_s < self.lease_duration_s,
            "dial_timeout_s must be below lease_duration_s",
            ("dial_timeout_s", "lease_duration_s"),
        )
        yield (
            # A pause that outlasts the leases must be noticed, or all actives seem dead at once.
            self.pause_suspected_s <= self.lease_duration_s,
            "pause_suspected_s must not be above lease_duration_s",
            ("pause_suspected_s", "lease_duration_s"),
        )
        yield (
            # A passive that hangs must be out of sync before the active's own lease is in doubt.
            self.ack_timeout_s < self.lease_duration_s,
            "ack_timeout_s must be below lease_duration_s",
            ("ack_timeout_s", "lease_duration_s"),
        )
        yield (
            self.crash_backoff_s <= self.crash_backoff_max_s,
            "crash_backoff_s must not be above crash_backoff_max_s",
            ("crash_backoff_s", "crash_backoff_max_s"),
        )

    def settings(self) -> HubSettings:
        """The bounds as the core reads them."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(HubSettings)}
        values["partition_tolerance"] = self.partition_tolerance.rule()
        values["distribution"] = self.distribution.for_core()
        return HubSettings(**values)

    def differences(self, other: HubConfig) -> list[str]:
        """In words, how `other` differs from this one; empty if they ask for the same hub.

        Children are told apart by id, and classes by qualified name, so a notebook cell that is
        run again makes no difference. An argument that JSON cannot hold is compared by its type
        only, so that a configuration read back from JSON equals the one that was written.
        """
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        for values in (mine, theirs):
            values["child_specs"] = {spec["child_id"]: spec for spec in values["child_specs"]}
        return list(_differences(mine, theirs))


_ARGUMENTS = ("args", "kwargs", "runtime_env")


def _differences(
    mine: dict[str, Any], theirs: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[str]:
    for key in dict.fromkeys([*mine, *theirs]):
        here, there = mine.get(key), theirs.get(key)
        name = ".".join([*path, key])
        if here == there:
            continue
        if path == ("child_specs",) and (here is None or there is None):
            yield f"the child {key!r} is in {'one' if there is None else 'the other'} only"
        elif key in _ARGUMENTS:
            # Arguments may hold secrets, so a difference is told and not shown.
            yield f"{name} differs"
        elif isinstance(here, dict) and isinstance(there, dict):
            inner = cast("dict[str, Any]", here), cast("dict[str, Any]", there)
            yield from _differences(*inner, (*path, key))
        else:
            yield f"{name} is {json.dumps(here)} in one and {json.dumps(there)} in the other"
