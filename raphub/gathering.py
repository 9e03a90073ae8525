"""How does one wait for several calls?"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TypeVar

from raphub.call import SLICE_S, Call
from raphub.sent import LOOK_AGAIN_S

R = TypeVar("R")


def results(made: Iterable[Call[R]], timeout_s: float | None = None) -> list[R]:
    """The answers of all calls, in their order; raises the first error, as `Call.result` does.

    `timeout_s` in seconds bounds the whole.
    """
    gives_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    return [
        call.result(None if gives_up_at is None else max(0.0, gives_up_at - time.monotonic()))
        for call in made
    ]


def wait(
    made: Sequence[Call[R]], num_returns: int = 1, timeout_s: float | None = None
) -> tuple[list[Call[R]], list[Call[R]]]:
    """Wait until `num_returns` calls are done or `timeout_s` seconds have passed: (done, others)."""
    gives_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        done: list[Call[R]] = []
        others: list[Call[R]] = []
        for call in made:
            (done if call.done() else others).append(call)
        left_s = SLICE_S if gives_up_at is None else gives_up_at - time.monotonic()
        if len(done) >= min(num_returns, len(made)) or left_s <= 0:
            return done, others
        for call in others:
            call.step(min(LOOK_AGAIN_S, left_s) / len(others))
