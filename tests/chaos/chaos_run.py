"""What came of one run under strikes, and was everything that clients saw right?"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import raphub
from raphub import ChildSpec, HubConfig
from raphub.handle import ChildHandle
from raphub.testing import History, LocalCluster, OperationKind, Violation, check
from raphub.testing.history import dump
from tests.chaos.striker import Strike, StrikeKind, Striker
from tests.chaos.workload import Book, Clients, acknowledged

NODES = 4
CPUS_PER_NODE = 2
START_LIMIT_S = 60.0
FOLLOWS_WITHIN_S = 10.0
SHOWN_MAX = 10

State = Literal["none", "snapshot", "log"]


@dataclass(frozen=True)
class Plan:
    """One run. `seed` throws the dice; what they hit is up to the machine, so it replays nothing."""

    state: State
    factor: int
    seconds: float
    clients: int = 4
    seed: int = 0
    cls: type[Book] = Book
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """One run that is over. `folder` has its history and its story."""

    plan: Plan
    history: History
    items: list[str] | None
    """The list at the end; None if it could not be had, and then nothing is judged."""
    strikes: list[Strike]
    violations: list[Violation]
    troubles: list[str]
    """What stood still, diverged or failed in a way that nobody had foreseen."""
    errors: Counter[str]
    folder: Path

    @property
    def writes(self) -> int:
        """How many appends were answered."""
        return len(acknowledged(self.history))

    @property
    def kills(self) -> int:
        """How many strikes killed something."""
        return sum(strike.kind is not StrikeKind.HANG for strike in self.strikes)

    @property
    def kills_of_active(self) -> int:
        """How many strikes killed the active while writes were running."""
        return sum(
            strike.hit_active and strike.in_mid_write and strike.kind is not StrikeKind.HANG
            for strike in self.strikes
        )

    @property
    def is_good(self) -> bool:
        """Is everything right?"""
        return not self.violations and not self.troubles

    def gaps_s(self) -> dict[StrikeKind, float]:
        """The longest time between two answered appends after each kind of strike, in seconds.

        A gap belongs to the first strike inside it, or else to the last one before it.
        """
        longest: dict[StrikeKind, float] = {}
        answered = acknowledged(self.history)
        coming, before = list(reversed(self.strikes)), None
        for begin, end in itertools.pairwise(answered):
            inside: list[Strike] = []
            while coming and coming[-1].at <= end:
                inside.append(coming.pop())
            cause = inside[0] if inside else before
            before = inside[-1] if inside else before
            if cause is not None:
                longest[cause.kind] = max(longest.get(cause.kind, 0.0), end - begin)
        return longest

    def lines(self) -> Iterator[str]:
        """The figures, then what is wrong, if anything is."""
        plan, counts = self.plan, Counter(strike.kind for strike in self.strikes)
        reads = sum(one.kind is OperationKind.READ for one in self.history)
        gaps = self.gaps_s()
        yield f"state {plan.state}, factor {plan.factor}, {plan.seconds:g} s, seed {plan.seed}"
        left = "not to be had" if self.items is None else f"{len(self.items)}"
        yield f"  writes answered: {self.writes}, reads: {reads}, items at the end: {left}"
        for kind in StrikeKind:
            gap = (
                f", longest gap between answered writes {gaps[kind]:.3f} s" if kind in gaps else ""
            )
            yield f"  {kind}: {counts[kind]}{gap}"
        yield f"  kills of the active in mid-write: {self.kills_of_active}"
        if self.errors:
            listed = ", ".join(f"{count} {name}" for name, count in sorted(self.errors.items()))
            yield f"  errors that clients met: {listed}"
        by_kind = Counter(violation.kind for violation in self.violations)
        listed = ", ".join(f"{count} {kind}" for kind, count in by_kind.most_common())
        yield f"  violations: {len(self.violations)}{f' ({listed})' if listed else ''}"
        for told in [*self.violations[:SHOWN_MAX], *self.troubles[:SHOWN_MAX]]:
            yield f"  ! {told}"
        yield f"  history and story: {self.folder}"

    def __str__(self) -> str:
        """All lines."""
        return "\n".join(self.lines())


def run(cluster: LocalCluster, plan: Plan, folder: Path) -> Report:
    """Start a child, use it and strike it for so long, let it heal, and judge what was seen.

    The history and the story of the run are left in the folder.
    """
    config = HubConfig(
        hub_id=f"chaos-{plan.state}-{plan.factor}",
        # What is killed all the time must not be given up, nor be waited for.
        crash_limit=100_000,
        crash_backoff_s=0.05,
        crash_backoff_max_s=0.2,
    )
    with raphub.Hub.start(config) as hub:
        spec = ChildSpec(
            child_id="book", cls=plan.cls, args=plan.args, state=plan.state, factor=plan.factor
        )
        assert hub.start_child(spec).result(START_LIMIT_S).ok
        book: ChildHandle[Book] = hub.get("book")
        book.wait_ready(START_LIMIT_S)
        return _use_and_strike(cluster, hub, book, plan, folder)


def _use_and_strike(
    cluster: LocalCluster, hub: raphub.Hub, book: ChildHandle[Book], plan: Plan, folder: Path
) -> Report:
    history = History()
    clients = Clients(book, history, count=plan.clients, seed=plan.seed)
    striker = Striker(hub, cluster, book.child_id, clients, random.Random(plan.seed))
    clients.start()
    striker.start()
    try:
        striker.wait(plan.seconds)
    finally:
        striker.stop()
        clients.stop()
    troubles = [*striker.troubles, *clients.impatient]
    troubles += [name for name in clients.errors if name.startswith("unexpected")]
    items: list[str] | None = None
    try:
        items = book.whole.remote().result(START_LIMIT_S)
        if plan.state != "none":
            troubles += _diverged(book, items)
    except raphub.RaphubError as error:
        troubles.append(f"the list could not be read at the end: {error}")
    violations = [] if items is None else check(history, items)
    report = Report(
        plan, history, items, striker.strikes, violations, troubles, clients.errors, folder
    )
    _leave_traces(hub, report)
    return report


def _diverged(book: ChildHandle[Book], items: list[str]) -> Iterator[str]:
    """Whoever is in sync and nobody writes any more, and still has something else.

    A passive takes in the last write once it hears that all others hold it.
    """
    ends_at = time.monotonic() + FOLLOWS_WITHIN_S
    others: dict[str, list[str]] = {"": []}
    while others and time.monotonic() < ends_at:
        asked = book.all.whole.remote()
        answers = {replica_id: call.result(START_LIMIT_S) for replica_id, call in asked.items()}
        others = {replica_id: own for replica_id, own in answers.items() if own != items}
    for replica_id, own in others.items():
        yield f"{replica_id} has {len(own)} items, and the active has {len(items)} others"


def _leave_traces(hub: raphub.Hub, report: Report) -> None:
    """Write down what a failed run is understood by: what clients saw, and what happened."""
    dump(report.history, report.folder / "history.jsonl", report.items)
    ahead_s = time.time() - time.monotonic()
    story = [(event.time_s - ahead_s, event.line()) for event in hub.events()]
    story += [(strike.at, f"STRIKE {strike}") for strike in report.strikes]
    lines = [f"{at:.6f} {told}\n" for at, told in sorted(story)]
    (report.folder / "story.txt").write_text("".join(lines), encoding="utf-8")
