"""Is what a user asks for read, refused and resolved as promised?"""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, model_validator

from raphub import settings
from raphub.core.model import (
    Acks,
    ChildPlan,
    DeathProof,
    HubSettings,
    Model,
    OnDataLoss,
    Signal,
    Spread,
    State,
)
from raphub.errors import InvalidMapping, InvalidSetting
from raphub.options import _OWNED_BY_RAPHUB
from raphub.spec import (
    ChildSpec,
    ConsistentHashing,
    Divergence,
    GivenOptions,
    HubConfig,
    ReplicatedOptions,
    Replication,
    Singularity,
    StartedSpec,
    class_options,
    load_class,
    plan_child,
    qualified_name,
)


class Counter:
    class Inner:
        pass


HERE = f"{__name__}:Counter"


def plan(
    spec: ChildSpec | None = None,
    config: HubConfig | None = None,
    options: ReplicatedOptions | None = None,
    job_id: str | None = "job1",
) -> ChildPlan:
    return plan_child(
        spec or ChildSpec(child_id="a", cls=Counter),
        config or HubConfig(),
        class_options=options or ReplicatedOptions(),
        job_id=job_id,
        payload=b"bytes",
    )


def refusal(make: Any, **values: Any) -> InvalidSetting:
    with pytest.raises(InvalidSetting) as caught:
        make(**values)
    assert not isinstance(caught.value, ValidationError)
    assert caught.value.hint
    return caught.value


# --- Refusals ---------------------------------------------------------------------------------


def test_a_wrong_strategy_raises_at_once_and_names_field_and_fix() -> None:
    error = refusal(Replication, factor=0)
    assert error.field == "factor"
    assert "not 0" in error.message
    assert '"cluster_size"' in error.hint


def test_a_wrong_value_inside_a_dictionary_names_its_path() -> None:
    error = refusal(HubConfig, redundancy={"kind": "replication", "factor": 0})
    assert error.field == "redundancy.factor"
    error = refusal(HubConfig, child_specs=[{"child_id": "a", "cls": Counter}, {"child_id": "b"}])
    assert error.field == "child_specs[1].cls"


@pytest.mark.parametrize("factor", [0, -1, True, 1.5, "2", "all", None])
def test_a_factor_is_a_count_or_cluster_size(factor: object) -> None:
    assert refusal(Replication, factor=factor).field == "factor"


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    assert "`redundancy`" in refusal(HubConfig, redundency=Singularity()).hint
    assert "`child_id`" in refusal(ChildSpec, id="a", child_id="a", cls=Counter).hint


def test_several_wrongs_are_told_together() -> None:
    error = refusal(HubConfig, hub_id="", events_max=0)
    assert "`hub_id`" in error.message
    assert "`events_max`" in error.message
    assert error.field == ""


def test_a_class_in_place_of_a_value_is_answered_with_the_call() -> None:
    assert "Singularity()" in refusal(HubConfig, redundancy=Singularity).message


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model": "active_active", "state": "snapshot"}, 'model="active_active"'),
        ({"factor": 2, "min_in_sync": 3}, "min_in_sync=3"),
        ({"state": "none", "acks": "active"}, 'acks="active"'),
        ({"state": "none", "min_in_sync": 2}, "min_in_sync=2"),
    ],
)
def test_what_cannot_be_together_is_refused_wherever_it_is_said(values: Any, named: str) -> None:
    for error in (
        refusal(ReplicatedOptions, **values),
        refusal(Replication, **values),
        refusal(ChildSpec, child_id="a", cls=Counter, **values),
        refusal(HubConfig, redundancy={"kind": "replication", **values}),
    ):
        assert named in error.message
        assert error.hint != InvalidSetting.default_hint


def test_each_level_may_say_a_part_of_what_cannot_be_together() -> None:
    hub = HubConfig(redundancy=Replication(state="none"))
    spec = ChildSpec(child_id="a", cls=Counter, acks="active")
    assert 'state="snapshot"' in refusal(plan, spec=spec, config=hub).hint
    few = HubConfig(redundancy=Replication(factor=1))
    spec = ChildSpec(child_id="a", cls=Counter, state="log", min_in_sync=2)
    assert "factor=1" in refusal(plan, spec=spec, config=few).message


