"""Is a large state on a busy machine left where it is?"""

from __future__ import annotations

import pytest

import raphub
from raphub import HubConfig
from raphub.testing import LocalCluster
from tests.chaos.endurance import FACTOR, run
from tests.chaos.test_chaos import SECONDS

pytestmark = pytest.mark.timeout(SECONDS + 240)


def test_a_large_state_stays_where_it_is_while_the_machine_is_busy() -> None:
    with (
        LocalCluster(nodes=FACTOR),
        raphub.Hub.start(HubConfig(hub_id="endurance")) as hub,
    ):
        report = run(hub, SECONDS)
    print(report)
    assert report.is_good, str(report)
    assert report.whole > 0
