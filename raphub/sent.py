"""What has become of one sending of a call?

Ray tells it by values and by exceptions; here they become what `core.calls` decides on. Nothing is
decided here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
)

from raphub.actors import calling
from raphub.core.calls import Attempt, Outcome

LOOK_AGAIN_S = 0.05
"""After so long without news, a copy that refused a call is asked again."""

UNREACHABLE_PATIENCE_S = 4.0
"""After so long without news, a call whose copy cannot be reached is given up, or sent again."""

_PATIENCE_S = {Outcome.REFUSED: LOOK_AGAIN_S, Outcome.UNREACHABLE: UNREACHABLE_PATIENCE_S}


@dataclass(frozen=True, slots=True)
class Settled:
    """What a call has come to: the answer, or the error that it raises."""

    answer: Any = None
    error: BaseException | None = None

    def unwrap(self) -> Any:  # noqa: ANN401 - the user's
        """Return the answer or raise the error."""
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass(slots=True)
class Sent:
    """One sending of a call. `ended` is how it ended, if that leaves open what follows.

    `reason` is what a copy said that refused it.
    """

    ref: Any
    attempt: Attempt
    ended: Outcome | None = None
    reason: str = ""
    _ended_at_s: float = 0.0
    _answer: Future[Any] | None = field(default=None, repr=False)

    def answer(self) -> Future[Any]:
        """The answer as a future: Ray brings it here, and nobody need wait for it."""
        if self._answer is None:
            self._answer = self.ref.future()
        return self._answer

    def look(self, limit_s: float) -> Settled | Outcome | None:
        """What the call has come to, or how this sending ended; None after so many seconds."""
        try:
            answer = self._get(limit_s)
        except RayTaskError as error:  # a failed argument, or an answer that does not pickle
            return Settled(error=error)
        except TimeoutError:
            return None
        except ActorDiedError:
            return Outcome.DIED
        except (ActorUnavailableError, RayActorError, ObjectLostError):
            return Outcome.UNREACHABLE
        except Exception as error:  # noqa: BLE001 - an answer that cannot be read here
            return Settled(error=error)
        match calling.read_answer(answer):
            case calling.Raised(data, story):
                return Settled(error=revived(data, story, copy=self.attempt.replica))
            case calling.Refused(reason):
                self.reason = reason
                return Outcome.REFUSED
            case calling.Withheld():
                return Outcome.WITHHELD
            case content:
                return Settled(content)

    def leave_open(self, outcome: Outcome) -> None:
        """It ended so, and what follows depends on news that has not come yet."""
        if self.ended is None:
            self._ended_at_s = time.monotonic()
            self.ended = outcome

    def patience_s(self) -> float | None:
        """For how many seconds more news is awaited; None: until it comes."""
        if self.ended not in _PATIENCE_S:
            return None
        return max(0.0, self._ended_at_s + _PATIENCE_S[self.ended] - time.monotonic())

    def _get(self, limit_s: float) -> Any:  # noqa: ANN401 - the user's
        if self._answer is None:
            return ray.get(self.ref, timeout=limit_s)
        return self._answer.result(limit_s)

    def __reduce__(self) -> tuple[Any, ...]:
        """Elsewhere it is looked at anew: neither a future nor a clock travels."""
        return Sent, (self.ref, self.attempt)


def have_come(sendings: Sequence[Sent]) -> list[bool]:
    """Of which of these is the answer somewhere in the cluster? Never waits, and fetches nothing."""
    refs = [sent.ref for sent in sendings]
    if not refs:
        return []
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
    found = set(ready)
    return [ref in found for ref in refs]


def revived(data: bytes, story: str, *, copy: str) -> BaseException:
    """The user's exception as it was raised, with the remote traceback as a note."""
    import ray.cloudpickle as pickle  # noqa: PLC0415 - only on this path

    error: BaseException = pickle.loads(data)
    error.add_note(f"Raised in {copy}:\n{story}")
    return error
