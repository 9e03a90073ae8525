"""Do mypy and pyright, both strict, see the types that API.md promises?

The examples lie in `typing_examples/`: `right.py` says after each `reveal_type` what it must tell,
`wrong.py` marks each line that must be refused.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(__file__).parent / "typing_examples"
RIGHT = EXAMPLES / "right.py"
WRONG = EXAMPLES / "wrong.py"

pytestmark = pytest.mark.timeout(600)


@dataclass
class Findings:
    """What a checker said: types told and errors, by file and line."""

    revealed: dict[tuple[str, int], str]
    errors: dict[tuple[str, int], str]


def in_short(told: str) -> str:
    """The type without the modules that mypy puts before each name."""
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", told)


def run_mypy(folder: Path) -> Findings:
    """Without any configuration but `--strict`, as a user's own project may have it."""
    arguments = ["--strict", "--config-file=", "--no-error-summary", "--hide-error-context"]
    command = [sys.executable, "-m", "mypy", *arguments, f"--cache-dir={folder}"]
    said = subprocess.run(
        [*command, str(RIGHT), str(WRONG)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    found = Findings({}, {})
    for line in said.stdout.splitlines():
        parts = re.fullmatch(r"(.*?):(\d+): (error|note): (.*)", line)
        if parts is None:
            continue
        where = (Path(parts[1]).name, int(parts[2]))
        if parts[3] == "error":
            found.errors[where] = parts[4]
        elif told := re.fullmatch(r'Revealed type is "(.*)"', parts[4]):
            found.revealed[where] = in_short(told[1])
    assert found.revealed, said.stdout + said.stderr
    return found


def run_pyright(folder: Path) -> Findings:
    """Strict because the examples say so themselves."""
    settings = {
        "include": [os.path.relpath(EXAMPLES, folder)],
        "extraPaths": [os.path.relpath(ROOT, folder)],
    }
    project = folder / "pyrightconfig.json"
    project.write_text(json.dumps(settings))
    said = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--outputjson"),
            *("--project", str(project), "--pythonpath", sys.executable),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    found = Findings({}, {})
    for item in json.loads(said.stdout)["generalDiagnostics"]:
        where = (Path(item["file"]).name, item["range"]["start"]["line"] + 1)
        if item["severity"] == "error":
            found.errors[where] = item["message"]
        elif told := re.match(r'Type of ".*" is "(.*)"', item["message"], re.DOTALL):
            found.revealed[where] = told[1]
    assert found.revealed, said.stdout + said.stderr
    return found


@pytest.fixture(scope="module", params=[run_mypy, run_pyright])
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    run: Callable[[Path], Findings] = request.param
    return run(tmp_path_factory.mktemp("checker"))


def marked(file: Path, mark: str) -> dict[tuple[str, int], str]:
    """The lines of a file that carry a mark, and what follows it."""
    lines = enumerate(file.read_text().splitlines(), start=1)
    return {
        (file.name, number): line.split(mark, 1)[1].strip()
        for number, line in lines
        if mark in line
    }


def test_what_is_right_has_no_error(findings: Findings) -> None:
    assert {at: text for at, text in findings.errors.items() if at[0] == RIGHT.name} == {}


def test_types_are_told_as_promised(findings: Findings) -> None:
    promised = marked(RIGHT, "# is: ")
    assert len(promised) > 20
    assert findings.revealed == promised


def test_all_and_only_what_is_wrong_is_refused(findings: Findings) -> None:
    refused = {at for at in findings.errors if at[0] == WRONG.name}
    assert refused == set(marked(WRONG, "  # wrong"))
