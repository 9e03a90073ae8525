"""What does this process know of one child, and where may a call to it go?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raphub.core.calls import Attempt, News
from raphub.core.model import Model, Phase, ReplicaId, State
from raphub.core.views import ChildView, ReplicaView
from raphub.spec import StartedSpec
from raphub.status import ChildStatus, ReplicaStatus


@dataclass(frozen=True, slots=True)
class Known:
    """One child as this process was last told, with the Ray handles of its copies.

    `serving` are the copies that calls may go to: the active, or all that are ready where all
    serve. `serve` holds each copy's Ray method, made once, because it is used on every call.
    `is_replicated` says that the copies keep one state, and know which calls have run. `passives`
    are those that may answer reads.
    """

    view: ChildView
    handles: dict[ReplicaId, Any]
    serving: tuple[ReplicaId, ...]
    serve: dict[ReplicaId, Any]
    is_replicated: bool
    passives: tuple[ReplicaId, ...]
    read_only: frozenset[str] = field(default_factory=frozenset[str])

    @classmethod
    def of(cls, view: ChildView, handles: dict[ReplicaId, Any]) -> Known:
        """Work out where calls may go."""
        if view.plan.model is Model.ACTIVE_PASSIVE:
            serving = [copy.replica for copy in view.replicas if copy.replica == view.active]
        else:
            serving = [copy.replica for copy in view.replicas if copy.is_settled]
        serve = {replica: handle.serve for replica, handle in handles.items()}
        is_replicated = view.plan.state is not State.NONE
        passives = [
            copy.replica
            for copy in view.replicas
            if copy.phase is Phase.READY and copy.replica != view.active and copy.replica in serve
        ]
        return cls(
            view,
            handles,
            tuple(r for r in serving if r in serve),
            serve,
            is_replicated,
            tuple(passives) if is_replicated else (),
            frozenset(view.plan.read_only),
        )

    def news(self, attempt: Attempt) -> News:
        """What this says about an attempt that was made with older knowledge."""
        is_listed = any(copy.replica == attempt.replica for copy in self.view.replicas)
        return News(self.view.active, self.view.epoch, is_listed)

    def status(self) -> ChildStatus:
        """The same for people."""
        view, plan = self.view, self.view.plan
        last = max((copy.seq for copy in view.replicas if copy.replica == view.active), default=0)
        replicas = [self._replica_status(copy, last) for copy in view.replicas]
        spec = StartedSpec.of(plan)
        return ChildStatus(
            child_id=plan.child_id,
            health=view.health,
            active=next((r for r in replicas if r.replica_id == view.active), None),
            replicas=replicas,
            epoch=view.epoch,
            factor=view.factor,
            in_sync=[
                copy.replica
                for copy in view.replicas
                if (copy.is_in_sync if self.is_replicated else copy.is_settled)
            ],
            metadata=spec.metadata,
            spec=spec,
            reason=view.reason or None,
            colocated=view.is_colocated,
        )

    def _replica_status(self, copy: ReplicaView, last: int) -> ReplicaStatus:
        seq = copy.seq if self.is_replicated else 0
        return ReplicaStatus(
            replica_id=copy.replica,
            node_id=copy.node_id,
            role=copy.role,
            phase=copy.phase,
            epoch=copy.epoch,
            seq=seq,
            lag=max(0, last - seq) if self.is_replicated else 0,
            pid=copy.pid or None,
            handle=self.handles.get(copy.replica),
        )