@pytest.mark.parametrize("default", [State.NONE, State.SNAPSHOT])
def test_where_all_copies_serve_each_has_its_own_state_whatever_the_default(
    default: State,
) -> None:
    hub = HubConfig(redundancy=Replication(model="active_active"))
    assert hub == HubConfig.model_validate_json(hub.model_dump_json())
    assert plan(config=hub).state is State.NONE
    spec = ChildSpec(child_id="a", cls=Counter, model="active_active")
    assert plan(spec, HubConfig(redundancy=Replication(state=default))).state is State.NONE


def test_what_is_said_of_state_reaches_the_plan() -> None:
    said: dict[str, Any] = {
        "state": "log",
        "acks": "active",
        "min_in_sync": 2,
        "max_lag_writes": 7,
        "start_grace_s": 3.5,
        "on_data_loss": "restart_empty",
    }
    by_hub = plan(config=HubConfig(redundancy=Replication(**said)))
    by_spec = plan(ChildSpec(child_id="a", cls=Counter, **said))
    for found in (by_hub, by_spec):
        assert {name: getattr(found, name) for name in said} == said
        shown = StartedSpec.of(found)
        assert {name: getattr(shown, name) for name in said} == said


def test_a_singularity_keeps_no_state() -> None:
    hub = HubConfig(redundancy=Singularity())
    assert plan(config=hub).state is State.NONE


def test_all_ways_to_read_refuse_alike() -> None:
    config = HubConfig()
    for read in (
        lambda: HubConfig.model_validate({"hub_id": "a b"}),
        lambda: HubConfig.model_validate_json('{"hub_id": "a b"}'),
        lambda: config.model_copy(update={"hub_id": "a b"}),
    ):
        error = refusal(read)
        assert error.field == "hub_id"
        assert error.message.count("HubConfig") == 1
    assert "JSON" in refusal(lambda: HubConfig.model_validate_json("{")).message
    assert "dictionary" in refusal(lambda: HubConfig.model_validate([])).message


def test_a_more_special_refusal_keeps_its_class() -> None:
    class Mapped(settings.Setting):
        nodes: int

        @model_validator(mode="after")
        def check(self) -> Mapped:
            raise InvalidMapping("too short", field="nodes")

    class Holding(settings.Setting):
        mapped: Mapped

    with pytest.raises(InvalidMapping):
        Mapped(nodes=1)
    with pytest.raises(InvalidMapping) as caught:
        Holding.model_validate({"mapped": {"nodes": 1}})
    assert caught.value.field == "mapped.nodes"


def test_settings_are_frozen() -> None:
    config: Any = HubConfig()
    with pytest.raises(ValidationError):
        config.hub_id = "other"


def test_a_repr_tells_what_differs_from_the_defaults_and_makes_an_equal_value() -> None:
    config = HubConfig(hub_id="x", redundancy=Replication(factor=3, model="active_active"))
    assert repr(config) == (
        "HubConfig(hub_id='x', "
        "redundancy=Replication(factor=3, model='active_active', state='none'))"
    )
    assert eval(repr(config)) == config  # noqa: S307 - a repr of ours
    assert str(HubConfig()) == "HubConfig()"


# --- Hubs -------------------------------------------------------------------------------------


def test_every_bound_of_the_core_is_a_setting_with_the_same_default() -> None:
    for bound in dataclasses.fields(HubSettings):
        assert bound.name in HubConfig.model_fields
    assert HubConfig().settings() == HubSettings()


def test_bounds_reach_the_core() -> None:
    config = HubConfig(lease_duration_s=6, death_proof="lease", label_selector={"zone": "!b"})
    assert config.settings() == HubSettings(
        lease_duration_s=6, death_proof=DeathProof.LEASE, label_selector={"zone": "!b"}
    )


def test_the_defaults_of_a_hub() -> None:
    config = HubConfig()
    assert config.redundancy == Replication(
        factor=2, model="active_passive", signal="all", state="snapshot"
    )
    assert config.distribution == ConsistentHashing()
    assert config.partition_tolerance == Divergence()
    assert (config.events_max, config.wire_ports) == (10_000, None)
    assert config.frame_bytes_max == 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"lease_renewal_s": 1.01}, "lease_renewal_s x 3"),
        ({"term_check_s": 3.01}, "term_check_s"),
        ({"dial_timeout_s": 3.0}, "dial_timeout_s"),
        ({"pause_suspected_s": 3.01}, "pause_suspected_s"),
        ({"crash_backoff_s": 11}, "crash_backoff_s"),
        ({"lease_duration_s": 1.4}, "lease_renewal_s x 3"),
    ],
)
def test_unsafe_times_are_refused_with_rule_and_numbers(values: Any, rule: str) -> None:
    error = refusal(HubConfig, **values)
    assert rule in error.message
    for name, value in values.items():
        assert f"{name} is {value:g}" in error.message


