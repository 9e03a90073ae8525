"""Is a hub's distribution read, kept and refused as promised, and a user's strategy found?"""

from __future__ import annotations

import json
from typing import Any

import pytest

import raphub
from raphub.actors import custom_strategy
from raphub.actors.custom_strategy import StrategyNotLoadedError, load_strategy
from raphub.actors.encoding import pack, unpack
from raphub.core.model import Distribution, DistributionKind, HubSettings
from raphub.core.placement import Candidate
from tests.unit import strategies_of_users
from tests.unit.strategies_of_users import ByLabel

HERE = "tests.unit.strategies_of_users"
ALL: list[Any] = [
    raphub.ConsistentHashing(),
    raphub.Guided(mapping={"a": ["10.0.0.1", "10.0.0.2"], "b": ["n1"]}),
    raphub.LeastLoaded(),
    raphub.CustomDistribution(cls=f"{HERE}:ByLabel", settings={"label": "ssd"}),
    ByLabel(label="ssd", value="fast"),
]


@pytest.mark.parametrize("distribution", ALL, ids=lambda d: type(d).__name__)
def test_a_distribution_survives_json_and_the_way_to_the_hub(distribution: Any) -> None:
    config = raphub.HubConfig(distribution=distribution)
    again = raphub.HubConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert config.differences(again) == []
    settings: HubSettings = config.settings()
    assert unpack(pack(settings)) == settings
    assert settings.distribution.kind.value == config.distribution.kind


def test_kinds_reach_the_core_with_what_they_say() -> None:
    guided = raphub.HubConfig(distribution=ALL[1]).settings().distribution
    assert guided == Distribution(
        DistributionKind.GUIDED,
        {"a": ("10.0.0.1", "10.0.0.2"), "b": ("n1",)},  # type: ignore[dict-item]
    )
    custom = raphub.HubConfig(distribution=ALL[4]).settings().distribution
    assert (custom.kind, custom.cls) == (DistributionKind.CUSTOM, f"{HERE}:ByLabel")
    assert json.loads(custom.settings) == {"label": "ssd", "value": "fast"}


def test_another_mapping_is_another_hub() -> None:
    one, other = (
        raphub.HubConfig(distribution=raphub.Guided(mapping={"a": [node]})) for node in ("n1", "n2")
    )
    assert one.differences(other) == [
        'distribution.mapping.a is ["n1"] in one and ["n2"] in the other'
    ]


