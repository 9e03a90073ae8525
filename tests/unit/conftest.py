"""What several of these tests share."""

from __future__ import annotations

import pytest

from raphub import lanes, lookout, sent
from tests.unit.fake_ray import Ray


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    """What calls use of Ray, in place of it."""
    fake = Ray()
    for module in (sent, lookout, lanes):
        monkeypatch.setattr(module, "ray", fake)
    return fake
