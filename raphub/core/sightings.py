"""What has the hub observed, and how far may it trust that?

Nothing here is recorded: a hub actor that starts again observes anew, and until it has, it knows
only that any lease may still run for `term_check_s` and a lease (DESIGN: a hub's own authority).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from raphub.core.log import START, Position
from raphub.core.messages import Roster
from raphub.core.model import ChildId, HubSettings, NodeId, Phase, Role

NEVER = float("-inf")
NOT_YET = float("inf")


@dataclass(slots=True)
class Sighting:
    """One copy as the hub sees it now.

    `began_at` is when this life of the hub first dealt with the copy. `asked_role` is what was
    last sent to it; `role` and `epoch` are what it said it has taken. `leaving` is set once the
    copy is to step down: from then on nothing of it is renewed. `leave_asked_at` is when it was
    first asked to over the connection that stands; `made_way_at`, when it had followed a wish for
    another active. `is_inherited` marks a copy that an earlier life
    of the hub had reached or begun to start, `was_active` the one that was the active then.
    """

    began_at: float
    heard_at: float
    is_inherited: bool = False
    was_active: bool = False
    is_wired: bool = False
    is_dialing: bool = False
    dial_at: float = NEVER
    dial_failures: int = 0
    phase: Phase = Phase.STARTING
    build_began_at: float | None = None
    role: Role | None = None
    epoch: int = 0
    pid: int = 0
    is_gone: bool = False
    is_starting: bool = False
    is_overdue: bool = False
    is_built: bool = False
    tail: Position = START
    reported_at: float = NEVER
    told_roster: Roster | None = None
    leaving: bool = False
    leave_asked_at: float = NOT_YET
    made_way_at: float = NEVER
    asked_role: tuple[Role, int] | None = None
    asked_at: float = NEVER
    role_asked_at: float = NEVER

    @property
    def may_be_ready(self) -> bool:
        """Is it ready, or left by an earlier life of the hub and not heard of yet?"""
        return self.phase is Phase.READY or (self.is_inherited and self.phase is Phase.STARTING)

    @property
    def is_ready(self) -> bool:
        """Is the user's object there, behind a wire that works?"""
        return self.phase is Phase.READY and self.is_wired and not self.is_gone


@dataclass(slots=True)
class Leases:
    """Until when may the last promoted copy of each child believe that it holds a lease?

    Times are on the hub's clock. A lease granted by an earlier life of the hub is unknown to this
    one, so before `unknown_until` no lease counts as run out.
    """

    settings: HubSettings
    unknown_until: float
    until: dict[ChildId, float] = field(default_factory=dict)

    def grant(self, child_id: ChildId, now: float) -> None:
        """A renewal is answered now."""
        ends = now + self.settings.lease_certain_s
        self.until[child_id] = max(ends, self.until.get(child_id, NEVER))

    def ends_at(self, child_id: ChildId) -> float:
        """When a lease of this child has certainly run out, if nothing is granted any more."""
        return max(self.unknown_until, self.until.get(child_id, NEVER))

    def has_run_out(self, child_id: ChildId, now: float) -> bool:
        """Has every lease of this child certainly run out?"""
        return now >= self.ends_at(child_id)

    def forget(self, now: float) -> None:
        """Drop what has run out; it answers the same without."""
        for child_id in [c for c, ends in self.until.items() if ends <= now]:
            del self.until[child_id]


@dataclass(slots=True)
class Trust:
    """May silence be believed, or is it more likely that the hub itself cannot hear?

    Two grounds for distrust, each lasting one lease: the hub's own loop stood still, and most of
    the nodes that hold copies fell silent together. When the first of those speaks again, the
    others are given a moment to speak as well, once, or once more after all were silent: the hub
    may have been cut off itself.
    """

    settings: HubSettings
    began_at: float
    distrusted_until: float = NEVER
    last_now: float | None = None
    heard_on: dict[NodeId, float] = field(default_factory=dict)
    is_mass_silence: bool = False
    has_returned: bool = False

    @property
    def patience_s(self) -> float:
        """A node of which nothing was heard for so long is silent."""
        return 3 * self.settings.lease_renewal_s

    def pass_time(self, now: float) -> bool:
        """Take note of the time; True if the hub's loop stood still since the last note."""
        stood_still = (
            self.last_now is not None and now - self.last_now > self.settings.pause_suspected_s
        )
        self.last_now = now
        if stood_still:
            self._distrust(now)
        return stood_still

    def expect(self, node_id: NodeId) -> None:
        """A copy on this node was up before this life of the hub began, and should be heard."""
        self.heard_on.setdefault(node_id, self.began_at)

    def hear(self, node_id: NodeId, now: float) -> None:
        """A copy on this node gave a sign of life."""
        was_silent = self.heard_on.get(node_id, now) < now - self.patience_s
        if was_silent and self.is_mass_silence and not self.has_returned:
            self.has_returned = True
            self.distrusted_until = max(self.distrusted_until, now + self.patience_s)
        self.heard_on[node_id] = now

    def listen(self, holding: Iterable[NodeId], now: float) -> None:
        """Take note of how many of the nodes that hold copies are silent.

        A node where the first copy is still on its way up says nothing about the others.
        """
        self.heard_on = {n: self.heard_on[n] for n in holding if n in self.heard_on}
        heard = [at >= now - self.patience_s for at in self.heard_on.values()]
        silent = heard.count(False)
        is_mass = silent >= 2 and silent > self.settings.distrust_node_fraction * len(heard)  # noqa: PLR2004
        if is_mass and not self.is_mass_silence:
            self._distrust(now)
        if is_mass and (not self.is_mass_silence or silent == len(heard)):
            self.has_returned = False
        self.is_mass_silence = is_mass

    def _distrust(self, now: float) -> None:
        self.distrusted_until = now + self.settings.lease_certain_s


@dataclass(slots=True)
class Crashes:
    """How often did copies of one child die lately, and when may the next one be started?"""

    count: int = 0
    last_at: float = NEVER
    retry_at: float = NEVER

    def add(self, settings: HubSettings, now: float) -> None:
        """A copy died. The first death costs no wait, each further one twice the last."""
        if now - self.last_at > settings.crash_forgiven_s:
            self.count = 0
        self.count += 1
        self.last_at = now
        wait = 0.0
        if self.count > 1:
            wait = settings.crash_backoff_s * 2 ** min(self.count - 2, 30)
        self.retry_at = max(self.retry_at, now + min(wait, settings.crash_backoff_max_s))
