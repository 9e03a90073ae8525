"""What does a caller notice while the copy that answers is taken away?

One thread asks a few questions at once, again and again at a steady pace, and writes down which were
answered, when, and from which process. It knows nothing of what is done to the other end.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from raphub.demo.workload import WORDS, Answer

PACE_S = 0.005
"""How long the caller rests between the answers and the next questions."""

IN_FLIGHT = 4
"""How many questions are asked at once."""

SLICE_S = 0.2
"""How long a caller waits at a stretch. Nobody may be inside Ray when the demo shuts Ray down."""

ANSWER_TIMEOUT_S = 60.0

Await = Callable[[float], Answer]
"""Wait for an answer for so many seconds; raises `TimeoutError`, and may then be called again."""

Ask = Callable[[int, str], Await]
"""Ask the question of a number, for a word; the answer is awaited by what is returned."""


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
    """What the caller has noticed so far. The times are monotonic, in seconds.

    `sent` and `acknowledged` are the numbers of the questions that were asked and answered. What
    was sent and not acknowledged may or may not have been applied.
    """

    sent: list[int] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    failed: int = 0
    first_pid: int = 0
    answered_at_s: float = 0.0
    answer: Answer | None = None
    takeovers: list[Takeover] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """How many questions were answered."""
        return len(self.acknowledged)


class Stream:
    """A steady stream of questions from a thread of its own, from `start` until `stop`."""

    def __init__(self, name: str, ask: Ask, numbers: Iterator[int]) -> None:
        """`name` is shown; `numbers` are those of the questions. Nothing is asked yet."""
        self.name = name
        self.tally = Tally()
        self._ask = ask
        self._numbers = numbers
        self._stopping = threading.Event()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"demo-{name}", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def tell_to_stop(self) -> None:
        """Ask no more, and do not wait for an answer that is still to come."""
        self._stopping.set()

    def stop(self) -> None:
        """Return when nothing is asked any more."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def wait_for(self, is_met: Callable[[Tally], bool], timeout_s: float) -> bool:
        """Wait until what was noticed meets the condition; False if the time ran out."""
        with self._news:
            return self._news.wait_for(lambda: is_met(self.tally), timeout_s)

    def _run(self) -> None:
        words = itertools.cycle(WORDS)
        while not self._stopping.is_set():
            asked = [self._send(next(self._numbers), next(words)) for _ in range(IN_FLIGHT)]
            for number, wait in asked:
                if wait is not None:
                    self._receive(number, wait)
            self._stopping.wait(PACE_S)

    def _send(self, number: int, word: str) -> tuple[int, Await | None]:
        self.tally.sent.append(number)
        try:
            return number, self._ask(number, word)
        except Exception as error:  # noqa: BLE001 - whatever it is, there will be no answer
            self._note_failure(error)
            return number, None

    def _receive(self, number: int, wait: Await) -> None:
        try:
            answer = self._await(wait)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has no answer
            if not self._stopping.is_set():
                self._note_failure(error)
        else:
            self._note_answer(number, answer, time.monotonic())

    def _await(self, wait: Await) -> Answer:
        """Wait in slices. Raises `TimeoutError` after 60 s, or soon after `stop`."""
        gives_up_at_s = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            try:
                return wait(SLICE_S)
            except TimeoutError:
                if self._stopping.is_set() or time.monotonic() > gives_up_at_s:
                    raise

    def _note_answer(self, number: int, answer: Answer, at_s: float) -> None:
        tally = self.tally
        with self._news:
            if tally.answer is None:
                tally.first_pid = answer.pid
            elif answer.pid != tally.answer.pid:
                silence_s = at_s - tally.answered_at_s
                tally.takeovers.append(Takeover(at_s, silence_s, answer))
            tally.acknowledged.append(number)
            tally.answered_at_s = at_s
            tally.answer = answer
            self._news.notify_all()

    def _note_failure(self, error: Exception) -> None:
        with self._news:
            self.tally.failed += 1
            self.tally.errors.append(f"{type(error).__name__}: {error}".splitlines()[0])
            self._news.notify_all()
