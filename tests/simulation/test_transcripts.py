"""Stories of the protocol, line by line, to be read by people.

They are compared exactly; `pytest tests/simulation/test_transcripts.py --rewrite` writes them anew,
and whoever does that reads them before they commit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from raphub.core.messages import SendToReplica
from raphub.core.records import ReplicaPlaced, ReplicaPromoted, ReplicaRetired
from tests.simulation.cluster import Process
from tests.simulation.hub_life import HubLife
from tests.simulation.scenario import PLAIN
from tests.simulation.simulation import Simulation

HERE = Path(__file__).parent / "transcripts"
TOLD = ("TakeRole", "StepDown", "Fenced")


class Story:
    """A calm world in which one thing goes wrong at a time, and everything is written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.simulation = Simulation(seed=7, circumstances=PLAIN)
        self.world = self.simulation.world
        self.world.calm = True
        self.lines: list[str] = []
        self._write_down(monkeypatch)
        for _ in range(3):
            self.simulation.cluster.add_node()
        self.simulation.begin_life()
        self.simulation.requester.start(PLAIN.plan("a"))
        self.world.run_until(5.0)

    @property
    def active(self) -> Process:
        """The copy that serves."""
        [serving] = [p for p in self.simulation.cluster.of("a") if p.may_serve()]
        return serving

    def say(self, text: str) -> None:
        """What the author of the story does."""
        self.lines.append(f"{self.world.now:7.3f}  == {text}")

    def _write_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right_do, right_receive = HubLife._do, HubLife.receive
        self.simulation.store.watchers.append(lambda _, entry: self._at_rest(entry.facts))

        def do(life: HubLife, action: object) -> None:
            told = isinstance(action, SendToReplica) and type(action.message).__name__ in TOLD
            if isinstance(action, SendToReplica) and told:
                self._line(f"hub -> {action.replica}", action.message)
            right_do(life, action)  # type: ignore[arg-type]

        def receive(life: HubLife, process: Process, message: object) -> None:
            if type(message).__name__ in ("RoleTaken", "SteppedDown"):
                self._line(f"{process.replica} -> hub", message)
            right_receive(life, process, message)  # type: ignore[arg-type]

        monkeypatch.setattr(HubLife, "_do", do)
        monkeypatch.setattr(HubLife, "receive", receive)

    def _at_rest(self, facts: tuple[object, ...]) -> None:
        told = [f for f in facts if isinstance(f, ReplicaPlaced | ReplicaPromoted | ReplicaRetired)]
        for fact in told:
            self._line("journal", fact)

    def _line(self, who: str, what: Any) -> None:
        """One line. What is empty because the child has no replicated state is left out."""
        filled = [(f.name, getattr(what, f.name)) for f in fields(what)]
        told = ", ".join(f"{name}={value!r}" for name, value in filled if value not in (None, ()))
        self.lines.append(f"{self.world.now:7.3f}  {who:<12} {type(what).__name__}({told})")


def death(story: Story) -> None:
    """The active's process is killed."""
    story.say(f"kill {story.active.replica}")
    story.active.die()
    story.world.run_until(story.world.now + 5)


def silence(story: Story) -> None:
    """The active hangs for longer than its lease, and wakes up."""
    hung = story.active
    story.say(f"stop {hung.replica} (SIGSTOP)")
    hung.is_paused = True
    story.world.run_until(story.world.now + 5)
    story.say(f"wake {hung.replica}: it {'serves' if hung.may_serve() else 'does not serve'}")
    hung.is_paused = False
    story.world.run_until(story.world.now + 3)
    story.say(f"{hung.replica} is {'alive' if hung.is_alive else 'gone'}")


def suspicion(story: Story) -> None:
    """Ray calls the active's node dead, though it works: suspicion, and no proof."""
    story.say(f"Ray calls {story.active.node.name} dead, the node of {story.active.replica}")
    story.simulation.cluster.slander(story.active.node, 60.0)
    story.world.run_until(story.world.now + 3)


@pytest.mark.parametrize("tell", [death, silence, suspicion], ids=lambda tell: tell.__name__)
def test_the_story_is_told_as_before(
    tell: Callable[[Story], None], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(monkeypatch)
    tell(story)
    text = f"{tell.__doc__}\n\n" + "\n".join(story.lines) + "\n"
    path = HERE / f"{tell.__name__}.txt"
    if request.config.getoption("--rewrite"):
        path.write_text(text)
    assert path.read_text() == text
