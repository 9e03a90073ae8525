"""Do the values of a stream come one by one, and does it end as it should?"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from raphub import stream as stream_module
from raphub.actors.calling import Header, Raised, Refused, Withheld, read_call
from raphub.call_options import CallOptions
from raphub.errors import CallOutcomeUnknown, CallTimeout, ChildNotFound, InvalidSetting
from raphub.stream import Stream
from tests.unit.fake_ray import Copy, Told, replicated


class Streams(Copy):
    """A copy that streams: each request gets the next of these lists of values."""

    def __init__(self, *streams: list[Any]) -> None:
        super().__init__()
        self.headers: list[Header] = []
        self._streams = list(streams)

    @property
    def stream(self) -> SimpleNamespace:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._begin))

    def _begin(self, header: str, *args: object) -> Refs:
        self.headers.append(read_call(header, ())[0])
        return Refs(self._streams.pop(0))


class Refs:
    """Ray's generator of references; here a value is its own reference. None is not there yet."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __next__(self) -> Any:
        if not self.values:
            raise StopIteration
        return self.values.pop(0)


class Ray:
    def wait(
        self, refs: list[Refs], *, num_returns: int, timeout: float
    ) -> tuple[list[Refs], list[Refs]]:
        is_there = not refs[0].values or refs[0].values[0] is not None
        return (refs, []) if is_there else ([], refs)

    def get(self, value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    monkeypatch.setattr(stream_module, "ray", Ray())
    monkeypatch.setattr(stream_module, "LOOK_AGAIN_S", 0.001)
    yield Told(replicated())
    Told.close_all()


def streamed(view: Told, method: str = "rows", **options: Any) -> Stream:
    return Stream(view, "a", method, (), {}, CallOptions(**options))


def test_values_come_in_order_by_for_and_by_async_for(view: Told) -> None:
    view.tell(1, "a#1", copy1=Streams([1, 2, 3], [4, 5]))
    stream = streamed(view)
    assert list(stream) == [1, 2, 3]
    assert list(stream) == []

    async def go() -> list[int]:
        return [value async for value in streamed(view)]

    assert asyncio.run(go()) == [4, 5]


def test_it_waits_for_a_copy_that_serves(view: Told) -> None:
    view.tell(1, None)
    stream = streamed(view, timeout_s=0.01)
    with pytest.raises(CallTimeout, match="no value within"):
        next(stream)
    view.tell(2, "a#1", copy1=Streams([7]))
    assert next(stream) == 7


@pytest.mark.parametrize("end", [ActorDiedError(), Refused("not_active"), Withheld("lease")])
def test_before_its_first_value_it_follows_the_child(view: Told, end: object) -> None:
    view.tell(1, "a#1", copy1=(copy := Streams([end], [end], [1])))
    assert list(streamed(view)) == [1]
    assert len(copy.headers) == 3


def test_a_copy_that_serves_no_more_is_not_waited_for(view: Told) -> None:
    view.tell(1, "a#1", copy1=Streams([None]))
    stream = streamed(view)
    view.tell(2, "a#2", copy2=Streams([1]))
    assert next(stream) == 1


@pytest.mark.parametrize("end", [ActorDiedError(), Withheld("lease")])
def test_after_a_value_a_lost_copy_ends_it(view: Told, end: object) -> None:
    view.tell(1, "a#1", copy1=Streams([1, 2, end]))
    stream = streamed(view)
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(CallOutcomeUnknown, match="after 2 values") as caught:
        next(stream)
    assert "begins anew" in caught.value.hint
    assert list(stream) == []


def test_what_the_method_raises_is_raised_in_its_turn(view: Told) -> None:
    raised = Raised(pickle.dumps(ValueError("no")), "story")
    view.tell(1, "a#1", copy1=Streams([1, raised]))
    stream = streamed(view)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="no"):
        next(stream)
    assert list(stream) == []


def test_it_goes_to_a_passive_if_asked_to_and_then_to_the_active(view: Told) -> None:
    active, passive = Streams([1]), Streams([2], [Refused("lags")])
    view.tell(1, "a#1", copy1=active, copy2=passive)
    assert list(streamed(view, read_from="passive", max_lag_writes=3)) == [2]
    assert passive.headers[0].max_lag_writes == 3
    assert list(streamed(view, read_from="passive")) == [1]


def test_a_closed_stream_is_over(view: Told) -> None:
    view.tell(1, "a#1", copy1=Streams([1, 2]))
    stream = streamed(view)
    assert next(stream) == 1
    stream.close()
    assert list(stream) == []


def test_what_may_write_cannot_be_streamed(view: Told) -> None:
    view.tell(1, "a#1", copy1=Streams())
    with pytest.raises(InvalidSetting, match="add") as caught:
        streamed(view, "add")
    assert "@raphub.read_only" in caught.value.hint


def test_a_child_that_is_gone_has_no_values(view: Told) -> None:
    view.tell(1, None)
    stream = streamed(view)
    view.tell_gone()
    with pytest.raises(ChildNotFound):
        next(stream)
