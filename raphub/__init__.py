"""Live, warm copies of Ray actors on different nodes, each told whether it is active or passive.

Decorate a plain class with `@raphub.replicated(factor=2)` and start it with `Class.remote(...)`.
Importing this package does not import Ray; the first name that needs it does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raphub.call import Call as Call
    from raphub.context import Context as Context
    from raphub.context import current as current
    from raphub.decorator import Local as Local
    from raphub.decorator import Replicated as Replicated
    from raphub.decorator import read_only as read_only
    from raphub.decorator import replicated as replicated
    from raphub.errors import CallKilledReplica as CallKilledReplica
    from raphub.errors import CallOutcomeUnknown as CallOutcomeUnknown
    from raphub.errors import CallTimeout as CallTimeout
    from raphub.errors import CallToOwnChild as CallToOwnChild
    from raphub.errors import ChildAlreadyStarted as ChildAlreadyStarted
    from raphub.errors import ChildNotFound as ChildNotFound
    from raphub.errors import ChildStartFailed as ChildStartFailed
    from raphub.errors import DataLost as DataLost
    from raphub.errors import DrainTimeout as DrainTimeout
    from raphub.errors import HubBusy as HubBusy
    from raphub.errors import HubConfigConflict as HubConfigConflict
    from raphub.errors import HubNotFound as HubNotFound
    from raphub.errors import HubUnreachable as HubUnreachable
    from raphub.errors import InvalidMapping as InvalidMapping
    from raphub.errors import InvalidSetting as InvalidSetting
    from raphub.errors import NoActiveReplica as NoActiveReplica
    from raphub.errors import NoQuorum as NoQuorum
    from raphub.errors import NotEnoughInSync as NotEnoughInSync
    from raphub.errors import NotEnoughNodes as NotEnoughNodes
    from raphub.errors import RaphubError as RaphubError
    from raphub.errors import ReplicaNotActive as ReplicaNotActive
    from raphub.errors import StateNotReplicable as StateNotReplicable
    from raphub.gathering import results as results
    from raphub.gathering import wait as wait
    from raphub.handle import ChildHandle as ChildHandle
    from raphub.hub import Hub as Hub
    from raphub.hub import default_hub as default_hub
    from raphub.hub import hubs as hubs
    from raphub.spec import Candidate as Candidate
    from raphub.spec import ChildSpec as ChildSpec
    from raphub.spec import ConsistentHashing as ConsistentHashing
    from raphub.spec import CustomDistribution as CustomDistribution
    from raphub.spec import DistributionStrategy as DistributionStrategy
    from raphub.spec import Divergence as Divergence
    from raphub.spec import DynamicQuorum as DynamicQuorum
    from raphub.spec import Guided as Guided
    from raphub.spec import HubConfig as HubConfig
    from raphub.spec import LeastLoaded as LeastLoaded
    from raphub.spec import MajorityQuorum as MajorityQuorum
    from raphub.spec import Replication as Replication
    from raphub.spec import Singularity as Singularity
    from raphub.spec import StaticQuorum as StaticQuorum
    from raphub.status import ChildStatus as ChildStatus
    from raphub.status import Event as Event
    from raphub.status import Health as Health
    from raphub.status import HubStatus as HubStatus
    from raphub.status import MoveResult as MoveResult
    from raphub.status import NodeStatus as NodeStatus
    from raphub.status import Phase as Phase
    from raphub.status import ReplicaStatus as ReplicaStatus
    from raphub.status import Role as Role
    from raphub.status import StartResult as StartResult
    from raphub.status import StopResult as StopResult
    from raphub.stream import Stream as Stream

__version__ = "0.1.0"

_HOMES = {
    "raphub.call": ("Call",),
    "raphub.context": ("Context", "current"),
    "raphub.decorator": ("Local", "Replicated", "read_only", "replicated"),
    "raphub.errors": (
        "CallKilledReplica",
        "CallOutcomeUnknown",
        "CallTimeout",
        "CallToOwnChild",
        "ChildAlreadyStarted",
        "ChildNotFound",
        "ChildStartFailed",
        "DataLost",
        "DrainTimeout",
        "HubBusy",
        "HubConfigConflict",
        "HubNotFound",
        "HubUnreachable",
        "InvalidMapping",
        "InvalidSetting",
        "NoActiveReplica",
        "NoQuorum",
        "NotEnoughInSync",
        "NotEnoughNodes",
        "RaphubError",
        "ReplicaNotActive",
        "StateNotReplicable",
    ),
    "raphub.gathering": ("results", "wait"),
    "raphub.handle": ("ChildHandle",),
    "raphub.hub": ("Hub", "default_hub", "hubs"),
    "raphub.spec": (
        "Candidate",
        "ChildSpec",
        "ConsistentHashing",
        "CustomDistribution",
        "DistributionStrategy",
        "Divergence",
        "DynamicQuorum",
        "Guided",
        "HubConfig",
        "LeastLoaded",
        "MajorityQuorum",
        "Replication",
        "Singularity",
        "StaticQuorum",
    ),
    "raphub.status": (
        "ChildStatus",
        "Event",
        "Health",
        "HubStatus",
        "MoveResult",
        "NodeStatus",
        "Phase",
        "ReplicaStatus",
        "Role",
        "StartResult",
        "StopResult",
    ),
    "raphub.stream": ("Stream",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll] - the names are text


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names (PEP 562)
    """Import a public name at its first use and keep it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'raphub' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names."""
    return list(__all__)
