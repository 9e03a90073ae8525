"""`python -m tests.simulation --seeds 1000` or `--seed 17`: run the simulation by hand."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.checkers import LawBrokenError
from tests.simulation.simulation import Simulation


class SeedFailedError(AssertionError):
    """A run broke a law: its story, and how to see it again."""


def run_seed(seed: int) -> Counter[str]:
    """One run; raises `SeedFailedError` with the story and the command that replays it."""
    simulation = Simulation(seed)
    try:
        return simulation.run()
    except (LawBrokenError, AssertionError, KeyError, IndexError) as error:
        story = "\n".join(simulation.world.trace)
        raise SeedFailedError(
            f"{story}\nseed {seed}: {type(error).__name__}: {error}\n"
            f"Replay: python -m tests.simulation --seed {seed}"
        ) from error


def run_seeds(seeds: range) -> Counter[str]:
    """Many runs on all cores; the sum of what was counted."""
    totals: Counter[str] = Counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for counted in pool.map(run_seed, seeds, chunksize=5):
            totals.update(counted)
    return totals


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--seed", type=int)
    asked = parser.parse_args()
    began = time.monotonic()
    seeds = range(asked.seeds) if asked.seed is None else range(asked.seed, asked.seed + 1)
    try:
        totals = run_seed(asked.seed) if asked.seed is not None else run_seeds(seeds)
    except SeedFailedError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    counted = ", ".join(f"{count} {name}" for name, count in sorted(totals.items()))
    sys.stdout.write(f"{len(seeds)} seeds in {time.monotonic() - began:.1f} s: {counted}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