def test_an_unknown_kind_names_those_that_there_are() -> None:
    for distribution in ({"kind": "roulette"}, {}, 7, "guided"):
        with pytest.raises(raphub.InvalidSetting) as caught:
            raphub.HubConfig(distribution=distribution)  # type: ignore[arg-type]
        assert "distribution" in str(caught.value)
        assert "raphub.LeastLoaded()" in caught.value.hint
    with pytest.raises(raphub.InvalidSetting, match=r"write LeastLoaded\(\)"):
        raphub.HubConfig(distribution=raphub.LeastLoaded)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({"a": []}, "has for 'a' no nodes"),
        ({"a": "n1"}, "has for 'a' 'n1', which is not a list of nodes"),
        ({"a": ["n1", "n1"]}, "has for 'a' the node 'n1' twice"),
        ({"a": ["n1", 7]}, "which are not all node ids or addresses"),
        ({"a": [""]}, "which are not all node ids or addresses"),
        (["a"], "should be a dictionary"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused_with_the_child_and_the_next_step(
    mapping: Any, told: str
) -> None:
    with pytest.raises(raphub.InvalidMapping, match=told) as caught:
        raphub.Guided(mapping=mapping)
    assert caught.value.field == "mapping"
    assert caught.value.hint.startswith(("Give 'a' a list", "Write Guided"))
    with pytest.raises(raphub.InvalidMapping, match=told):
        raphub.HubConfig(distribution={"kind": "guided", "mapping": mapping})  # type: ignore[arg-type]


def test_a_static_child_that_the_mapping_lacks_is_refused_by_name() -> None:
    specs = [raphub.ChildSpec(child_id=name, cls="a:B") for name in ("known", "unknown")]
    with pytest.raises(raphub.InvalidMapping, match="names no nodes for 'unknown'") as caught:
        raphub.HubConfig(distribution=raphub.Guided(mapping={"known": ["n1"]}), child_specs=specs)
    assert "child_specs" in caught.value.hint


# --- strategies of the user's own --------------------------------------------------------------


def test_a_strategy_is_kept_by_its_name_and_its_fields() -> None:
    config = raphub.HubConfig(distribution=ByLabel(label="ssd"))
    assert config.distribution == raphub.CustomDistribution(
        cls=f"{HERE}:ByLabel", settings={"label": "ssd", "value": "yes"}
    )


def test_a_strategy_that_no_other_process_can_import_is_refused_at_once() -> None:
    class Local(ByLabel):
        pass

    with pytest.raises(raphub.InvalidSetting, match="cannot import the class") as caught:
        raphub.HubConfig(distribution=Local(label="ssd"))
    assert "module that the head node can import" in caught.value.hint
    with pytest.raises(raphub.InvalidSetting, match="__main__:Mine"):
        raphub.CustomDistribution(cls="__main__:Mine")
    with pytest.raises(raphub.InvalidSetting, match=r"package\.module:Class"):
        raphub.CustomDistribution(cls="Mine")


def test_a_strategy_without_rank_or_with_wrong_fields_is_refused_where_it_is_made() -> None:
    with pytest.raises(TypeError, match="rank"):
        raphub.DistributionStrategy()  # type: ignore[abstract]
    with pytest.raises(raphub.InvalidSetting, match="there is no setting `lable`"):
        ByLabel(label="ssd", lable="x")  # type: ignore[call-arg]


def load(name: str, settings: str = "{}") -> custom_strategy.CustomStrategy:
    distribution = Distribution(DistributionKind.CUSTOM, cls=name, settings=settings)
    return load_strategy(distribution, lambda: None)


def test_the_hub_makes_the_strategy_of_its_name_and_settings() -> None:
    strategy = load(f"{HERE}:ByLabel", '{"label": "ssd"}')
    nodes = [
        Candidate("a", copies=2),
        Candidate("b", copies=1),
        Candidate("c", labels={"ssd": "yes"}),
    ]
    assert strategy("child", nodes, {}) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("no.such.module:Strategy", "{}", "cannot import the strategy 'no.such.module:Strategy'"),
        (f"{HERE}:Missing", "{}", "cannot import the strategy"),
        (f"{HERE}:NoStrategy", "{}", "is no class derived from DistributionStrategy"),
        (f"{HERE}:ByLabel", '{"colour": 1}', "refuses its settings"),
    ],
)
def test_what_cannot_be_loaded_says_why(name: str, settings: str, told: str) -> None:
    with pytest.raises(StrategyNotLoadedError, match=told):
        load(name, settings)


def test_a_strategy_that_hangs_is_given_up_and_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(custom_strategy, "now_s", lambda: now)
    monkeypatch.setattr(custom_strategy, "ANSWER_PATIENCE_S", 0.01)
    strategies_of_users.HELD.clear()
    strategy = load(f"{HERE}:Waits")
    with pytest.raises(TimeoutError):
        strategy("child", [Candidate("a")], {})
    with pytest.raises(TimeoutError, match="not asked for a while"):
        strategy("child", [Candidate("a")], {})
    strategies_of_users.HELD.set()
    monkeypatch.setattr(custom_strategy, "ANSWER_PATIENCE_S", 20.0)
    last = strategy._last
    assert last is not None
    last.result(20)
    with pytest.raises(TimeoutError, match="not asked for a while"):
        strategy("child", [Candidate("a")], {})
    now += custom_strategy.PAUSE_S
    assert strategy("child", [Candidate("a")], {}) == ["a"]


def test_every_answer_is_a_beat_for_the_guardian() -> None:
    beats: list[int] = []
    distribution = Distribution(
        DistributionKind.CUSTOM, cls=f"{HERE}:ByLabel", settings='{"label": "ssd"}'
    )
    strategy = load_strategy(distribution, lambda: beats.append(1))
    strategy("child", [Candidate("a")], {})
    assert beats == [1]