@given(
    duration=st.floats(0.1, 100),
    renewal=st.floats(0.01, 100),
    term=st.floats(0.01, 100),
    dial=st.floats(0.01, 100),
    ack=st.floats(0.01, 100),
)
def test_times_are_accepted_exactly_when_they_are_safe(
    duration: float, renewal: float, term: float, dial: float, ack: float
) -> None:
    is_safe = renewal * 3 <= duration and term <= duration and max(dial, ack) < duration
    values = {
        "lease_duration_s": duration,
        "lease_renewal_s": renewal,
        "term_check_s": term,
        "dial_timeout_s": dial,
        "ack_timeout_s": ack,
        "pause_suspected_s": duration,
    }
    if is_safe:
        assert HubConfig.model_validate(values).settings().lease_duration_s == duration
    else:
        refusal(HubConfig, **values)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(f.name, 0) for f in dataclasses.fields(HubSettings) if f.name.endswith("_s")],
        *[(f.name, float("nan")) for f in dataclasses.fields(HubSettings) if f.type == "float"],
        *[(f.name, 0) for f in dataclasses.fields(HubSettings) if f.type == "int"],
        ("clock_drift_max", -0.01),
        ("clock_drift_max", 0.1),
        ("distrust_node_fraction", 0),
        ("distrust_node_fraction", 1.01),
        ("death_proof", "ray"),
        ("events_max", 0),
        ("frame_bytes_max", 1000),
        ("wire_ports", (3000, 2000)),
        ("wire_ports", (0, 10)),
        ("wire_ports", (1, 65536)),
        ("hub_id", ""),
        ("hub_id", "a" * 65),
        ("hub_id", "a/b"),
        ("hub_id", "ä"),
        ("hub_id", "a\n"),
        ("label_selector", {"zone": "in(a"}),
        ("label_selector", {"": "a"}),
        ("label_selector", {"zone": "a,b"}),
    ],
)
def test_a_value_that_cannot_be_is_refused(field: str, value: object) -> None:
    assert refusal(HubConfig, **{field: value}).field == field


@pytest.mark.parametrize("term", ["a", "!a", "in(a)", "in(a,b)", "in(a, b)", "!in(a,b)"])
def test_rays_label_selectors_are_accepted(term: str) -> None:
    selector = {"ray.io/zone": term}
    assert HubConfig(label_selector=selector).label_selector == selector


def test_a_child_is_named_once_in_a_hub() -> None:
    twice = [ChildSpec(child_id="a", cls=Counter), ChildSpec(child_id="a", cls=Counter)]
    assert "twice: a" in refusal(HubConfig, child_specs=twice).message


# --- Is it the same hub? ----------------------------------------------------------------------

# pydantic_core's JSON reader and Python's differ on surrogates, which no text file holds anyway.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | texts | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
child_ids = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
child_specs = st.builds(
    ChildSpec,
    child_id=child_ids,
    cls=st.sampled_from([Counter, Counter.Inner, "package.module:Class"]),
    args=st.lists(values, max_size=3),
    kwargs=st.dictionaries(texts, values, max_size=3),
    factor=st.none() | st.integers(1, 9) | st.just("cluster_size"),
    model=st.none() | st.sampled_from(Model),
    signal=st.none() | st.sampled_from(Signal),
)
configs = st.builds(
    HubConfig,
    hub_id=st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True),
    redundancy=st.just(Singularity()) | st.builds(Replication, factor=st.integers(1, 9)),
    child_specs=st.lists(child_specs, max_size=3, unique_by=lambda spec: spec.child_id),
    lease_duration_s=st.floats(3, 100),
    wire_ports=st.none() | st.just((4000, 4100)),
)


