"""The same for replicated state: mistakes of the data plane, each caught by the law it breaks.

The storms are rough ones, in which copies follow each other as fast as they can be built.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raphub.core import roles
from raphub.core.dedup import AnswerTable, Kept, TableKept, Verdict
from raphub.core.following import Following
from raphub.core.hub_state import HubState
from raphub.core.messages import Roster
from raphub.core.records import Child, InSyncChanged
from raphub.core.replica_machine import ReplicaMachine
from raphub.core.replication import Replication
from raphub.core.shipments import Acked, Snapshot
from raphub.core.shipping import Shipping
from tests.simulation.planted import Plant, hunt
from tests.simulation.scenario import rough
from tests.simulation.simulation import Simulation

STORMS_MAX = 100


def answer_before_the_others_hold_it(patch: pytest.MonkeyPatch) -> None:
    """A write is answered as soon as the active has executed it."""
    patch.setattr(Replication, "may_release", lambda self, *_, **__: self.shipping is not None)


def take_the_tail_for_committed(patch: pytest.MonkeyPatch) -> None:
    """A new active answers for its tail before the others hold it."""
    right = Replication.begin

    def wrong(self: Replication, roster: Roster, now: float) -> list[Any]:
        actions = right(self, roster, now)
        self.holding.committed = self.holding.log.tail.seq
        return actions

    patch.setattr(Replication, "begin", wrong)


def join_without_awaiting(patch: pytest.MonkeyPatch) -> None:
    """A copy is asked into the set, and awaited only once the record is known."""
    patch.setattr(
        Shipping, "awaited", lambda self: [r for r in self.roster.members if r != self.me]
    )


def drop_before_the_record(patch: pytest.MonkeyPatch) -> None:
    """A silent passive is not awaited any more once the hub has been asked to leave it out."""
    right = Shipping.awaited

    def wrong(self: Shipping) -> list[Any]:
        return [r for r in right(self) if self.wanted is None or r in self.wanted]

    patch.setattr(Shipping, "awaited", wrong)


def promote_whoever_is_ready(patch: pytest.MonkeyPatch) -> None:
    """The hub promotes a copy outside the in-sync set."""

    right = roles.may_inherit

    def wrong(state: HubState, child: Child, now: float) -> list[Any]:
        if not child.is_open:
            return right(state, child, now)
        there = [c for c in state.copies(child, now) if not state.is_silent(c[1], now)]
        return [copy for copy in there if copy[1].is_ready]

    patch.setattr(roles, "may_inherit", wrong)


def acknowledge_before_the_state_is_there(patch: pytest.MonkeyPatch) -> None:
    """A passive acknowledges a snapshot before its object has taken it in."""
    right = Following._install

    def wrong(self: Following, snapshot: Snapshot) -> list[Any]:
        actions = right(self, snapshot)
        return [*actions, self._to_active(Acked(self.epoch, snapshot.position))]

    patch.setattr(Following, "_install", wrong)


def apply_what_is_not_committed(patch: pytest.MonkeyPatch) -> None:
    """A passive applies writes as they come."""
    right = Following.due

    def wrong(self: Following) -> list[Any]:
        self.holding.committed = max(self.holding.committed, self.holding.log.tail.seq)
        return right(self)

    patch.setattr(Following, "due", wrong)


def lose_the_answers_with_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    """A snapshot brings the state, and not the table of answers."""

    def wrong(self: AnswerTable, table: TableKept) -> None:
        self.clients = {}

    patch.setattr(AnswerTable, "restore", wrong)


def run_every_retry(patch: pytest.MonkeyPatch) -> None:
    """A call that is sent again is run again."""
    patch.setattr(AnswerTable, "look_up", lambda *_, is_retry: (Verdict.NEW, None))


def run_what_is_settled(patch: pytest.MonkeyPatch) -> None:
    """A number below what its client has settled runs, if it comes late."""
    right = AnswerTable.look_up

    def wrong(self: AnswerTable, *call: Any, is_retry: bool) -> tuple[Verdict, Kept | None]:
        verdict, kept = right(self, *call, is_retry=is_retry)
        return (Verdict.NEW, None) if verdict is Verdict.FORGOTTEN else (verdict, kept)

    patch.setattr(AnswerTable, "look_up", wrong)


def admit_writes_in_any_order(patch: pytest.MonkeyPatch) -> None:
    """A client's write runs before an earlier one of its that is under way."""
    patch.setattr(Replication, "_is_missing", lambda *_: False)


