"""Does a hub that has too few nodes let anybody serve?

The checker of partition tolerance. It goes by the nodes that Ray truly sees and by what a life of
the hub has surely taken in, and reckons with rules of its own wording.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raphub.core.quorum import DynamicRule, MajorityRule, Rule, StaticRule
from raphub.core.records import Fact, ReplicaPlaced, ReplicaPromoted
from tests.simulation.checkers import LawBrokenError
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster
    from tests.simulation.hub_life import HubLife

LOOK_EVERY_S = 0.1
KNOWN_AFTER_S = 1.5
"""A count of nodes that a life of the hub had for so long is surely at rest in its journal."""

NOTICED_AFTER_S = 1.5


@dataclass
class ShortOfNodes:
    """What the rule says in truth. `forbidden_since` is from when on it surely says no."""

    world: World
    cluster: Cluster
    rule: Rule
    largest: int = 0
    recent: deque[tuple[float, int, int]] = field(default_factory=deque)
    known: deque[tuple[float, int]] = field(default_factory=deque)
    forbidden_since: float | None = None
    disturbed_at: float = 0.0
    was_counted: bool = False
    seen_at: dict[str, float] = field(default_factory=dict)

    def keep_looking(self) -> None:
        """Look now and every so often, until all is mended."""
        if self.world.calm:
            return
        self._look()
        self._check_copies()
        self.world.at(LOOK_EVERY_S, self.keep_looking)

    def decides(self, fact: Fact) -> None:
        """A life of the hub has recorded something."""
        if self.world.calm or not isinstance(fact, ReplicaPromoted | ReplicaPlaced):
            return
        self._look()
        if self._is_over(0.0):
            raise LawBrokenError("quorum", f"{fact} is decided with too few nodes")

    # --- the truth ----------------------------------------------------------------------------

    def _look(self) -> None:
        self._see_what_is_known()
        if not self._forbids(self._still_counted()):
            self.forbidden_since, self.was_counted = None, False
        elif self.forbidden_since is None:
            self.forbidden_since = self.world.now
        if self._is_over(0.0) and not self.was_counted:
            self.was_counted = True
            self.world.totals["standstills"] += 1

    def _still_counted(self) -> int:
        """How many nodes does Ray see, or did it see so lately that the hub may doubt their loss?"""
        now = self.world.now
        seen = [name for name, node in self.cluster.nodes.items() if node.ray_sees]
        self.seen_at.update(dict.fromkeys(seen, now))
        doubted_s = self.cluster.settings.lease_certain_s + NOTICED_AFTER_S
        return sum(now - at < doubted_s for at in self.seen_at.values())

    def _forbids(self, seen: int) -> bool:
        match self.rule:
            case StaticRule(size, startup_confirm):
                return seen < size and (startup_confirm or self.largest >= size)
            case DynamicRule(percent):
                return seen / max(1, self._lately_known()) < percent / 100
            case MajorityRule(initial_cluster_size, track_max_size):
                tracked = self.largest if track_max_size else 0
                return seen <= max(initial_cluster_size, tracked) / 2

    def _see_what_is_known(self) -> None:
        """Take note of the nodes that the newest life has known of long enough."""
        life = self._life()
        now = self.world.now
        if life is None or life.machine is None:
            self.recent.clear()
            self.disturbed_at = now
            return
        if self.recent and self.recent[-1][1] != life.number:
            self.recent.clear()
            self.disturbed_at = now
        self.recent.append((now, life.number, len(life.machine.state.nodes)))
        while len(self.recent) > 1 and now - self.recent[1][0] >= KNOWN_AFTER_S:
            self.recent.popleft()
        if now - self.recent[0][0] >= KNOWN_AFTER_S:
            self.known.append((now, min(count for _, _, count in self.recent)))
            self.largest = max(self.largest, self.known[-1][1])

    def _life(self) -> HubLife | None:
        newest = self.cluster.lives[-1]
        return newest if newest.is_alive and not newest.is_paused else None

    def _lately_known(self) -> int:
        assert isinstance(self.rule, DynamicRule)
        since = self.world.now - self.rule.threshold_time_s + NOTICED_AFTER_S
        while self.known and self.known[0][0] < since:
            self.known.popleft()
        return max((count for _, count in self.known), default=0)

    # --- what follows -------------------------------------------------------------------------

    def _is_over(self, more_s: float) -> bool:
        """Has everything run out that may let a copy serve: doubts, and the last lease?"""
        lease_s = self.cluster.settings.lease_certain_s
        if self.forbidden_since is None:
            return False
        since = max(self.forbidden_since, self.disturbed_at + lease_s)
        return self.world.now - since > lease_s + NOTICED_AFTER_S + more_s

    def _check_copies(self) -> None:
        if not self._is_over(0.0):
            return
        reads_are_over = self._is_over(1.1 * self.cluster.settings.read_staleness_s)
        for process in self.cluster.living():
            if process.may_serve():
                raise LawBrokenError("quorum", f"{process.replica} serves with too few nodes")
            if reads_are_over and process.machine.may_read(process.own_now(), 0):
                raise LawBrokenError("quorum", f"{process.replica} is read with too few nodes")