@given(configs)
def test_a_configuration_read_back_from_json_is_the_same_hub(config: HubConfig) -> None:
    read = HubConfig.model_validate_json(config.model_dump_json())
    assert config.differences(read) == []
    assert read.model_dump_json() == config.model_dump_json()


def test_a_cell_run_again_makes_no_difference() -> None:
    first, again = type("Cell", (), {}), type("Cell", (), {})
    mine = HubConfig(child_specs=[ChildSpec(child_id="a", cls=first, args=(object(),))])
    theirs = HubConfig(child_specs=[ChildSpec(child_id="a", cls=again, args=(object(),))])
    assert mine.differences(theirs) == []


def test_differences_are_told_in_words() -> None:
    mine = HubConfig(
        redundancy=Replication(factor=2),
        child_specs=[
            ChildSpec(child_id="a", cls=Counter, args=("secret1",)),
            ChildSpec(child_id="b", cls=Counter),
        ],
    )
    theirs = HubConfig(
        redundancy=Replication(factor=3),
        lease_duration_s=5,
        child_specs=[
            ChildSpec(child_id="a", cls=Counter.Inner, args=("secret2",)),
            ChildSpec(child_id="c", cls=Counter),
        ],
    )
    told = mine.differences(theirs)
    assert told == [
        "redundancy.factor is 2 in one and 3 in the other",
        f'child_specs.a.cls is "{HERE}" in one and "{HERE}.Inner" in the other',
        "child_specs.a.args differs",
        "the child 'b' is in one only",
        "the child 'c' is in the other only",
        "lease_duration_s is 3.0 in one and 5.0 in the other",
    ]
    assert "secret" not in "".join(told)


def test_an_argument_that_json_cannot_hold_is_told_by_its_type() -> None:
    loop: list[Any] = []
    loop.append(loop)
    spec = ChildSpec(child_id="a", cls=Counter, args=(object(), Counter, float("inf"), b"x", loop))
    args = json.loads(spec.model_dump_json())["args"]
    assert args[:4] == ["<builtins:object>", f"<class {HERE}>", "<inf>", "<builtins:bytes>"]


def test_settings_pickle() -> None:
    config = HubConfig(child_specs=[ChildSpec(child_id="a", cls=Counter, factor=3)])
    assert pickle.loads(pickle.dumps(config)) == config


# --- Children ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "child_id", ["", " ", "a#1", "a\n", "a\x00", "a" * 201, "\ud800", "a\u2028"]
)
def test_a_child_id_that_cannot_be_is_refused(child_id: str) -> None:
    assert refusal(ChildSpec, child_id=child_id, cls=Counter).field == "child_id"


@pytest.mark.parametrize("child_id", ["a", "ä/b c", "a" * 200, "日本", "user:17"])
def test_other_child_ids_are_accepted(child_id: str) -> None:
    assert ChildSpec(child_id=child_id, cls=Counter).child_id == child_id


def test_a_class_dumps_by_its_qualified_name() -> None:
    spec = ChildSpec(child_id="a", cls=Counter.Inner)
    assert spec.model_dump()["cls"] == f"{HERE}.Inner"
    assert spec.cls_name == qualified_name(f"{HERE}.Inner") == f"{HERE}.Inner"
    assert load_class(spec.cls_name) is Counter.Inner


@pytest.mark.parametrize("cls", ["Counter", ":Counter", "module:", 3, None, object()])
def test_what_is_no_class_is_refused(cls: object) -> None:
    assert refusal(ChildSpec, child_id="a", cls=cls).field == "cls"


def test_a_ray_actor_class_is_answered_with_the_plain_class() -> None:
    looks_like_one = type("ActorClass(Counter)", (), {"__module__": "ray.actor"})()
    assert "plain class" in refusal(ChildSpec, child_id="a", cls=looks_like_one).hint


@pytest.mark.parametrize("name", ["no_such_module:A", "os:NoSuch", "os:path", "os", f"{HERE}.No"])
def test_a_class_that_cannot_be_imported_is_refused(name: str) -> None:
    assert refusal(lambda: load_class(name)).field == "cls"


def test_arguments_are_a_tuple_and_never_the_letters_of_a_string() -> None:
    assert ChildSpec(child_id="a", cls=Counter, args=[None]).args == (None,)
    assert "('ab',)" in refusal(ChildSpec, child_id="a", cls=Counter, args="ab").message


