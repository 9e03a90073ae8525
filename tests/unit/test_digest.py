"""Is the digest equal for equal values in two processes, and for no others?"""

from __future__ import annotations

import collections
import copy
import datetime as dt
import functools
import math
import pathlib
import subprocess
import sys
import threading
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raphub.actors.digest import digest_of, state_digest
from raphub.actors.state_image import StateImage

simple = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats()
hashable = st.recursive(
    simple, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=6
)
values = st.recursive(
    hashable | st.sets(hashable),
    lambda inner: st.lists(inner) | st.dictionaries(hashable, inner) | st.tuples(inner, inner),
    max_leaves=6,
)


class Colour(Enum):
    RED = 1
    BLUE = 2


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a


@dataclass
class Data:
    a: Any
    b: Any = None


class Pair(collections.namedtuple("Pair", "a b")):  # noqa: PYI024 - the untyped kind, on purpose
    __slots__ = ()


class Many(list[int]):
    name = "many"


def around(value: Any) -> list[Any]:
    """The value, within itself."""
    held: list[Any] = [value]
    held.append(held)
    return held


SAMPLES: dict[str, Any] = {
    "none": None,
    "true": True,
    "int": 1,
    "negative": -1,
    "large": 2**63,
    "larger": 2**64,
    "float": 1.0,
    "zero": 0.0,
    "minus zero": -0.0,
    "nan": math.nan,
    "complex": 1j,
    "other complex": complex(-0.0, 1),
    "text": "a",
    "digits": "1",
    "surrogate": "\ud800",
    "long text": "a" * 1000,
    "bytes": b"a",
    "bytearray": bytearray(b"a"),
    "list": [1],
    "tuple": (1,),
    "nested": [[1], []],
    "nested otherwise": [[], [1]],
    "flat": [1, 2],
    "other order": [2, 1],
    "dict": {"a": 1, "b": 2},
    "dict in another order": {"b": 2, "a": 1},
    "set": {"a", "b", "c", "d"},
    "frozenset": frozenset({"a", "b", "c", "d"}),
    "set of tuples": {("a", frozenset({1})), ("b", frozenset({2}))},
    "range": range(3),
    "enum": Colour.RED,
    "other enum": Colour.BLUE,
    "object": Plain(a=1),
    "object with more": Plain(a=1, b=[2]),
    "slots": Slotted(1),
    "other slots": Slotted(2),
    "dataclass": Data(1),
    "named tuple": Pair(1, 2),
    "own list": Many([1]),
    "ordered": collections.OrderedDict(a=1),
    "default": collections.defaultdict(list, a=[1]),
    "default of another": collections.defaultdict(set, a=[1]),
    "deque": collections.deque([1, 2]),
    "bounded deque": collections.deque([1, 2], 5),
    "date": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    "duration": dt.timedelta(1),
    "decimal": Decimal("1.0"),
    "other decimal": Decimal("1.00"),
    "path": pathlib.PurePosixPath("a"),
    "class": Plain,
    "function": around,
    "built in": len,
    "bound": [1].append,
    "bound to another": [2].append,
    "partial": functools.partial(around, 1),
    "other partial": functools.partial(around, 2),
    "module": math,
    "error": ValueError("a", 1),
    "other error": ValueError("a", 2),
    "key error": KeyError("a", 1),
    "within itself": around(1),
    "another within itself": around(2),
    "lock": threading.Lock(),
}

PROGRAM = """
import pickle, sys
from raphub.actors.digest import digest_of
from tests.unit.test_digest import SAMPLES
sys.stdout.buffer.write(pickle.dumps({name: digest_of(value) for name, value in SAMPLES.items()}))
"""


def test_digests_are_equal_in_another_process() -> None:
    import pickle  # noqa: PLC0415 - to read what this test has written itself

    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        theirs = pickle.loads(done.stdout)
        assert theirs == {name: digest_of(value) for name, value in SAMPLES.items()}


def test_different_values_have_different_digests() -> None:
    names: dict[bytes, str] = {}
    for name, value in SAMPLES.items():
        assert len(digest_of(value)) == 16
        assert names.setdefault(digest_of(value), name) == name


