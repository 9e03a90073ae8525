"""Do values survive, at what cost in copies, and do the other threads go on meanwhile?"""

from __future__ import annotations

import copyreg
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from raphub.actors.pickling import APART_BYTES_MIN, dump, dumps, loads
from raphub.errors import StateNotReplicable

GAP_S_MAX = 1.0
"""Measured: below 0.1. A machine under test may be slow, but seconds would be the bug."""

simple = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats()
values = st.recursive(
    simple,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=12,
)


class Block:
    """An array, as far as pickling is concerned: it hands out its memory and is built upon some."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Block, (pickle.PickleBuffer(self.memory),)


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


@given(values)
def test_values_survive(value: Any) -> None:
    assert repr(loads(dumps(value))) == repr(value)
    assert repr(loads([memoryview(bytearray(part)) for part in dumps(value)])) == repr(value)


def test_lambdas_and_local_classes_travel() -> None:
    class Local:
        def __init__(self) -> None:
            self.times = lambda number: number * factor

    factor = 3
    assert loads(dumps(Local())).times(2) == 6


def test_an_object_in_many_places_stays_one() -> None:
    plain = Plain(items=[])
    copy = loads(dumps([plain, plain, plain.__dict__["items"]]))
    assert copy[0] is copy[1]
    assert copy[0].items is copy[2]


def test_a_registered_reducer_is_used() -> None:
    class Registered(Plain):
        pass

    def reduced(one: Registered) -> tuple[Callable[..., Any], tuple[()], dict[str, Any]]:
        return Plain, (), {"was": one.__dict__["is_"]}

    copyreg.pickle(Registered, reduced)
    copies = loads(dumps([Registered(is_=1), Registered(is_=2)]))
    assert [vars(one) for one in copies] == [{"was": 1}, {"was": 2}]


def test_nothing_of_the_value_is_held() -> None:
    plain = Plain(block=Block(bytearray(10_000)), some=lambda: 1)
    held = weakref.ref(plain.__dict__["block"])
    gc.disable()
    try:
        dumps(plain)
        plain.__dict__.clear()
        assert held() is None
    finally:
        gc.enable()


def test_large_buffers_are_copied_once_and_built_upon() -> None:
    memory = bytearray(range(256)) * 20
    parts = dumps([Block(memory), "a"])
    assert len(parts) == 2
    assert len(parts[0]) < 200
    memory[0] = 99
    memory.append(1)  # nobody holds on to it
    copy = loads(parts)
    assert copy[0].memory[:2] == b"\x00\x01"
    copy[0].memory[0] = 7
    assert parts[1][0] == 7


@pytest.mark.parametrize("kind", [bytes, lambda part: memoryview(bytes(part))])
def test_a_buffer_that_cannot_be_written_to_is_copied(kind: Callable[[Any], Any]) -> None:
    parts = tuple(kind(part) for part in dumps(Block(bytearray(10_000))))
    copy = loads(parts)
    copy.memory[0] = 7
    assert parts[1][0] == 0


def test_small_buffers_stay_within() -> None:
    assert len(dumps(Block(bytearray(APART_BYTES_MIN - 1)))) == 1
    assert len(dumps(Block(bytearray(APART_BYTES_MIN)))) == 2


def test_read_only_memory_stays_read_only() -> None:
    parts = tuple(bytearray(part) for part in dumps(Block(bytes(10_000))))
    with pytest.raises(TypeError):
        loads(parts).memory[0] = 7


def test_a_buffer_of_many_steps_is_copied_whole() -> None:
    memory = bytearray(b"0123456789") * 2_000_000
    assert dumps(Block(memory))[1] == memory


def test_arrays_survive() -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [
        numpy.arange(10_000.0),
        numpy.arange(10_000).reshape(100, 100).T,
        numpy.arange(10_000)[::2],
        numpy.zeros(3),
        numpy.array(["2020-01-01"] * 1000, dtype="datetime64[D]"),
        numpy.array([{}, None], dtype=object),
        numpy.zeros((0, 5)),
    ]
    for array in arrays:
        copy = loads([bytearray(part) for part in dumps(array)])
        assert copy.flags.writeable
        assert copy.dtype == array.dtype
        numpy.testing.assert_array_equal(copy, array)


def test_an_object_ref_is_refused_wherever_it_is() -> None:
    ref: Any = ray.ObjectRef(b"1" * ray.ObjectRef.size())
    for value in (ref, [ref], Plain(ref=(1, {"a": ref})), lambda: ref):
        with pytest.raises(StateNotReplicable, match="ObjectRef") as told:
            dumps(value)
        assert "ray.get" in told.value.hint


def test_the_owner_is_replaced_by_the_copys() -> None:
    owner = Plain(lock=threading.Lock())
    other = Plain()
    parts = dump([owner, Plain(owner=owner), owner.__init__], owner=owner).copied()  # type: ignore[misc]
    copy = loads(parts, owner=other)
    assert copy[0] is other
    assert copy[1].owner is other
    assert copy[2].__self__ is other


def test_all_objects_on_the_way_are_told() -> None:
    items: list[Any] = [1, {"a": ["b"]}]
    plain = Plain(items=items)
    reached: list[object] = []
    dump((plain, "x"), reached=reached)
    ids = {id(one) for one in reached}
    assert {id(plain), id(items), id(items[1]), id(items[1]["a"])} <= ids


def test_whoever_fails_is_heard() -> None:
    class Bad:
        def __reduce__(self) -> tuple[Any, ...]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        dumps([Bad()])
    with pytest.raises(pickle.UnpicklingError):
        loads([b"garbage"])
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        loads([b"\x80\x05" + b"]" * 500_000])
    assert gc.isenabled()


def test_collection_stays_off_where_the_user_has_it_off() -> None:
    parts = dumps(["x" * 100 + str(number) for number in range(10_000)])
    gc.disable()
    try:
        loads(parts)
        assert not gc.isenabled()
    finally:
        gc.enable()
    loads(parts)
    assert gc.isenabled()


# --- the other threads ------------------------------------------------------------------------


@contextmanager
def ticking(*, is_busy: bool) -> Iterator[list[float]]:
    """The pauses between the ticks of another thread that wants to tick each 10 ms."""
    pauses: list[float] = []
    is_over = threading.Event()

    def tick() -> None:
        last = time.monotonic()
        while not is_over.wait(0.01):
            now = time.monotonic()
            pauses.append(now - last)
            last = now

    def work() -> None:
        while not is_over.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=tick), *[threading.Thread(target=work)] * is_busy]
    for thread in threads:
        thread.start()
    try:
        yield pauses
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("is_busy", [False, True])
def test_other_threads_go_on_while_100_mb_are_pickled(*, is_busy: bool) -> None:
    state = {str(number): f"{number:090}" for number in range(1_000_000)}
    with ticking(is_busy=is_busy) as pauses:
        parts = dumps(state)
        copy = loads(parts)
    assert sum(map(len, parts)) > 90_000_000
    assert len(copy) == len(state)
    assert len(pauses) > 5
    assert max(pauses) < GAP_S_MAX
