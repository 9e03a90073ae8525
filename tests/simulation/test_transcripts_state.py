"""Stories of replicated state, told like those in `test_transcripts.py`.

A position is written epoch:seq. What is shipped is shown by its positions; pulses and beats, which
come every half a second, and repeated rosters are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from raphub.core.log import Position
from raphub.core.messages import FromHub, Roster, SetWanted, TakeRole
from raphub.core.model import ChildId, ChildPlan, State
from raphub.core.records import (
    ChildOpened,
    InSyncChanged,
    ReplicaPlaced,
    ReplicaPromoted,
    ReplicaRetired,
)
from raphub.core.shipments import Acked, Follow, Ship, Snapshot, Standing
from tests.simulation.cluster import Process
from tests.simulation.copy_data import Arrival, CopyData, Link
from tests.simulation.hub_life import HubLife
from tests.simulation.scenario import PLAIN
from tests.simulation.simulation import Simulation
from tests.simulation.test_transcripts import HERE

FACTS = (ReplicaPlaced, ReplicaPromoted, ReplicaRetired, InSyncChanged, ChildOpened)


def at(position: Position) -> str:
    """For example `2:7`."""
    return f"{position.epoch}:{position.seq}"


def said(message: object) -> str:
    """What one copy says to another, in short; nothing for what is not shown."""
    match message:
        case Follow(epoch, base, suspects):
            died_in = "".join(f", {deaths} died in {c} {n}" for c, n, deaths in suspects)
            return f"I am the active of epoch {epoch}, which began at {at(base)}{died_in}"
        case Standing(_, tail, _, has_state):
            return f"I hold {at(tail)}" if has_state else "I hold nothing that counts"
        case Snapshot(_, position):
            return f"the whole state at {at(position)}"
        case Ship(_, previous, entries, committed):
            shipped = " ".join(at(entry.position) for entry in entries) or "nothing"
            return f"after {at(previous)}: {shipped}; committed up to {committed}"
        case Acked(_, tail):
            return f"I hold everything up to {at(tail)}"
    return ""


class StateStory:
    """A calm world with one child, a client, and everything that counts written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, factor: int) -> None:
        plan = ChildPlan(ChildId("a"), factor=factor, state=State.SNAPSHOT, start_grace_s=3.0)
        self.simulation = Simulation(seed=7, circumstances=replace(PLAIN, plans=(plan,)))
        self.world = self.simulation.world
        self.world.calm = True
        self.lines: list[str] = []
        self.on_ack: list[Callable[[], None]] = []
        self.told_version = 0
        self._write_down(monkeypatch)
        for _ in range(4):
            self.simulation.cluster.add_node()
        self.simulation.begin_life()
        self.simulation.requester.start(plan)
        self.world.run_until(4.0)

    @property
    def active(self) -> Process:
        """The copy that serves."""
        [serving] = [p for p in self.simulation.cluster.of("a") if p.may_serve()]
        return serving

    def write(self) -> None:
        """The client appends an item."""
        self.simulation.writers[0].open(is_read=False)

    def wait(self, for_s: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now + for_s)

    def say(self, text: str) -> None:
        """What the author of the story does."""
        self.lines.append(f"{self.world.now:7.3f}  == {text}")

    def _line(self, who: str, what: str) -> None:
        self.lines.append(f"{self.world.now:7.3f}  {who:<14} {what}")

    def _write_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.simulation.store.watchers.append(lambda _, entry: self._at_rest(entry.facts))
        send, receive, arrive, end = Link.send, HubLife.receive, CopyData.arrive, CopyData._end
        hear = Process.receive

        def peer(link: Link, sender: CopyData, message: object) -> None:
            receiver = link.acceptor if sender is link.opener else link.opener
            if text := said(message):
                self._line(f"{sender.process.replica} -> {receiver.process.replica}", text)
            if isinstance(message, Acked) and self.on_ack:
                self.on_ack.pop()()
            send(link, sender, message)

        def wish(life: HubLife, process: Process, message: object) -> None:
            if isinstance(message, SetWanted):
                members = " ".join(message.members)
                self._line(f"{process.replica} -> hub", f"wants in sync: {members}")
            receive(life, process, message)  # type: ignore[arg-type]

        def heard(process: Process, life: HubLife, frame: FromHub) -> None:
            told = frame.message.roster if isinstance(frame.message, TakeRole) else frame.message
            if isinstance(frame.message, TakeRole):
                text = f"be {frame.message.role} in epoch {frame.message.epoch}"
                self._line(f"hub -> {process.replica}", text)
            if isinstance(told, Roster) and told.version > self.told_version:
                self.told_version = told.version
                self._line(f"hub -> {process.replica}", f"in sync: {' '.join(told.members)}")
            hear(process, life, frame)

        def call(data: CopyData, arrival: Arrival) -> None:
            if not data.process.is_alive:
                arrive(data, arrival)
                return
            again = " again" if arrival.call.is_retry else ""
            what = f"append, call {arrival.call.number}{again}"
            self._line(f"client -> {data.process.replica}", what)
            arrive(data, arrival)

        def answer(data: CopyData, arrival: Arrival, outcome: str, told: object) -> None:
            self._line(f"{data.process.replica} -> client", f"{outcome}: {told}")
            end(data, arrival, outcome, told)

        monkeypatch.setattr(Link, "send", peer)
        monkeypatch.setattr(HubLife, "receive", wish)
        monkeypatch.setattr(Process, "receive", heard)
        monkeypatch.setattr(CopyData, "arrive", call)
        monkeypatch.setattr(CopyData, "_end", answer)

    def _at_rest(self, facts: tuple[object, ...]) -> None:
        for fact in facts:
            match fact:
                case ReplicaPlaced(_, number, node_id):
                    self._line("journal", f"a#{number} is placed on {node_id}")
                case ReplicaRetired(_, number):
                    self._line("journal", f"a#{number} is out")
                case ReplicaPromoted(_, number, epoch, in_sync):
                    members = " ".join(f"a#{n}" for n in in_sync)
                    text = f"a#{number} is the active of epoch {epoch}; in sync: {members}"
                    self._line("journal", text)
                case InSyncChanged(_, in_sync):
                    self._line("journal", "in sync: " + " ".join(f"a#{n}" for n in in_sync))
                case ChildOpened():
                    self._line("journal", "writes may be answered")


