"""The same for replicated state: mistakes of the data plane, each caught by the law it breaks.

Only odd seeds have children whose state is replicated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raphub.core import hub_machine, roles
from raphub.core.dedup import AnswerTable, Kept, TableKept, Verdict
from raphub.core.following import Following
from raphub.core.hub_state import HubState, is_led
from raphub.core.log import Position, Write
from raphub.core.messages import Apply, Install, Roster, SetWanted
from raphub.core.records import Child, InSyncChanged
from raphub.core.replica_machine import ReplicaMachine
from raphub.core.replication import Admission, Call, Replication
from raphub.core.shipments import Acked, Follow, Ship, Snapshot
from raphub.core.shipping import Follower, Link, Shipping
from tests.simulation.planted import Plant, hunt

SEEDS = range(1, 81, 2)


def answer_before_the_others_hold_it(patch: pytest.MonkeyPatch) -> None:
    """A write is answered as soon as the active has executed it."""
    patch.setattr(Replication, "may_release", lambda self, *_, **__: self.shipping is not None)


def trust_the_mark_of_a_snapshot(patch: pytest.MonkeyPatch) -> None:
    """A new active takes for committed what it took for committed as a passive."""
    right = Replication.begin

    def wrong(self: Replication, roster: Roster, now: float) -> list[Any]:
        before = self.holding.committed
        actions = right(self, roster, now)
        self.holding.committed = max(before, self.holding.committed)
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


def forget_who_joins_with_an_old_roster(patch: pytest.MonkeyPatch) -> None:
    """A copy that an old roster lacks is not awaited any more, though it was asked in."""
    right = Shipping._meet

    def wrong(self: Shipping, roster: Roster) -> list[Any]:
        actions = right(self, roster)
        self.joining = {replica for replica in self.joining if replica in self.followers}
        return actions

    patch.setattr(Shipping, "_meet", wrong)


def grant_a_stale_wish(patch: pytest.MonkeyPatch) -> None:
    """The hub grants a set that was asked for before the last change."""
    right = hub_machine.change_set

    def wrong(state: HubState, child: Child, number: int, wish: SetWanted, now: float) -> None:
        right(state, child, number, replace(wish, version=child.set_version), now)

    patch.setattr(hub_machine, "change_set", wrong)


def promote_whoever_is_ready(patch: pytest.MonkeyPatch) -> None:
    """The hub promotes a copy outside the in-sync set."""

    def wrong(state: HubState, child: Child, now: float) -> list[Any]:
        there = [c for c in state.copies(child, now) if not state.is_silent(c[1], now)]
        return [copy for copy in there if copy[1].is_ready]

    patch.setattr(roles, "may_inherit", wrong)


def compare_numbers_only(patch: pytest.MonkeyPatch) -> None:
    """The active believes in what a passive holds by its number, whatever its epoch."""
    right = Shipping._take_ack

    def wrong(self: Shipping, follower: Follower, tail: Position, now: float) -> list[Any]:
        own = self.holding.log.position_of(tail.seq)
        return right(self, follower, own or tail, now)

    patch.setattr(Shipping, "_take_ack", wrong)
    stream = Shipping._start_stream

    def also_wrong(self: Shipping, follower: Follower, standing: Any, now: float) -> list[Any]:
        own = self.holding.log.position_of(standing.tail.seq)
        return stream(self, follower, replace(standing, tail=own or standing.tail), now)

    patch.setattr(Shipping, "_start_stream", also_wrong)


def keep_foreign_writes(patch: pytest.MonkeyPatch) -> None:
    """A passive keeps writes of an older epoch that the new active does not have."""

    def wrong(self: Following, base: Position) -> list[Any]:
        self.owes.add("standing")
        return self._pay()

    patch.setattr(Following, "_stand", wrong)


def acknowledge_before_the_state_is_there(patch: pytest.MonkeyPatch) -> None:
    """A passive acknowledges a snapshot before its object has taken it in."""
    right = Following._install

    def wrong(self: Following, snapshot: Snapshot) -> list[Any]:
        actions = right(self, snapshot)
        return [*actions, self._to_active(Acked(self.epoch, snapshot.position))]

    patch.setattr(Following, "_install", wrong)


def apply_what_is_not_committed(patch: pytest.MonkeyPatch) -> None:
    """A passive applies writes as they come."""
    right = Following._advance

    def wrong(self: Following) -> list[Any]:
        self.holding.committed = max(self.holding.committed, self.holding.log.tail.seq)
        return right(self)

    patch.setattr(Following, "_advance", wrong)


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
    right = Replication.admit

    def wrong(self: Replication, call: Call) -> tuple[Admission, Kept | None]:
        self.read_runs = call.is_read  # type: ignore[attr-defined]
        return right(self, call)

    patch.setattr(Replication, "admit", wrong)


def forget_who_died_in_a_call(patch: pytest.MonkeyPatch) -> None:
    """A new active does not know in which call the last one died."""
    patch.setattr(Replication, "_suspects", lambda *_: {})


def tell_of_a_call_only_when_it_begins(patch: pytest.MonkeyPatch) -> None:
    """A passive that connects while a call runs is not told of it."""
    right = Shipping.connected

    def wrong(self: Shipping, peer: Any) -> list[Any]:
        return right(self, peer)[:1]

    patch.setattr(Shipping, "connected", wrong)


def keep_a_spoiled_state(patch: pytest.MonkeyPatch) -> None:
    """An object that was changed outside the history counts as one of its copies."""
    patch.setattr(Following, "spoil", lambda *_: [])
    patch.setattr(Following, "stand_anew", lambda *_: [])


def promise_while_a_call_runs(patch: pytest.MonkeyPatch) -> None:
    """A deposed active acknowledges a new one's writes while a call of its own epoch still runs."""
    right = Following._pay

    def wrong(self: Following) -> list[Any]:
        self.entered.clear()
        return right(self)

    patch.setattr(Following, "_pay", wrong)


