"""Is what a handle is asked for checked where it is asked, and told as it is?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from raphub import handle as handle_module
from raphub.core.model import Health
from raphub.errors import InvalidSetting
from raphub.handle import ChildHandle, StreamedMethod
from tests.unit.fake_ray import Copy, Ray, Told, replicated, separate


@pytest.fixture
def view(ray: Ray, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    view = Told(replicated())
    monkeypatch.setattr(handle_module, "view_of", lambda hub_id: view)
    yield view
    Told.close_all()


@pytest.fixture
def handle(view: Told) -> ChildHandle[Any]:
    return ChildHandle("hub", "a", call_timeout_s=7)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"read_from": "nowhere"}, "read_from"),
        ({"read_from": "any", "max_lag_writes": -1}, "max_lag_writes"),
        ({"read_from": "any", "max_lag_writes": 0.5}, "max_lag_writes"),
        ({"max_lag_writes": 3}, "max_lag_writes"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(
    handle: ChildHandle[Any], options: Any, field: str
) -> None:
    with pytest.raises(InvalidSetting) as caught:
        handle.get.options(**options)
    assert caught.value.field == field


def test_only_reads_may_go_to_passives_be_streamed_or_broadcast(
    handle: ChildHandle[Any], view: Told
) -> None:
    view.tell(1, "a#1", copy1=Copy(), copy2=Copy())
    for ask in (
        handle.add.options(read_from="any").remote,
        handle.add.options(read_from="passive").remote,
        handle.add.options(stream=True).remote,
        handle.all.add.remote,
    ):
        with pytest.raises(InvalidSetting, match="'add' is not marked") as caught:
            ask()
        assert "@raphub.read_only" in caught.value.hint
    assert set(handle.all.get.remote()) == {"a#1", "a#2"}


def test_where_copies_differ_reads_have_one_place_and_broadcasts_may_write(
    handle: ChildHandle[Any], view: Told
) -> None:
    view.plan = separate()
    view.tell(1, "a#1", copy1=Copy(), copy2=Copy())
    with pytest.raises(InvalidSetting, match='state="none"'):
        handle.get.options(read_from="any").remote()
    assert set(handle.all.add.remote()) == {"a#1", "a#2"}


def test_other_options_leave_the_childs_time_limit_as_it_is(handle: ChildHandle[Any]) -> None:
    assert handle.get.options(read_from="any")._options.timeout_s == 7
    assert handle.get.options(timeout_s=1)._options.timeout_s == 1
    assert isinstance(handle.get.options(stream=True), StreamedMethod)


def test_status_tells_who_is_in_sync_and_how_far_behind_copies_are(
    handle: ChildHandle[Any], view: Told
) -> None:
    view.tell(1, "a#1", copy1=Copy(), copy2=Copy(), seqs={"a#1": 9, "a#2": 4}, in_sync=("a#1",))
    status = handle.status()
    assert status.in_sync == ["a#1"]
    assert [(r.seq, r.lag) for r in status.replicas] == [(9, 0), (4, 5)]
    view.plan = separate()
    view.tell(1, "a#1", copy1=Copy(), copy2=Copy(), seqs={"a#1": 9, "a#2": 4}, in_sync=())
    assert handle.status().in_sync == ["a#1", "a#2"]
    assert [(r.seq, r.lag) for r in handle.status().replicas] == [(0, 0), (0, 0)]


def test_status_tells_that_the_state_is_lost(handle: ChildHandle[Any], view: Told) -> None:
    view.tell(1, None, Health.LOST)
    assert handle.status().health == "lost"
