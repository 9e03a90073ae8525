"""Options of the whole test run."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seeds N`: how many seeds the laws are tried with."""
    parser.addoption("--seeds", type=int, default=300, help="seeds of the simulation")
    parser.addoption("--rewrite", action="store_true", help="write the transcripts anew")
