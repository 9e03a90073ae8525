"""How does the demo go, from nothing to the figures?

It starts a cluster of its own, replicates the search index, puts the same class beside it as a
plain Ray actor, and takes both away together, as often as asked, while callers write to both. At
the end it compares the state of both with what was acknowledged. Everything ends with it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import FrameType

import raphub
from raphub.demo.baseline import PlainIndex
from raphub.demo.figures import KillFigures, checked_writes
from raphub.demo.kills import Kill
from raphub.demo.rounds import Round, is_whole
from raphub.demo.show import NodeRow, Show, cluster_title
from raphub.demo.stream import Await, Stream, Tally
from raphub.demo.workload import WORDS, Answer, SearchIndex
from raphub.errors import RaphubError
from raphub.handle import ChildHandle
from raphub.snapshot import counted, short_id
from raphub.status import ReplicaStatus
from raphub.testing import LocalCluster

HUB_ID, CHILD_ID = "demo", "search"
COPIES = 2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
READY_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 60.0
SETTLE_EVERY_S = 0.05
WARM_UP_S = 1.5
"""How long both callers ask before anything is taken away."""


def run(nodes: int, kills: Sequence[Kill], show: Show) -> list[KillFigures]:
    """Run the whole demo and return what was measured, in the order of the kills.

    Call it from the main thread: an interrupt ends it, and its cluster, at any moment. Raises
    `RaphubError` if this machine cannot run it, and whatever raphub raises.
    """
    if sys.platform != "linux":
        raise RaphubError(
            "the demo starts and kills Ray nodes, which it can do on Linux only.",
            hint="Run it on a Linux machine or in a container.",
        )
    cluster = LocalCluster(nodes=nodes, cpus_per_node=1)
    with _one_interrupt() as listen:
        show.step(f"Starting a Ray cluster on this machine: {counted(nodes, 'node')} and a head.")
        try:
            _start(cluster)
            # Ray has put a handler of its own in the place of ours.
            listen()
            return Demo(cluster, show).go(kills)
        finally:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            show.scene.title = ""
            show.step("Ending the cluster.")
            cluster.stop()


class Demo:
    """The demo on a running cluster."""

    def __init__(self, cluster: LocalCluster, show: Show) -> None:
        """Nothing is started in the cluster yet."""
        self._cluster = cluster
        self._show = show
        self._all_nodes = cluster.node_ids
        self._plain_node = ""
        self._numbers = itertools.count()
        # Ray would tell of each death on the terminal, and the demo tells of them itself.
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        self._hub = raphub.Hub.start(raphub.HubConfig(hub_id=HUB_ID))

    def go(self, kills: Sequence[Kill]) -> list[KillFigures]:
        """Start the child, then take it away in each of the ways."""
        scene = self._show.scene
        scene.rows = self._rows
        scene.title = cluster_title(len(self._all_nodes))
        child = self._start_child()
        figures: list[KillFigures] = []
        tallies: list[Tally] = []
        for number, kill in enumerate(kills, 1):
            active = self._settled_active(child)
            with self._callers(child, active) as (ours, theirs, plain):
                told = f"Kill {number} of {len(kills)}, {kill.value}: {kill.deed}."
                one = Round(self._hub, self._cluster, self._show, (ours, theirs), plain)
                played = one.play(kill, active, told, at_plain_node=self._note_plain)
                ours.tell_to_stop()
                theirs.stop()
                ours.stop()
                # An actor that hangs cannot be asked, and its successor knows nothing.
                times = plain.times() if played.plain_ray.new_pid is not None else None
                checked = replace(played.plain_ray, writes=checked_writes(theirs.tally, times))
                figures.append(replace(played, plain_ray=checked))
                tallies.append(ours.tally)
        self._show.step("Comparing the state with the acknowledged writes, those of all kills.")
        times = self._times(child)
        return [
            replace(one, raphub=replace(one.raphub, writes=checked_writes(tally, times)))
            for one, tally in zip(figures, tallies, strict=True)
        ]

    def _times(self, child: ChildHandle[SearchIndex]) -> bytes | None:
        """What the child's state says was answered; None if it does not say so in time."""
        try:
            return child.call(SearchIndex.times).result(CALL_TIMEOUT_S)
        except RaphubError as error:
            self._show.step(f"raphub's state could not be read: {error.message}")
            return None

    def _note_plain(self, node_id: str) -> None:
        self._plain_node = node_id

    def _start_child(self) -> ChildHandle[SearchIndex]:
        self._show.step(f"Starting {COPIES} copies of a search index over Python's own library.")
        spec = raphub.ChildSpec(child_id=CHILD_ID, cls=SearchIndex, factor=COPIES, state="snapshot")
        result = self._hub.start_child(spec).result(READY_TIMEOUT_S)
        if not result.ok:
            raise RaphubError(f"the search index did not start: {result.errors[0].reason}")
        child: ChildHandle[SearchIndex] = self._hub.get(CHILD_ID)
        status = child.wait_ready(READY_TIMEOUT_S)
        answers = {
            r: call.result(CALL_TIMEOUT_S) for r, call in child.all.search.remote("queue").items()
        }
        for copy in status.replicas:
            answer: Answer = answers[copy.replica_id]
            self._show.step(
                f"{copy.replica_id} is {copy.role} on node {short_id(copy.node_id)}; it built its "
                f"index in {answer.built_at_s - answer.began_at_s:.1f} s."
            )
        hit = child.search.remote(WORDS[0]).result(CALL_TIMEOUT_S).hits[0]
        self._show.step(f'Asked for "{WORDS[0]}": {hit.module}, line {hit.line_number}.')
        return child

    def _settled_active(self, child: ChildHandle[SearchIndex]) -> ReplicaStatus:
        """The active, once every copy holds what was written: a kill takes one of them."""
        gives_up_at_s = time.monotonic() + READY_TIMEOUT_S
        while not is_whole(status := child.wait_ready(READY_TIMEOUT_S)):
            if time.monotonic() > gives_up_at_s:
                raise RaphubError("the copies did not come to hold the same state in time.")
            time.sleep(SETTLE_EVERY_S)
        assert status.active is not None, "a child that is ready has an active"
        return status.active

    @contextlib.contextmanager
    def _callers(
        self, child: ChildHandle[SearchIndex], active: ReplicaStatus
    ) -> Iterator[tuple[Stream, Stream, PlainIndex]]:
        """Both callers at work, the plain actor on the active's node, so that both take the kill."""

        def ask(number: int, word: str) -> Await:
            return child.call(SearchIndex.answer, number, word).result

        self._show.step("Starting the same class as a plain Ray actor beside the active.")
        plain = PlainIndex(active.node_id)
        ours = Stream("raphub", ask, self._numbers)
        theirs = Stream("plain Ray", plain.ask, self._numbers)
        try:
            theirs.start()
            if not theirs.wait_for(lambda tally: tally.answered > 0, READY_TIMEOUT_S):
                raise RaphubError("the plain Ray actor did not start, so there is no comparison.")
            self._plain_node = plain.node()
            if self._plain_node != active.node_id:
                raise RaphubError(
                    "Ray placed the plain actor on another node, so there is no comparison.",
                    hint="Run the demo again; this should not happen on a cluster of its own.",
                )
            ours.start()
            self._show.scene.tallies = {one.name: one.tally for one in (ours, theirs)}
            self._show.step("Two callers, one of each side, ask on and on; each question writes.")
            time.sleep(WARM_UP_S)
            yield ours, theirs, plain
        finally:
            ours.tell_to_stop()
            theirs.stop()
            ours.stop()
            plain.end()
            self._plain_node = ""
            self._show.scene.tallies = {}

    def _rows(self) -> list[NodeRow]:
        """For the panel, from this process's own copy of the registry: it never waits."""
        status = self._hub.lookup(CHILD_ID)
        replicas = [] if status is None else status.replicas
        alive = self._cluster.node_ids
        return [
            NodeRow(
                node_id,
                tuple((r.replica_id, _shown_role(r)) for r in replicas if r.node_id == node_id),
                has_plain=node_id == self._plain_node,
                is_dead=node_id not in alive,
            )
            for node_id in self._all_nodes
        ]


def _shown_role(replica: ReplicaStatus) -> str:
    return replica.role.value if replica.phase == "ready" else replica.phase.value


def _start(cluster: LocalCluster) -> None:
    try:
        cluster.start()
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RaphubError(
            f"the cluster did not start: {' ... '.join(dict.fromkeys((lines[0], lines[-1])))}",
            hint="It needs about 2 GB of memory and a writable folder for temporary files.",
        ) from error


@contextlib.contextmanager
def _one_interrupt() -> Iterator[Callable[[], None]]:
    """The first interrupt ends the demo; a second one on its heels is not heard.

    What is given to the block listens for it again, where somebody else began to.
    """
    is_ending = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_ending
        del number, frame
        if not is_ending:
            is_ending = True
            raise KeyboardInterrupt

    def listen() -> None:
        for number in SIGNALS:
            signal.signal(number, interrupt)

    before = [(number, signal.getsignal(number)) for number in SIGNALS]
    listen()
    try:
        yield listen
    finally:
        for number, handler in before:
            signal.signal(number, handler)
