"""May a hub go on with the nodes that are left?

Pure functions of a view of the cluster: how many nodes are usable now, how many there once were,
and which losses are recent. A rule compares the nodes that are usable with the size that it goes
by; a hub whose rule says no is *partitioned*. Without a rule a hub always goes on.

- `StaticRule`: the size is a fixed number, and all of it is wanted. Before so many nodes were usable
  at once for the first time, the hub goes on with fewer, unless `startup_confirm` forbids it.
- `DynamicRule`: the size is the most nodes that were usable at one time within the last
  `threshold_time_s`, at least 1, and `percent` of it is wanted. A node that joins makes up for one that was lost.
  A loss is forgotten `threshold_time_s` after it: this rule brakes sudden losses, and lets slow ones
  pass.
- `MajorityRule`: the size is the largest count that is remembered, `initial_cluster_size` if none is,
  and more than half of it is wanted. With `track_max_size` every larger count is remembered;
  otherwise only the one that the user sets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never


@dataclass(frozen=True, slots=True)
class StaticRule:
    """At least `size` nodes."""

    size: int
    startup_confirm: bool = False


@dataclass(frozen=True, slots=True)
class DynamicRule:
    """At least `percent` of the nodes that there were within the last `threshold_time_s`."""

    percent: int
    threshold_time_s: float


@dataclass(frozen=True, slots=True)
class MajorityRule:
    """More than half of the most nodes that there ever were."""

    initial_cluster_size: int
    track_max_size: bool = True


Rule = StaticRule | DynamicRule | MajorityRule


@dataclass(frozen=True, slots=True)
class Loss:
    """At the time `at`, the count of usable nodes fell from `count` to fewer."""

    at: float
    count: int


@dataclass(frozen=True, slots=True)
class View:
    """The cluster as far as a rule looks at it. Times are seconds on the hub's clock.

    `largest` is the count that is remembered for good, 0 if none is. `losses` are the recent ones that
    were not made up for: later ones fell from smaller counts, all of them above `usable`.
    """

    now: float
    usable: int = 0
    largest: int = 0
    losses: tuple[Loss, ...] = ()


def first_view(rule: Rule, largest: int, now: float) -> View:
    """What a hub actor knows when it begins.

    When nodes were lost before, it cannot know: for a `DynamicRule` they were lost just now.
    """
    losses = (Loss(now, largest),) if isinstance(rule, DynamicRule) and largest else ()
    return View(now, 0, largest, losses)


def look(rule: Rule, view: View, usable: int, now: float, doubted: int = 0) -> View:
    """The view after the nodes were counted: so many are usable now.

    `doubted` of them seem lost, which is not believed yet: they count, and make nothing larger.
    """
    losses = view.losses
    if usable < view.usable:
        losses = (*losses, Loss(now, view.usable))
    threshold_s = rule.threshold_time_s if isinstance(rule, DynamicRule) else 0.0
    kept = tuple(loss for loss in losses if loss.count > usable and now - loss.at <= threshold_s)
    seen = replace(view, now=now, usable=usable, losses=kept)
    return replace(seen, largest=_remembered(rule, seen, usable - doubted))


def size(rule: Rule, view: View) -> int:
    """The size of the cluster that the rule goes by."""
    match rule:
        case StaticRule():
            return rule.size
        case DynamicRule():
            return max([1, view.usable, *(loss.count for loss in view.losses)])
        case MajorityRule():
            return view.largest or rule.initial_cluster_size
        case _:
            assert_never(rule)


def may_go_on(rule: Rule, view: View) -> bool:
    """Does the rule let the hub go on?"""
    match rule:
        case StaticRule():
            is_bound = rule.startup_confirm or view.largest >= rule.size
            return view.usable >= rule.size or not is_bound
        case DynamicRule():
            return 100 * view.usable >= rule.percent * size(rule, view)
        case MajorityRule():
            return 2 * view.usable > size(rule, view)
        case _:
            assert_never(rule)


def _remembered(rule: Rule, view: View, sure: int) -> int:
    """What a later hub actor has to know of the size; so many nodes are usable for sure."""
    match rule:
        case StaticRule():
            return max(view.largest, min(sure, rule.size))
        case DynamicRule():
            return size(rule, view)
        case MajorityRule():
            is_grown = rule.track_max_size and sure > size(rule, view)
            return sure if is_grown else view.largest
        case _:
            assert_never(rule)
