"""Does a map send few messages, keep the order, and hand every error over in its turn?"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from raphub.actors.calling import Mapped, Raised, read_call
from raphub.call import Call
from raphub.call_options import CallOptions
from raphub.errors import InvalidSetting
from raphub.mapping import BATCH_S, BATCH_SIZE_MAX, UNDER_WAY_MAX, BatchSize, mapped
from tests.unit.fake_ray import Copy, Ray, Ref, Told, replicated


class Doubling(Copy):
    """A copy that answers a map with twice each item, and raises what is an error itself."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[Any]] = []

    def remote(self, header: str, *args: object, method: str = "serve") -> Ref:
        ref = super().remote(header, *args, method=method)
        items = [item for (item,) in args[0]]  # type: ignore[attr-defined]
        self.batches.append(items)
        ref.comes_to(Mapped(tuple(_answer(item) for item in items)))
        return ref


def _answer(item: Any) -> object:
    return Raised(pickle.dumps(item), "story") if isinstance(item, Exception) else 2 * item


@pytest.fixture
def view(ray: Ray) -> Iterator[Told]:
    yield Told(replicated())
    Told.close_all()


@pytest.fixture
def copy(view: Told) -> Copy:
    copy = Doubling()
    view.tell(1, "a#1", copy1=copy)
    return copy


def over(
    view: Told, items: Any, batch_size: int | None = None, *, return_exceptions: bool = False
) -> Iterator[Any]:
    return mapped(
        lambda batch: Call(view, "a", "add", (batch,), {}, CallOptions(is_map=True)),
        items,
        BatchSize.of(batch_size),
        return_exceptions=return_exceptions,
    )


def test_results_come_in_order_and_batches_have_the_size_that_was_asked_for(
    view: Told, copy: Doubling
) -> None:
    assert list(over(view, range(7), 3)) == [0, 2, 4, 6, 8, 10, 12]
    assert copy.batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert all(read_call(line, ())[0].is_map for line in copy.lines)
    assert [read_call(line, ())[0].number for line in copy.lines] == [1, 2, 3]


def test_a_tuple_is_one_argument(view: Told, copy: Doubling) -> None:
    assert list(over(view, [(1, 2)])) == [(1, 2, 1, 2)]


def test_nothing_is_sent_before_it_is_asked_for_and_then_a_few_batches_ahead(
    view: Told, copy: Doubling
) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = over(view, items(), 10)
    assert copy.batches == []
    assert next(results) == 0
    assert len(taken) == 10 * UNDER_WAY_MAX
    assert [next(results) for _ in range(10)][-1] == 20
    assert len(taken) == 10 * (UNDER_WAY_MAX + 1)


def test_the_first_error_ends_it_after_the_results_before(view: Told, copy: Doubling) -> None:
    results = over(view, [1, ValueError("two"), 3], 3)
    assert next(results) == 2
    with pytest.raises(ValueError, match="two") as caught:
        next(results)
    assert caught.value.__notes__ == ["Raised in a:\nstory"]
    assert list(results) == []


def test_errors_may_be_had_as_results(view: Told, copy: Doubling) -> None:
    got = list(over(view, [1, ValueError("two"), 3], 2, return_exceptions=True))
    assert (got[0], got[2]) == (2, 6)
    assert isinstance(got[1], ValueError)


def test_what_the_iterable_raises_comes_after_the_results_of_what_it_gave(
    view: Told, copy: Doubling
) -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("the third")

    results = over(view, items(), 5)
    assert [next(results), next(results)] == [2, 4]
    with pytest.raises(KeyError):
        next(results)


def test_a_batch_follows_the_child_to_its_next_active(view: Told) -> None:
    view.tell(1, "a#1", copy1=Copy())
    results = over(view, range(3), 2)
    heir = Doubling()

    def go_on() -> Iterator[int]:
        yield 0
        yield 1
        view.tell(2, "a#2", copy2=heir)
        yield 2

    results = over(view, go_on(), 2)
    assert list(results) == [0, 2, 4]
    assert heir.batches == [[0, 1], [2]]


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "many"])
def test_a_wrong_size_is_refused_at_once(size: Any) -> None:
    with pytest.raises(InvalidSetting, match="batch_size"):
        BatchSize.of(size)


def test_batches_grow_to_what_takes_as_long_as_they_should() -> None:
    size = BatchSize.of(None)
    sizes = [size.size]
    for _ in range(12):
        size.took(size.size, size.size * BATCH_S / 100)
        sizes.append(size.size)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, *[100] * 6]
    for _ in range(12):
        size.took(size.size, 0.0)
    assert size.size == BATCH_SIZE_MAX
    size.took(1000, 1000 * BATCH_S)
    assert size.size == 1
    fixed = BatchSize.of(7)
    fixed.took(7, 100)
    assert fixed.size == 7