def release_reads_at_once(patch: pytest.MonkeyPatch) -> None:
    """A read is answered at once, whatever it reflects."""
    right = Replication.may_release

    def wrong(self: Replication, seq: int, *, is_read: bool) -> bool:
        return right(self, 0 if is_read else seq, is_read=is_read)

    patch.setattr(Replication, "may_release", wrong)


def release_stored_answers_at_once(patch: pytest.MonkeyPatch) -> None:
    """A stored answer is given again before everybody holds its write."""
    right = AnswerTable.look_up

    def wrong(self: AnswerTable, *call: Any, is_retry: bool) -> tuple[Verdict, Kept | None]:
        verdict, kept = right(self, *call, is_retry=is_retry)
        return verdict, kept and replace(kept, seq=0)

    patch.setattr(AnswerTable, "look_up", wrong)


def forget_who_died_in_a_call(patch: pytest.MonkeyPatch) -> None:
    """A new active does not know in which call the last one died."""
    patch.setattr(Replication, "_suspects", lambda *_: {})


def enter_what_nobody_hears_of(patch: pytest.MonkeyPatch) -> None:
    """A call is entered though a copy that may inherit is not connected."""
    patch.setattr(Shipping, "can_be_heard", lambda *_: True)


def serve_before_all_is_applied(patch: pytest.MonkeyPatch) -> None:
    """An heir serves while its object still lacks writes that it holds."""
    patch.setattr(ReplicaMachine, "_is_caught_up", lambda *_: True)


def keep_the_dead_active_in_the_set(patch: pytest.MonkeyPatch) -> None:
    """The record of a promotion still names the old active as in sync."""
    right = roles._promote

    def wrong(state: HubState, child: Child, heir: Any, now: float) -> None:
        old = child.active
        right(state, child, heir, now)
        if old is not None and child.in_sync:
            state.record(InSyncChanged(child.plan.child_id, (*child.in_sync, old)))

    patch.setattr(roles, "_promote", wrong)


def write_with_too_few_in_sync(patch: pytest.MonkeyPatch) -> None:
    """`min_in_sync` is asked for, and not heeded."""
    right = Replication.__post_init__

    def wrong(self: Replication) -> None:
        self.min_in_sync = 1
        right(self)

    patch.setattr(Replication, "__post_init__", wrong)


def lag_without_end(patch: pytest.MonkeyPatch) -> None:
    """With `acks="active"`, writes go on however far the others are behind."""
    right = Replication.__post_init__

    def wrong(self: Replication) -> None:
        self.bounds = replace(self.bounds, max_lag_writes=10**6)
        right(self)

    patch.setattr(Replication, "__post_init__", wrong)


MUTANTS: dict[Plant, set[str]] = {
    answer_before_the_others_hold_it: {"8"},
    take_the_tail_for_committed: {"8"},
    join_without_awaiting: {"8"},
    drop_before_the_record: {"8", "min_in_sync"},
    promote_whoever_is_ready: {"2"},
    acknowledge_before_the_state_is_there: {"8"},
    apply_what_is_not_committed: {"8"},
    lose_the_answers_with_a_snapshot: {"3"},
    run_every_retry: {"3"},
    run_what_is_settled: {"3"},
    admit_writes_in_any_order: {"order"},
    release_reads_at_once: {"8"},
    release_stored_answers_at_once: {"8"},
    forget_who_died_in_a_call: {"15"},
    enter_what_nobody_hears_of: {"15"},
    serve_before_all_is_applied: {"2", "8"},
    keep_the_dead_active_in_the_set: {"8"},
    write_with_too_few_in_sync: {"min_in_sync"},
    lag_without_end: {"lag"},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_the_planted_bug_is_caught(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storms = (Simulation(seed, circumstances=rough(seed)) for seed in range(STORMS_MAX))
    hunt(plant, MUTANTS[plant], storms, monkeypatch, capsys)
