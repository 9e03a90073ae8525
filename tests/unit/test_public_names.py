"""The public names are what `raphub.<name>` gives, whatever else was imported before."""

from __future__ import annotations

import importlib
import pkgutil

import raphub


def test_no_public_name_is_also_a_module() -> None:
    """Python would put the module in the name's place when it is imported."""
    modules = {found.name for found in pkgutil.iter_modules(raphub.__path__)}
    assert modules & set(raphub.__all__) == set()


def test_every_public_name_survives_the_import_of_everything() -> None:
    for found in pkgutil.iter_modules(raphub.__path__):
        if found.name != "__main__":
            importlib.import_module(f"raphub.{found.name}")
    modules = [name for name in raphub.__all__ if isinstance(getattr(raphub, name), type(raphub))]
    assert modules == []