@given(values)
def test_a_copy_has_the_same_digest(value: Any) -> None:
    assert digest_of(copy.deepcopy(value)) == digest_of(value)


@given(values, values)
def test_two_values_have_two_digests(one: Any, other: Any) -> None:
    if digest_of(one) == digest_of(other):
        assert repr(one) == repr(other) or one == other


@given(st.lists(hashable))
def test_the_order_in_a_set_does_not_count(items: list[Any]) -> None:
    assert digest_of(set(items)) == digest_of({*list(set(items))[::-1]})


@given(values, st.integers(0, 12))
def test_a_small_budget_gives_equal_digests_too(value: Any, budget: int) -> None:
    assert digest_of(copy.deepcopy(value), budget) == digest_of(value, budget)


def test_whether_parts_are_one_object_does_not_count() -> None:
    shared = ["a" * 1000, [1]]
    assert digest_of([shared, shared]) == digest_of([shared, copy.deepcopy(shared)])


def test_what_is_shared_again_and_again_is_read_once() -> None:
    value: Any = [1]
    for _ in range(100):
        value = [value, value]
    assert digest_of(value) == digest_of(copy.deepcopy(value))


def test_cycles_of_many_objects() -> None:
    def ring(*numbers: int) -> Plain:
        plains = [Plain(number=number) for number in numbers]
        for index, plain in enumerate(plains):
            plain.__dict__.update(next=plains[index - 1], all=plains)
        return plains[0]

    assert digest_of(ring(1, 2, 3)) == digest_of(ring(1, 2, 3))
    assert digest_of(ring(1, 2, 3)) != digest_of(ring(1, 2, 4))


def test_the_order_of_attributes_does_not_count() -> None:
    assert digest_of(Plain(a=1, b=2)) == digest_of(Plain(b=2, a=1))


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_however_deep_it_ends(depth: int) -> None:
    value: Any = []
    for _ in range(depth):
        value = [value]
    assert len(digest_of(value)) == 16
    while value:  # or Python itself would free it by recursion
        value = value[0]


def test_beyond_the_budget_only_the_outline_counts() -> None:
    assert digest_of([[1, 2], [3, 4]], budget=3) == digest_of([[1, 2], [3, 5]], budget=3)
    assert digest_of([[1, 2], [3, 4]], budget=3) != digest_of([[1, 2], [3]], budget=3)


def test_arrays_count_by_type_shape_and_bytes() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(12.0)
    grid = array.reshape(3, 4)
    assert digest_of(grid) == digest_of(numpy.asfortranarray(grid))
    assert digest_of(grid[:, ::2]) == digest_of(grid[:, ::2].copy())
    different = [array, grid, array.astype("f4"), array.astype("i8"), array + 1, numpy.zeros(0)]
    different += [
        numpy.zeros((0, 2)),
        numpy.array("2020", "M8[D]"),
        numpy.array(1),
        numpy.float64(1),
    ]
    different += [numpy.array([[1], {}], dtype=object), numpy.array([[2], {}], dtype=object)]
    assert len({digest_of(one) for one in different}) == len(different)
    assert digest_of(different[-1]) == digest_of(copy.deepcopy(different[-1]))


def test_the_state_has_a_digest() -> None:
    def made(first: str, second: str, lock: Any) -> tuple[Plain, StateImage]:
        plain = Plain(**{first: 1, second: 1}, lock=lock)
        plain.__dict__["me"] = plain
        return plain, StateImage(plain, {"lock"})

    one, other = made("a", "b", threading.Lock()), made("b", "a", None)
    assert state_digest(*one) == state_digest(*other)
    other[0].__dict__["a"] = 2
    assert state_digest(*one) != state_digest(*other)


def test_what_get_state_gives_has_a_digest() -> None:
    class Own(Plain):
        def get_state(self) -> Any:
            return self.__dict__["value"]

        def set_state(self, state: Any) -> None: ...

    one, other = Own(value={"a": 1}, more=1), Own(value={"a": 1}, more=2)
    assert state_digest(one, StateImage(one)) == state_digest(other, StateImage(other))
    other.__dict__["value"]["a"] = 2
    assert state_digest(one, StateImage(one)) != state_digest(other, StateImage(other))
