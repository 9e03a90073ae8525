"""The laws hold in every storm, and the storms are rough enough to say so."""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import SeedFailedError, run_seeds

ROUGH_ENOUGH = ("promotions", "lease expiries", "hub deaths", "cuts")
SEEDS = 300
EACH = 1000


@pytest.mark.timeout(600)
def test_all_laws_hold_in_every_storm(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = request.config.getoption("--seeds")
    try:
        totals = run_seeds(range(seeds))
    except SeedFailedError as error:
        pytest.fail(str(error), pytrace=False)
    with capsys.disabled():
        counted = ", ".join(f"{count} {name}" for name, count in sorted(totals.items()))
        print(f"\n{seeds} seeds: {counted}")
    for name in ROUGH_ENOUGH:
        assert totals[name] * SEEDS >= EACH * min(seeds, SEEDS), f"too few {name}: {totals[name]}"
