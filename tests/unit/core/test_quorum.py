"""May a hub go on? The names draw the cases: how many nodes there were, and what became of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raphub.core import quorum
from raphub.core.quorum import DynamicRule, Loss, MajorityRule, Rule, StaticRule, View

STATIC = StaticRule(3)
CONFIRMED = StaticRule(3, startup_confirm=True)
DYNAMIC = DynamicRule(80, 30.0)
MAJORITY = MajorityRule(1)


def seen(rule: Rule, *counts: int, every_s: float = 1.0, largest: int = 0) -> View:
    """The view after the nodes were counted, again and again."""
    view = quorum.first_view(rule, largest, 0.0)
    for turn, usable in enumerate(counts):
        view = quorum.look(rule, view, usable, turn * every_s)
    return view


def goes_on(rule: Rule, *counts: int, every_s: float = 1.0, largest: int = 0) -> bool:
    return quorum.may_go_on(rule, seen(rule, *counts, every_s=every_s, largest=largest))


def later(rule: Rule, view: View, now: float) -> bool:
    return quorum.may_go_on(rule, quorum.look(rule, view, view.usable, now))


# --- Static -----------------------------------------------------------------------------------


def test_static_3___3_run() -> None:
    assert goes_on(STATIC, 3)


def test_static_3_of_3___2_stop___3_run_again() -> None:
    assert not goes_on(STATIC, 3, 2)
    assert goes_on(STATIC, 3, 2, 3)


def test_static_3_never_reached___1_runs_at_startup() -> None:
    assert goes_on(STATIC, 1)
    assert goes_on(STATIC, 1, 2, 1)


def test_static_3_confirmed_at_startup___2_stop_before_3_were_ever_there() -> None:
    assert not goes_on(CONFIRMED, 2)
    assert goes_on(CONFIRMED, 2, 3)


def test_static_3_reached_in_an_earlier_life___2_stop_at_once() -> None:
    assert not goes_on(STATIC, 2, largest=seen(STATIC, 5, 2).largest)


# --- Dynamic ----------------------------------------------------------------------------------


def test_dynamic_80_percent_of_10___3_lost_inside_the_window_stop() -> None:
    assert not goes_on(DYNAMIC, 10, 7)
    assert not goes_on(DYNAMIC, 10, 9, 8, 7, every_s=10.0)


def test_dynamic_80_percent_of_10___3_lost_over_longer_than_the_window_run() -> None:
    assert goes_on(DYNAMIC, 10, 9, 8, 7, every_s=31.0)


def test_dynamic_80_percent_of_10___3_lost_of_which_2_of_9_inside_the_window_stop() -> None:
    assert not goes_on(DYNAMIC, 10, 9, 8, 7, every_s=20.0)


def test_dynamic_80_percent_of_10___2_lost_leave_80_percent_and_run() -> None:
    assert goes_on(DYNAMIC, 10, 8)


def test_dynamic_80_percent_of_10___3_lost_and_1_joined_run() -> None:
    assert goes_on(DYNAMIC, 10, 7, 8)


def test_dynamic_80_percent_of_10___each_node_replaced_one_after_the_other_runs() -> None:
    assert all(goes_on(DYNAMIC, *[10, 9, 10, 11] * turns, 10) for turns in range(5))


def test_dynamic_80_percent_of_10___3_lost_are_forgotten_when_the_window_is_over() -> None:
    view = seen(DYNAMIC, 10, 7)
    assert not later(DYNAMIC, view, 31.0)
    assert later(DYNAMIC, view, 31.1)


def test_dynamic_80_percent_of_10___3_lost_in_an_earlier_life_stop_for_a_window() -> None:
    view = seen(DYNAMIC, 7, largest=10)
    assert not quorum.may_go_on(DYNAMIC, view)
    assert later(DYNAMIC, view, 30.1)


def test_dynamic_80_percent_of_10___all_lost_never_run_with_none() -> None:
    assert not later(DYNAMIC, seen(DYNAMIC, 10, 0), 1000.0)


def test_dynamic_100_percent_of_10___1_lost_stops() -> None:
    assert not goes_on(DynamicRule(100, 30.0), 10, 9)


# --- Majority ---------------------------------------------------------------------------------


def test_majority_of_5___3_run_2_stop() -> None:
    assert goes_on(MAJORITY, 5, 3)
    assert not goes_on(MAJORITY, 5, 3, 2)


def test_majority_of_4___2_are_no_more_than_half_and_stop() -> None:
    assert not goes_on(MAJORITY, 4, 2)


def test_majority_grown_from_1_to_5_one_by_one___2_stop() -> None:
    assert not goes_on(MAJORITY, 1, 2, 3, 4, 5, 2)


def test_majority_of_5_reset_to_3___2_suffice_1_stops() -> None:
    assert goes_on(MAJORITY, 2, largest=3)
    assert not goes_on(MAJORITY, 1, largest=3)


def test_majority_of_5_in_an_earlier_life___2_stop_at_once() -> None:
    assert not goes_on(MAJORITY, 2, largest=seen(MAJORITY, 5, 4).largest)


def test_majority_of_4_of_which_2_are_doubted_and_2_joined___is_no_cluster_of_6() -> None:
    view = quorum.look(MAJORITY, seen(MAJORITY, 4), 6, 1.0, doubted=2)
    assert view.largest == 4


def test_majority_of_3_said_at_first___1_stops_before_others_join() -> None:
    assert not goes_on(MajorityRule(3), 1)
    assert goes_on(MajorityRule(3), 1, 2)


def test_majority_of_3_that_tracks_nothing___5_seen_2_run() -> None:
    assert goes_on(MajorityRule(3, track_max_size=False), 5, 2)
    assert seen(MajorityRule(3, track_max_size=False), 5).largest == 0


# --- All --------------------------------------------------------------------------------------

RULES = st.one_of(
    st.builds(StaticRule, st.integers(1, 6), st.booleans()),
    st.builds(DynamicRule, st.integers(1, 100), st.floats(3.0, 60.0)),
    st.builds(MajorityRule, st.integers(1, 6), st.booleans()),
)
COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=12)


@given(RULES, COUNTS)
def test_more_nodes_never_stop_a_hub_that_went_on(rule: Rule, counts: list[int]) -> None:
    if isinstance(rule, StaticRule) and not rule.startup_confirm:
        counts = [rule.size, *counts]
    if not goes_on(rule, *counts, counts[-1] + 1):
        assert not goes_on(rule, *counts, counts[-1])


@given(RULES, COUNTS)
def test_a_hub_goes_on_with_all_the_nodes_that_there_ever_were(
    rule: Rule, counts: list[int]
) -> None:
    whole = max(*counts, 6)
    assert goes_on(rule, *counts, whole)


@given(RULES, COUNTS)
def test_whoever_begins_anew_is_no_bolder_than_whoever_went_on(
    rule: Rule, counts: list[int]
) -> None:
    view = seen(rule, *counts)
    anew = quorum.first_view(rule, view.largest, view.now)
    if quorum.may_go_on(rule, quorum.look(rule, anew, view.usable, view.now)):
        assert quorum.may_go_on(rule, view)


@given(COUNTS)
def test_losses_are_kept_only_while_they_count(counts: list[int]) -> None:
    losses = seen(DYNAMIC, *counts, every_s=7.0).losses
    assert [loss.count for loss in losses] == sorted({loss.count for loss in losses}, reverse=True)
    assert all(loss.count > counts[-1] for loss in losses)


@pytest.mark.parametrize("rule", [STATIC, DYNAMIC, MAJORITY], ids=lambda rule: type(rule).__name__)
def test_the_rule_is_no_more_than_its_view(rule: Rule) -> None:
    view = View(now=5.0, usable=2, largest=5, losses=(Loss(4.0, 5),))
    assert not quorum.may_go_on(rule, view)
