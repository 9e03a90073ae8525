"""How is a planted bug hunted?

A mutant is one mistake that is easily made, planted into the real machines for the length of a
test. It must be caught by a law that it breaks, within a bounded number of storms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from tests.simulation.checkers import LawBrokenError
from tests.simulation.simulation import Simulation

Plant = Callable[[pytest.MonkeyPatch], None]


def hunt(
    plant: Plant,
    laws: set[str],
    storms: Iterable[Simulation],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Plant the bug, and let storms pass until one of its laws is broken."""
    plant(monkeypatch)
    for storm in storms:
        try:
            storm.run()
        except LawBrokenError as caught:
            with capsys.disabled():
                print(f"\n{plant.__name__}: law {caught.law}, seed {storm.seed}: {caught}"[:160])
            by_right_law = caught.law in laws
            assert by_right_law, f"caught by the wrong law: {caught}"  # noqa: PT017 - one seed of many
            return
    pytest.fail(f"survived all storms: {plant.__doc__}")