def test_metadata_is_json() -> None:
    assert "metadata" in refusal(ChildSpec, child_id="a", cls=Counter, metadata={"a": {1}}).field


# --- Options ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(_OWNED_BY_RAPHUB))
def test_options_that_raphub_owns_are_refused_with_the_reason(name: str) -> None:
    error = refusal(ReplicatedOptions, **{name: 1})
    assert error.field == name
    assert _OWNED_BY_RAPHUB[name] in error.hint
    assert _OWNED_BY_RAPHUB[name] in refusal(ChildSpec, child_id="a", cls=Counter, **{name: 1}).hint


def test_every_option_of_ray_is_known_or_owned() -> None:
    """Ray's list is private, so it is looked at here and not in the code."""
    rays = pytest.importorskip("ray._common.ray_option_utils").actor_options
    elsewhere = {"get_if_exists"}  # An argument of `options(...)` beside these.
    private = {name for name in rays if name.startswith("_")}
    unknown_yet = {"enable_task_events", "enable_tensor_transport"}
    known = set(ReplicatedOptions.model_fields) | set(_OWNED_BY_RAPHUB)
    assert set(rays) - known - elsewhere - private <= unknown_yet


@pytest.mark.parametrize(
    ("field", "default", "other"),
    [
        ("max_restarts", None, 3),
    ],
)
def test_what_would_not_act_yet_is_refused(field: str, default: Any, other: Any) -> None:
    assert getattr(ReplicatedOptions(**{field: default}), field) == default
    error = refusal(ReplicatedOptions, **{field: other})
    assert error.field == field
    assert "does not act" in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_cpus", -1),
        ("memory", -1),
        ("resources", {"CPU": 1}),
        ("resources", {"GPU": 1}),
        ("resources", {"memory": 1}),
        ("resources", {"a": -1}),
        ("call_timeout_s", 0),
        ("lifetime", "forever"),
        ("spread", "wide"),
        ("zone_label", "a b"),
        ("signal", "some"),
        ("model", "leader"),
        ("state", "some"),
        ("acks", "all"),
        ("min_in_sync", 0),
        ("max_lag_writes", 0),
        ("start_grace_s", 0),
        ("on_data_loss", "weep"),
    ],
)
def test_an_option_that_cannot_be_is_refused(field: str, value: object) -> None:
    assert refusal(ReplicatedOptions, **{field: value}).field == field


def test_the_names_for_checkers_are_those_of_the_model() -> None:
    assert set(GivenOptions.__annotations__) == set(ReplicatedOptions.model_fields)


@pytest.mark.parametrize(
    ("choice", "enumeration"),
    [
        (settings.ModelChoice, Model),
        (settings.SignalChoice, Signal),
        (settings.SpreadChoice, Spread),
        (settings.DeathProofChoice, DeathProof),
    ],
)
def test_the_literals_for_checkers_are_the_enumerations(choice: Any, enumeration: Any) -> None:
    union = get_args(choice)[0]
    literal = next(part for part in get_args(union) if part is not enumeration)
    assert get_args(literal) == tuple(enumeration)


def test_choices_read_back_as_enumerations() -> None:
    options = ReplicatedOptions(model="active_active", signal="none", spread="strict")
    assert (options.model, options.signal, options.spread) == (
        Model.ACTIVE_ACTIVE,
        Signal.NONE,
        Spread.STRICT,
    )
    assert isinstance(options.model, Model)


def test_a_class_has_its_own_options_or_inherits_them() -> None:
    class Marked:
        __raphub_options__ = ReplicatedOptions(factor=3)

    class Derived(Marked):
        pass

    class Overriding(Marked):
        __raphub_options__ = ReplicatedOptions(factor=4)

    assert class_options(Marked).factor == class_options(Derived).factor == 3
    assert class_options(Overriding).factor == 4
    assert class_options(Counter) == ReplicatedOptions()


# --- The plan ---------------------------------------------------------------------------------


def test_defaults_come_from_the_hub() -> None:
    made = plan()
    assert made == ChildPlan(
        child_id="a",  # type: ignore[arg-type]
        factor=2,
        resources={"CPU": 0.0},
        state=State.SNAPSHOT,
        options=made.options,
        payload=b"bytes",
    )


