"""The README's guide does what it says, line by line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import raphub
from raphub.testing import LocalCluster

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLAIM = re.compile(r"#\s*->\s*(.+)$")


def blocks(name: str) -> list[str]:
    """The Python blocks of a document, in order."""
    return BLOCK.findall((ROOT / name).read_text())


def run_block(block: str, names: dict[str, object]) -> int:
    """Run a block statement by statement; compare what a line claims. Returns the claims seen."""
    claims = 0
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        source = "\n".join(lines[statement.lineno - 1 : statement.end_lineno])
        claim = CLAIM.search(lines[(statement.end_lineno or 1) - 1])
        if isinstance(statement, ast.Expr) and claim is not None:
            value = eval(compile(ast.Expression(statement.value), "README.md", "eval"), names)  # noqa: S307
            assert value == ast.literal_eval(claim.group(1)), source
            claims += 1
        else:
            module = ast.Module([statement], type_ignores=[])
            exec(compile(module, "README.md", "exec"), names)  # noqa: S102
    return claims


@pytest.mark.timeout(300)
def test_every_block_of_the_readme_runs_and_every_claim_holds(cluster: LocalCluster) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    claims = sum(run_block(block, names) for block in blocks("README.md"))
    assert claims >= 12
    for hub_id in raphub.hubs():
        raphub.Hub.connect(hub_id).stop()
