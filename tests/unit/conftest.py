"""What several of these tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raphub import lanes, lookout, sent
from tests.unit.fake_ray import Ray, Told


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    """What calls use of Ray, in place of it for as long as anything of the test runs."""
    fake = Ray()
    for module in (sent, lookout, lanes):
        monkeypatch.setattr(module, "ray", fake)
    yield fake
    Told.close_all()
