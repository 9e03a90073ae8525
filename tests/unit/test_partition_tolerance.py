"""The strategies of partition tolerance as a user writes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import raphub
from raphub.core.model import HubSettings
from raphub.core.quorum import DynamicRule, MajorityRule, Rule, StaticRule

TOLERANCES = st.one_of(
    st.just(raphub.Divergence()),
    st.builds(raphub.StaticQuorum, size=st.integers(1, 99), startup_confirm=st.booleans()),
    st.builds(
        raphub.DynamicQuorum,
        percent=st.integers(1, 100),
        threshold_time_s=st.floats(3.0, 1e6),
    ),
    st.builds(
        raphub.MajorityQuorum,
        initial_cluster_size=st.integers(2, 99),
        track_max_size=st.booleans(),
    ),
)


@given(TOLERANCES)
def test_each_is_told_by_its_kind_in_json(tolerance: Any) -> None:
    config = raphub.HubConfig(partition_tolerance=tolerance)
    read = raphub.HubConfig.model_validate_json(config.model_dump_json())
    assert read.partition_tolerance == tolerance
    assert config.differences(read) == []


@pytest.mark.parametrize(
    ("tolerance", "rule"),
    [
        (raphub.Divergence(), None),
        (raphub.StaticQuorum(), StaticRule(3, startup_confirm=False)),
        (raphub.DynamicQuorum(), DynamicRule(50, 30.0)),
        (raphub.MajorityQuorum(), MajorityRule(1, track_max_size=True)),
    ],
)
def test_each_becomes_what_the_core_goes_by(tolerance: Any, rule: Rule | None) -> None:
    settings = raphub.HubConfig(partition_tolerance=tolerance).settings()
    assert settings == HubSettings(partition_tolerance=rule)


@pytest.mark.parametrize(
    ("strategy", "values", "field"),
    [
        (raphub.StaticQuorum, {"size": 0}, "size"),
        (raphub.DynamicQuorum, {"percent": 0}, "percent"),
        (raphub.DynamicQuorum, {"percent": 101}, "percent"),
        (raphub.DynamicQuorum, {"threshold_time_s": 0}, "threshold_time_s"),
        (raphub.MajorityQuorum, {"initial_cluster_size": 0}, "initial_cluster_size"),
        (raphub.MajorityQuorum, {"track_max_size": False}, "initial_cluster_size"),
    ],
)
def test_what_cannot_be_is_refused(strategy: Any, values: dict[str, Any], field: str) -> None:
    with pytest.raises(raphub.InvalidSetting) as caught:
        strategy(**values)
    assert caught.value.field == field


def test_a_loss_is_not_forgotten_before_leases_have_run_out() -> None:
    with pytest.raises(raphub.InvalidSetting, match="below lease_duration_s") as caught:
        raphub.HubConfig(partition_tolerance=raphub.DynamicQuorum(threshold_time_s=2.9))
    assert caught.value.field == "partition_tolerance.threshold_time_s"


def test_a_class_in_place_of_a_value_is_refused() -> None:
    with pytest.raises(raphub.InvalidSetting, match=r"write StaticQuorum\(\)"):
        raphub.HubConfig(partition_tolerance=raphub.StaticQuorum)  # type: ignore[arg-type]