def serve_before_all_is_applied(patch: pytest.MonkeyPatch) -> None:
    """An heir serves while its object still lacks writes that it holds."""
    patch.setattr(ReplicaMachine, "_is_caught_up", lambda *_: True)


def take_any_snapshot(patch: pytest.MonkeyPatch) -> None:
    """A snapshot that comes late replaces newer state."""
    right = Following._install

    def wrong(self: Following, snapshot: Snapshot) -> list[Any]:
        self.holding.log.floor = replace(self.holding.log.floor)
        tail = self.holding.log.tail
        if tail.epoch == snapshot.epoch and tail.seq >= snapshot.position.seq:
            self.holding.log.reset(Position(0, 0))
        return right(self, snapshot)

    patch.setattr(Following, "_install", wrong)


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


def read_what_a_deposed_active_wrote(patch: pytest.MonkeyPatch) -> None:
    """A passive answers reads from an object that has what is not committed."""

    def wrong(self: Following, now: float, max_lag_writes: int | None) -> bool:
        holding = self.holding
        is_fresh = now - self.heard_at <= holding.bounds.read_staleness_s
        return holding.has_state and is_fresh and self.heard_tail <= holding.applied.seq

    patch.setattr(Following, "may_read", wrong)
    patch.setattr(Following, "cease", lambda self: self.owes.clear())


def open_before_the_active_has_begun(patch: pytest.MonkeyPatch) -> None:
    """A child opens though its active was never told that it is one."""
    from raphub.core import in_sync

    patch.setattr(in_sync, "is_role_taken", lambda *_: True)


MUTANTS: dict[Plant, set[str]] = {
    answer_before_the_others_hold_it: {"8"},
    trust_the_mark_of_a_snapshot: {"8"},
    join_without_awaiting: {"8"},
    drop_before_the_record: {"8", "2"},
    forget_who_joins_with_an_old_roster: {"8"},
    grant_a_stale_wish: {"8"},
    promote_whoever_is_ready: {"2"},
    compare_numbers_only: {"8", "2"},
    keep_foreign_writes: {"8", "2"},
    acknowledge_before_the_state_is_there: {"8"},
    apply_what_is_not_committed: {"3", "reads"},
    lose_the_answers_with_a_snapshot: {"2", "3"},
    run_every_retry: {"3"},
    run_what_is_settled: {"3"},
    admit_writes_in_any_order: {"order"},
    forget_who_died_in_a_call: {"15"},
    tell_of_a_call_only_when_it_begins: {"15"},
    keep_a_spoiled_state: {"2", "3", "8"},
    promise_while_a_call_runs: {"2", "3", "8"},
    serve_before_all_is_applied: {"2"},
    take_any_snapshot: {"8", "2"},
    keep_the_dead_active_in_the_set: {"8", "11"},
    write_with_too_few_in_sync: {"min_in_sync"},
    lag_without_end: {"lag"},
    read_what_a_deposed_active_wrote: {"reads"},
    open_before_the_active_has_begun: {"11"},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_the_planted_bug_is_caught(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hunt(plant, MUTANTS[plant], SEEDS, monkeypatch, capsys)