@given(
    said_by_spec=st.booleans(),
    said_by_class=st.booleans(),
    hub=st.sampled_from([Replication(factor=7, model="active_active"), Singularity()]),
)
def test_spec_goes_before_class_goes_before_hub(
    said_by_spec: bool, said_by_class: bool, hub: Replication | Singularity
) -> None:
    spec = ChildSpec(child_id="a", cls=Counter, factor=5 if said_by_spec else None)
    options = ReplicatedOptions(factor=6 if said_by_class else None)
    made = plan(spec, HubConfig(redundancy=hub), options)
    of_hub = 7 if isinstance(hub, Replication) else 1
    assert made.factor == (5 if said_by_spec else 6 if said_by_class else of_hub)
    # What nobody but the hub speaks of is the hub's.
    of_hub_too = Model.ACTIVE_ACTIVE if isinstance(hub, Replication) else Model.ACTIVE_PASSIVE
    assert made.model is of_hub_too


def test_every_option_goes_before_those_below_it() -> None:
    above = ReplicatedOptions(num_cpus=0, factor="cluster_size", zone_label="rack")
    below = ReplicatedOptions(num_cpus=2, factor=3, num_gpus=1, call_timeout_s=4)
    assert above.over(below) == ReplicatedOptions(
        num_cpus=0, factor="cluster_size", zone_label="rack", num_gpus=1, call_timeout_s=4
    )


def test_one_copy_a_node_is_a_plan_without_factor() -> None:
    made = plan(ChildSpec(child_id="a", cls=Counter, factor="cluster_size"))
    assert made.factor is None
    assert StartedSpec.of(made).factor == "cluster_size"


def test_singularity_is_one_copy() -> None:
    made = plan(config=HubConfig(redundancy=Singularity()))
    assert (made.factor, made.model, made.signal) == (1, Model.ACTIVE_PASSIVE, Signal.ALL)


def test_resources_are_merged_under_rays_names() -> None:
    spec = ChildSpec(
        child_id="a", cls=Counter, num_cpus=0.5, num_gpus=1, memory=1000, resources={"disk": 2}
    )
    assert plan(spec).resources == {"CPU": 0.5, "GPU": 1, "memory": 1000, "disk": 2}


def test_a_child_lives_with_its_job_only_when_it_was_said() -> None:
    assert plan().job_id is None
    assert StartedSpec.of(plan()).lifetime == "detached"
    made = plan(options=ReplicatedOptions(lifetime="job"))
    assert made.job_id == "job1"
    assert StartedSpec.of(made).lifetime == "job"


def test_a_child_cannot_live_with_a_job_that_is_not_there() -> None:
    error = refusal(lambda: plan(options=ReplicatedOptions(lifetime="job"), job_id=None))
    assert error.field == "lifetime"


def test_what_was_started_can_be_shown_again_without_the_class() -> None:
    spec = ChildSpec(
        child_id="a",
        cls=Counter,
        args=("not shown",),
        factor=3,
        spread="strict",
        zone_label="zone",
        label_selector={"disk": "ssd"},
        num_cpus=2,
        call_timeout_s=4,
        runtime_env={"env_vars": {"TOKEN": "hidden"}, "pip": ["x"]},
        metadata={"tag": "t"},
    )
    shown = StartedSpec.of(plan(spec))
    assert shown == StartedSpec(
        child_id="a",
        cls=HERE,
        factor=3,
        model=Model.ACTIVE_PASSIVE,
        signal=Signal.ALL,
        state=State.SNAPSHOT,
        acks=Acks.IN_SYNC,
        min_in_sync=1,
        max_lag_writes=1000,
        start_grace_s=10,
        on_data_loss=OnDataLoss.STOP,
        spread=Spread.STRICT,
        zone_label="zone",
        lifetime="detached",
        resources={"CPU": 2},
        label_selector={"disk": "ssd"},
        call_timeout_s=4,
        runtime_env={"env_vars": {"TOKEN": "hidden"}, "pip": ["x"]},
        metadata={"tag": "t"},
    )
    told = shown.model_dump_json() + repr(shown)
    assert "not shown" not in told
    assert "hidden" not in told
    assert '"TOKEN":"***"' in told


def test_settings_need_no_ray() -> None:
    code = "import sys, raphub.spec, raphub.status; print('ray' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
