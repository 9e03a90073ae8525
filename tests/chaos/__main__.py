"""`python -m tests.chaos --seconds 60 --state snapshot --factor 2`: one long run by hand.

`--judge FILE` judges once more the history that an earlier run has left.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from raphub.testing import LocalCluster, check
from raphub.testing.history import load
from tests.chaos.chaos_run import CPUS_PER_NODE, NODES, Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--state", choices=["none", "snapshot", "log"], default="snapshot")
    parser.add_argument("--factor", type=int, default=2)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--judge", type=Path, metavar="FILE")
    asked = parser.parse_args()
    if asked.judge is not None:
        return judge(asked.judge)
    plan = Plan(asked.state, asked.factor, asked.seconds, asked.clients, asked.seed)
    folder = Path(tempfile.mkdtemp(prefix="raphub-chaos-"))
    with LocalCluster(nodes=NODES, cpus_per_node=CPUS_PER_NODE) as cluster:
        report = run(cluster, plan, folder)
    print(report)
    return 0 if report.is_good else 1


def judge(path: Path) -> int:
    history, items = load(path)
    if items is None:
        print("the file has no final items: nothing can be said")
        return 2
    violations = check(history, items)
    print(f"{len(history)} operations, {len(violations)} violations")
    for violation in violations:
        print(f"  ! {violation}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
