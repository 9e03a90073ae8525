"""What does a caller notice while the copy that answers is taken away?

One thread asks one question after the other, at a steady pace, and writes down when answers came
and from which process. It knows nothing of what is done to the other end.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from raphub.demo.workload import WORDS, Answer

PACE_S = 0.005
"""How long the caller rests between an answer and the next question."""

Ask = Callable[[str], Answer]
"""Ask for a word and wait for the answer; raises if there is none."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """The first answer of a process that has not answered before.

    `at_s` is a monotonic time; `silence_s` is how long no answer had come until then.
    """

    at_s: float
    silence_s: float
    answer: Answer


@dataclass(slots=True)
class Tally:
    """What the caller has noticed so far. The times are monotonic, in seconds."""

    answered: int = 0
    failed: int = 0
    first_pid: int = 0
    asked_at_s: float = 0.0
    answered_at_s: float = 0.0
    answer: Answer | None = None
    takeovers: list[Takeover] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Stream:
    """A steady stream of questions from a thread of its own, from `start` until `stop`."""

    def __init__(self, name: str, ask: Ask) -> None:
        """`name` is shown; nothing is asked yet."""
        self.name = name
        self.tally = Tally()
        self._ask = ask
        self._stopping = threading.Event()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"demo-{name}", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self, patience_s: float = 1.0) -> None:
        """Ask no more. A question that is never answered is left behind after `patience_s`."""
        self._stopping.set()
        self._thread.join(patience_s)

    def wait_for(self, is_met: Callable[[Tally], bool], timeout_s: float) -> bool:
        """Wait until what was noticed meets the condition; False if the time ran out."""
        with self._news:
            return self._news.wait_for(lambda: is_met(self.tally), timeout_s)

    def _run(self) -> None:
        for word in itertools.cycle(WORDS):
            if self._stopping.is_set():
                return
            self.tally.asked_at_s = time.monotonic()
            try:
                answer = self._ask(word)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller has no answer
                if not self._stopping.is_set():
                    self._note_failure(error)
            else:
                self._note_answer(answer, time.monotonic())
            self._stopping.wait(PACE_S)

    def _note_answer(self, answer: Answer, at_s: float) -> None:
        tally = self.tally
        with self._news:
            if tally.answer is None:
                tally.first_pid = answer.pid
            elif answer.pid != tally.answer.pid:
                silence_s = at_s - tally.answered_at_s
                tally.takeovers.append(Takeover(at_s, silence_s, answer))
            tally.answered += 1
            tally.answered_at_s = at_s
            tally.answer = answer
            self._news.notify_all()

    def _note_failure(self, error: Exception) -> None:
        with self._news:
            self.tally.failed += 1
            self.tally.errors.append(f"{type(error).__name__}: {error}".splitlines()[0])
            self._news.notify_all()