def state(story: StateStory) -> None:
    """The active dies after it has shipped a write, and before it has answered it."""
    story.say("three copies are up; the client writes")
    story.write()
    story.wait(0.5)
    dying = story.active
    cut_off = next(p for p in story.simulation.cluster.of("a") if p.replica == "a#3")
    story.say(f"nothing comes from {dying.replica} to {cut_off.replica} any more")
    story.world.cut(dying.node.name, cut_off.node.name)
    story.say(f"the client writes, and {dying.replica} dies when the first copy acknowledges")
    story.on_ack.append(dying.die)
    story.write()
    story.wait(3.0)
    story.say("the client writes")
    story.write()
    story.wait(0.5)


def silent_passive(story: StateStory) -> None:
    """A passive falls silent, is asked out of the set, and comes back."""
    [silent] = [p for p in story.simulation.cluster.of("a") if p is not story.active]
    story.say(f"stop {silent.replica} (SIGSTOP), and the client writes")
    silent.is_paused = True
    story.write()
    story.wait(1.0)
    story.say("the client writes")
    story.write()
    story.wait(0.5)
    story.say(f"wake {silent.replica}")
    silent.is_paused = False
    story.wait(2.0)
    story.say("the client writes")
    story.write()
    story.wait(0.5)


@pytest.mark.parametrize(
    ("tell", "factor"), [(state, 3), (silent_passive, 2)], ids=lambda value: str(value)[:14]
)
def test_the_story_is_told_as_before(
    tell: Callable[[StateStory], None],
    factor: int,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = StateStory(monkeypatch, factor)
    tell(story)
    text = f"{tell.__doc__}\n\n" + "\n".join(story.lines) + "\n"
    path = HERE / f"{tell.__name__}.txt"
    if request.config.getoption("--rewrite"):
        path.write_text(text)
    assert path.read_text() == text


def test_the_architecture_tells_these_stories() -> None:
    architecture = (HERE.parents[2] / "ARCHITECTURE.md").read_text()
    for path in sorted(HERE.glob("*.txt")):
        _, _, story = path.read_text().partition("\n\n")
        assert story in architecture, f"{path.name} is told otherwise there"
