"""What happens in one kill, and what was it for each side?"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import raphub
from raphub.demo.baseline import PlainIndex
from raphub.demo.figures import KillFigures, SideFigures, duration
from raphub.demo.kills import Kill
from raphub.demo.show import Show
from raphub.demo.stream import Stream, Tally
from raphub.snapshot import counted, short_id
from raphub.status import ChildStatus, Event, Health, ReplicaStatus
from raphub.testing import LocalCluster

PATIENCE_S = {Kill.WORKER: 40.0, Kill.NODE: 40.0, Kill.HANG: 20.0}
"""How long an answer is awaited after each kill. Ray never sees that a process hangs."""

LOOK_EVERY_S = 0.1
AFTERWARDS_S = 0.5
STRAY_ANSWER_S = 1.0
"""An answer that was under way at the kill is read at most so long after it."""

_TOLD_OTHERWISE = frozenset({"replica_retired"})

News = tuple[float, str, str, str]
"""When (monotonic), to whom, what, and in which style."""


class Round:
    """One kill of both sides at once, watched until both answer again and raphub is whole."""

    def __init__(
        self,
        hub: raphub.Hub,
        cluster: LocalCluster,
        show: Show,
        streams: tuple[Stream, Stream],
        plain: PlainIndex,
    ) -> None:
        """`streams` ask already: raphub's child and the plain actor, in this order."""
        self._hub = hub
        self._cluster = cluster
        self._show = show
        self._ours, self._theirs = streams
        self._plain = plain
        # The hub tells Unix times, and gaps are measured on a clock that nobody sets.
        self._unix_ahead_s = time.time() - time.monotonic()
        self._event_index = max((event.index for event in hub.events()), default=0)
        self._told: set[str] = set()
        self._plain_node = ""

    def play(
        self, kill: Kill, active: ReplicaStatus, told: str, *, at_plain_node: Callable[[str], None]
    ) -> KillFigures:
        """Kill, watch, and return what was measured.

        `told` announces it; `at_plain_node` is called with the actor's node when that changes.
        """
        old_plain_pid = self._theirs.tally.first_pid
        assert active.pid == self._ours.tally.first_pid, "nothing was killed yet, and it changed"
        self._plain_node = active.node_id
        killed_at_s = self._strike(kill, active, old_plain_pid, told)
        at_plain_node("")
        self._watch(kill, active, killed_at_s, at_plain_node)
        self._show.scene.waiting_for = ""
        time.sleep(AFTERWARDS_S)
        if kill is Kill.HANG:
            os.kill(old_plain_pid, signal.SIGKILL)
        return KillFigures(
            kill,
            self._figures(self._ours.tally, kill, killed_at_s, active.node_id, self._new_node()),
            self._figures(
                self._theirs.tally, kill, killed_at_s, active.node_id, self._plain_node or None
            ),
        )

    # --- the deed -----------------------------------------------------------------------------

    def _strike(self, kill: Kill, active: ReplicaStatus, plain_pid: int, told: str) -> float:
        """Take both away at once; returns when that was, as a monotonic time."""
        assert active.pid is not None, "a copy that serves has told its process"
        at_s = time.monotonic()
        if kill is Kill.NODE:
            self._cluster.kill_node(active.node_id)
        else:
            number = signal.SIGKILL if kill is Kill.WORKER else signal.SIGSTOP
            for pid in (active.pid, plain_pid):
                os.kill(pid, number)
        self._show.kill(told, at_s)
        return at_s

    # --- the watch ----------------------------------------------------------------------------

    def _watch(
        self,
        kill: Kill,
        active: ReplicaStatus,
        killed_at_s: float,
        at_plain_node: Callable[[str], None],
    ) -> None:
        gives_up_at_s = killed_at_s + PATIENCE_S[kill]
        while time.monotonic() < gives_up_at_s:
            news = [*self._hub_news(), *self._healed_news(active)]
            news += self._takeover_news(self._ours.tally, "raphub", killed_at_s)
            theirs = self._takeover_news(self._theirs.tally, "plain Ray", killed_at_s)
            if theirs:
                self._plain_node = self._plain.node()
                at_plain_node(self._plain_node)
            for at_s, who, text, style in sorted([*news, *theirs]):
                self._show.after(who, text, at_s, style=style)
            missing = [one for one in ("raphub", "plain Ray", "healed") if one not in self._told]
            if not missing:
                return
            self._show.scene.waiting_for = _waiting_for(missing, gives_up_at_s - time.monotonic())
            time.sleep(LOOK_EVERY_S)
        for name in ("raphub", "plain Ray"):
            if name not in self._told:
                text = f"still no answer after {PATIENCE_S[kill]:.0f} s; the demo goes on"
                self._show.after(name, text, time.monotonic(), style="bold red")

    def _hub_news(self) -> list[News]:
        try:
            events = self._hub.events(since=self._event_index)
        except raphub.HubUnreachable:
            return []
        self._event_index = max([self._event_index, *(event.index for event in events)])
        return [
            (event.time_s - self._unix_ahead_s, "hub", _short(event), "dim")
            for event in events
            if event.kind not in _TOLD_OTHERWISE
        ]

    def _healed_news(self, old: ReplicaStatus) -> list[News]:
        """The child is whole again once the lost copy is out and another holds the state."""
        status = next(iter(self._hub.children()), None)
        if "healed" in self._told or status is None or not is_whole(status):
            return []
        if old.replica_id in {replica.replica_id for replica in status.replicas}:
            return []
        self._told.add("healed")
        copies = " and ".join(f"{r.replica_id} {r.role}" for r in status.ready)
        text = f"whole again: {copies}"
        return [(time.monotonic(), "raphub", text, "cyan")]

    def _takeover_news(self, tally: Tally, name: str, killed_at_s: float) -> list[News]:
        if name in self._told or not tally.takeovers:
            return []
        self._told.add(name)
        first = tally.takeovers[0]
        killed_at_unix_s = killed_at_s + self._unix_ahead_s
        answer = first.answer
        if answer.built_at_s < killed_at_unix_s:
            index = f"index warm ({duration(killed_at_unix_s - answer.built_at_s)} old)"
        else:
            index = f"index built anew in {duration(answer.built_at_s - answer.began_at_s)}"
        text = f"answers, from process {answer.pid}; {index}"
        return [(first.at_s, name, text, "bold green" if name == "raphub" else "bold yellow")]

    # --- the figures --------------------------------------------------------------------------

    def _new_node(self) -> str | None:
        tally = self._ours.tally
        status = next(iter(self._hub.children()), None)
        if status is None or not tally.takeovers:
            return None
        pid = tally.takeovers[0].answer.pid
        return next((r.node_id for r in status.replicas if r.pid == pid), None)

    def _figures(
        self, tally: Tally, kill: Kill, killed_at_s: float, old_node: str, new_node: str | None
    ) -> SideFigures:
        first = tally.takeovers[0] if tally.takeovers else None
        if first is None:
            assert tally.answered_at_s < killed_at_s + STRAY_ANSWER_S, (
                f"process {tally.first_pid} was taken away and went on answering"
            )
            # The questions that are still open will not be answered by this process.
            return SideFigures(
                tally.first_pid, None, old_node, None, len(tally.sent) - tally.answered, None,
                PATIENCE_S[kill], "none", None, None,
            )  # fmt: skip
        killed_at_unix_s = killed_at_s + self._unix_ahead_s
        answer = first.answer
        return SideFigures(
            old_pid=tally.first_pid,
            new_pid=answer.pid,
            old_node=old_node,
            new_node=new_node,
            failed=tally.failed,
            gap_s=round(first.at_s - killed_at_s, 4),
            awaited_s=PATIENCE_S[kill],
            index="warm" if answer.built_at_s < killed_at_unix_s else "rebuilt",
            index_age_s=round(killed_at_unix_s - answer.built_at_s, 3),
            build_s=round(answer.built_at_s - answer.began_at_s, 3),
        )


def is_whole(status: ChildStatus) -> bool:
    """All copies are there, and each holds every acknowledged write."""
    return status.health is Health.OK and len(status.in_sync) == status.factor


def _waiting_for(missing: list[str], left_s: float) -> str:
    words = {
        "raphub": "raphub's next answer",
        "plain Ray": "plain Ray's next answer",
        "healed": "raphub's new copy",
    }
    waits = " and ".join(words[one] for one in missing)
    return f"Waiting for {waits}, at most {counted(max(0, round(left_s)), 'second')} more."


def _short(event: Event) -> str:
    text = event.text
    if event.replica_id and event.replica_id not in text:
        text = f"{event.replica_id} {text}"
    return text.replace(event.node_id, short_id(event.node_id)) if event.node_id else text
