"""The same for replicated state: mistakes of the data plane, each caught by the law it breaks.

Only odd seeds have children whose state is replicated.
"""

from __future__ import annotations

from typing import Any

import pytest

from raphub.core import roles
from raphub.core.dedup import AnswerTable, Kept, TableKept, Verdict
from raphub.core.following import Following
from raphub.core.hub_state import HubState
from raphub.core.messages import Roster
from raphub.core.records import Child
from raphub.core.replication import Replication
from raphub.core.shipments import Acked, Snapshot
from raphub.core.shipping import Shipping
from tests.simulation.planted import Plant, hunt

SEEDS = range(1, 81, 2)


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

    def wrong(state: HubState, child: Child, now: float) -> list[Any]:
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
    right = Replication.may_release

    def wrong(self: Replication, seq: int, *, is_read: bool) -> bool:
        return right(self, 0 if is_read else seq, is_read=is_read)

    patch.setattr(Replication, "may_release", wrong)


MUTANTS: dict[Plant, set[str]] = {
    answer_before_the_others_hold_it: {"8"},
    take_the_tail_for_committed: {"8"},
    join_without_awaiting: {"8"},
    drop_before_the_record: {"8", "2", "min_in_sync"},
    promote_whoever_is_ready: {"2", "11"},
    acknowledge_before_the_state_is_there: {"8"},
    apply_what_is_not_committed: {"3", "8", "reads"},
    lose_the_answers_with_a_snapshot: {"2", "3"},
    run_every_retry: {"3"},
    run_what_is_settled: {"3"},
    admit_writes_in_any_order: {"order"},
    release_reads_at_once: {"8"},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_the_planted_bug_is_caught(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hunt(plant, MUTANTS[plant], SEEDS, monkeypatch, capsys)
