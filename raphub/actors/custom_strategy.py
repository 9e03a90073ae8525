"""How does a user's strategy get into the hub actor, and how long may it think?

The hub imports the class by its name and makes it of its settings; it unpickles nothing. The
strategy thinks on a thread of its own, so that one that hangs costs the hub half a second and then
a while of consistent hashing, and not its life. Code that never lets go of the interpreter's lock
cannot be bounded so: the guardian ends the hub actor then, as with any other standstill.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from raphub.actors.clock import now_s
from raphub.core.model import Distribution
from raphub.core.placement import Candidate

ANSWER_PATIENCE_S = 0.5
PAUSE_S = 30.0
"""How long a strategy that took too long is not asked."""


class StrategyNotLoadedError(Exception):
    """The strategy cannot be had in this process, and why."""


class CustomStrategy:
    """The strategy, asked with patience. `beat` is called after each answer, for the guardian."""

    def __init__(self, strategy: Any, beat: Callable[[], None]) -> None:  # noqa: ANN401 - a user's
        """`strategy` has a method `rank`."""
        self._strategy = strategy
        self._beat = beat
        self._pool = ThreadPoolExecutor(1, "raphub-strategy")
        self._last: Future[Any] | None = None
        self._ask_from = float("-inf")

    def __call__(
        self, child_id: str, nodes: Sequence[Candidate], taken: Mapping[str, int]
    ) -> object:
        """The strategy's answer. Raises what it raises, and `TimeoutError`."""
        is_busy = self._last is not None and not self._last.done()
        if is_busy or now_s() < self._ask_from:
            raise TimeoutError("it took too long, and is not asked for a while")
        self._last = self._pool.submit(self._strategy.rank, child_id, nodes, taken)
        try:
            return self._last.result(ANSWER_PATIENCE_S)
        except TimeoutError:
            if not self._last.done():  # Else it raised this error itself.
                self._ask_from = now_s() + PAUSE_S
            raise
        finally:
            self._beat()


def load_strategy(distribution: Distribution, beat: Callable[[], None]) -> CustomStrategy:
    """Import the class that the distribution names, and make it of its settings.

    Raises `StrategyNotLoadedError`. Takes as long as the module's import does.
    """
    name = distribution.cls
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise StrategyNotLoadedError(
            f"the head node cannot import the strategy {name!r}: {type(error).__name__}: {error}"
        ) from error
    if not (callable(getattr(found, "rank", None)) and hasattr(found, "model_validate_json")):
        raise StrategyNotLoadedError(f"{name!r} is no class derived from DistributionStrategy")
    try:
        return CustomStrategy(found.model_validate_json(distribution.settings), beat)
    except Exception as error:
        raise StrategyNotLoadedError(
            f"the strategy {name!r} refuses its settings {distribution.settings}: {error}"
        ) from error
