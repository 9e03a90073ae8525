"""Does a copy that applies the captured changes have the same state, sharing included?"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Optional

import msgpack  # type: ignore[import-untyped]
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st

import raphub
from raphub.actors.attributes import local_names
from raphub.actors.change import Change, read
from raphub.actors.digest import state_digest
from raphub.actors.pickling import Buffer
from raphub.actors.state_image import StateImage, gives_own_state
from raphub.errors import StateNotReplicable

if TYPE_CHECKING:
    from threading import Lock


class Anything:
    """Attributes at will."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None:
        pass

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


def received(change: Change | None) -> Change:
    """The change, as it comes out of the wire."""
    assert change is not None
    return tuple(bytearray(part) for part in change)


def pair(**attributes: Any) -> tuple[Anything, StateImage, Anything, StateImage]:
    """An active, and a passive that has its state."""
    active, passive = Anything(**attributes), Anything()
    image, follower = StateImage(active), StateImage(passive)
    follower.apply([received(image.whole())])
    return active, image, passive, follower


def names_in(change: Change | None) -> list[tuple[str, ...]]:
    assert change is not None
    return [group.names for group in read(change).groups]


# --- what ships -------------------------------------------------------------------------------


def test_nothing_changed_nothing_ships() -> None:
    _, image, _, follower = pair(number=1, text="a", items=[1], nothing=None)
    assert image.capture() is None
    assert follower.capture() is None


def test_the_first_capture_ships_everything() -> None:
    image = StateImage(Anything(number=1, items=[1]))
    assert names_in(image.capture()) == [("number",), ("items",)]
    assert image.capture() is None


def test_only_what_changed_ships() -> None:
    active, image, passive, follower = pair(number=1, items=[1], others=[2])
    active.number = 2
    active.items.append(3)
    change = image.capture()
    assert names_in(change) == [("number",), ("items",)]
    follower.apply([received(change)])
    assert vars(passive) == {"number": 2, "items": [1, 3], "others": [2]}


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (1, 1.0), (0.0, -0.0), ("a", b"a"), (None, False), (0j, -0j), (2**80, 2**80 + 1)],
)
def test_simple_values_differ_by_type_and_bits(before: Any, after: Any) -> None:
    active, image, passive, follower = pair(value=before)
    active.value = after
    follower.apply([received(image.capture())])
    assert type(passive.value) is type(after)
    assert repr(passive.value) == repr(after)


def test_an_equal_value_does_not_ship() -> None:
    active, image, _, _ = pair(value=1000, text="abc")
    active.value = int("1000")
    active.text = "abcd"[:3]
    assert image.capture() is None


def test_a_deletion_ships() -> None:
    active, image, passive, follower = pair(number=1, items=[1], kept=2)
    del active.number, active.items
    follower.apply([received(image.capture())])
    assert vars(passive) == {"kept": 2}
    assert image.capture() is None


def test_a_simple_value_becomes_a_list_and_back() -> None:
    active, image, passive, follower = pair(value=1)
    for value in ([1], 1, [1]):
        active.value = value
        follower.apply([received(image.capture())])
        assert passive.value == value
        assert image.capture() is None
        assert follower.capture() is None


def test_a_change_is_a_copy() -> None:
    active, image, passive, follower = pair(items=[1], data=bytearray(10_000))
    active.items.append(2)
    active.data[0] = 1
    change = image.capture()
    active.items.append(3)
    active.data[0] = 2
    follower.apply([received(change)])
    assert passive.items == [1, 2]
    assert passive.data[0] == 1


class Block:
    """An array, as far as pickling is concerned."""

    def __init__(self, memory: bytearray) -> None:
        self.memory = memory

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Block, (pickle.PickleBuffer(self.memory),)


def test_large_buffers_ship_apart_and_only_when_they_changed() -> None:
    block = Block(bytearray(10_000))
    active, image, passive, follower = pair(block=block, same=[block], other=Block(bytearray(5000)))
    assert passive.same[0] is passive.block
    assert image.capture() is None
    active.block.memory[5000] = 7
    change = image.capture()
    assert change is not None
    assert names_in(change) == [("block", "same")]
    assert [len(part) for part in change[2:]] == [10_000]
    block.memory += b"more"  # the image holds on to nothing
    arrived = received(change)
    follower.apply([arrived])
    assert passive.block.memory[5000] == 7
    assert len(passive.block.memory) == 10_000
    passive.block.memory[0] = 9
    assert arrived[2][0] == 9  # built upon what arrived


def test_arrays_are_followed() -> None:
    numpy = pytest.importorskip("numpy")
    shared = numpy.zeros(1000)
    active, image, passive, follower = pair(one=shared, two={"in": shared}, three=numpy.zeros(1000))
    assert passive.two["in"] is passive.one
    assert image.capture() is None
    assert follower.capture() is None
    active.one[500] = 1
    change = image.capture()
    assert names_in(change) == [("one", "two")]
    follower.apply([received(change)])
    numpy.testing.assert_array_equal(passive.two["in"], active.one)
    passive.one[0] = 5
    assert names_in(follower.capture()) == [("one", "two")]


def test_slots_are_attributes() -> None:
    class Slotted:
        __slots__ = ("__hidden", "items", "number")

        def __init__(self) -> None:
            self.number = 1
            self.items: list[int] = []
            self.__hidden = "a"

        def hidden(self) -> str:
            return self.__hidden

    class WithBoth(Slotted):
        __slots__ = ("__dict__", "more")

    active, passive = WithBoth(), WithBoth()
    active.more = active.other = [1]  # type: ignore[attr-defined]
    image, follower = StateImage(active), StateImage(passive)
    follower.apply([received(image.whole())])
    assert (passive.number, passive.items, passive.hidden()) == (1, [], "a")
    assert passive.more is passive.other  # type: ignore[attr-defined]
    del active.number
    active.items.append(2)
    follower.apply([received(image.capture())])
    assert passive.items == [2]
    assert not hasattr(passive, "number")


def test_a_frozen_dataclass_follows() -> None:
    @dataclass(frozen=True)
    class Frozen:
        items: list[int]

    active, passive = Frozen([1]), Frozen([])
    StateImage(passive).apply([received(StateImage(active).whole())])
    assert passive == active


# --- what is shared ---------------------------------------------------------------------------


def test_shared_lists_stay_shared() -> None:
    shared = [1]
    active, image, passive, follower = pair(first=shared, second={"in": (shared,)}, third=[1])
    assert passive.first is passive.second["in"][0]
    active.first.append(2)
    change = image.capture()
    assert names_in(change) == [("first", "second")]
    follower.apply([received(change)])
    assert passive.first is passive.second["in"][0]
    assert passive.first == [1, 2]


def test_lists_come_together_and_part() -> None:
    active, image, passive, follower = pair(first=[1], second=[1])
    active.second = active.first
    change = image.capture()
    assert names_in(change) == [("first", "second")]
    follower.apply([received(change)])
    assert passive.first is passive.second
    active.second = list(active.first)
    change = image.capture()
    assert names_in(change) == [("first",), ("second",)]
    follower.apply([received(change)])
    assert passive.first == passive.second
    assert passive.first is not passive.second
    assert image.capture() is None
    assert follower.capture() is None


def test_one_of_those_that_share_is_deleted() -> None:
    shared = [1]
    active, image, passive, follower = pair(first=shared, second=shared)
    del active.second
    active.first.append(2)
    follower.apply([received(image.capture())])
    assert vars(passive) == {"first": [1, 2]}


def test_one_of_those_that_share_becomes_a_number() -> None:
    shared = [1]
    active, image, passive, follower = pair(first=shared, second=shared)
    active.second = 2
    follower.apply([received(image.capture())])
    assert vars(passive) == {"first": [1], "second": 2}
    assert follower.capture() is None


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize("value", [Colour.RED, Anything, len, "text", (1, "a"), 2**100])
def test_what_cannot_change_is_not_shared(value: Any) -> None:
    image = StateImage(Anything(first=[value], second=[value]))
    assert names_in(image.capture()) == [("first",), ("second",)]


def test_a_group_that_grew_large_is_known_by_its_digest() -> None:
    active, image, passive, follower = pair(items=["x" * 100] * 2, other=[1])
    active.items.extend(str(number) * 10 for number in range(1000))
    change = image.capture()
    assert change is not None
    assert len(change) == 2
    follower.apply([received(change)])
    assert passive.items == active.items
    assert image.capture() is None
    active.items[-1] = ""
    follower.apply([received(image.capture())])
    assert passive.items == active.items


def test_an_attribute_refers_back_to_the_object() -> None:
    active = Anything(number=1, lock=threading.Lock())
    active.child = Anything(parent=active)
    active.calls = [active.method]
    passive = Anything(lock=None)
    image = StateImage(active, {"lock"})
    change = image.whole()
    assert ("child",) in names_in(change)
    StateImage(passive, {"lock"}).apply([received(change)])
    assert passive.child.parent is passive
    assert passive.calls[0].__self__ is passive
    assert passive.lock is None


@dataclass(eq=False)
class Node:
    items: list[Any]
    link: Any = None


NAMES = ("a", "b", "c", "d")


def described(target: object) -> Any:
    """The structure with identity: each object that can change has a number."""
    numbers: dict[int, int] = {}

    def describe(value: Any) -> Any:
        if isinstance(value, tuple):
            return ("tuple", *map(describe, value))
        if not isinstance(value, (list, dict, Node, Anything)):
            return (type(value).__name__, value)
        if id(value) in numbers:
            return ("again", numbers[id(value)])
        numbers[id(value)] = len(numbers)
        if isinstance(value, list):
            return ("list", *map(describe, value))
        inner = value if isinstance(value, dict) else vars(value)
        return (
            type(value).__name__,
            *((key, describe(part)) for key, part in sorted(inner.items())),
        )

    return describe(target)


class Writer:
    """Changes an object at random, as its methods would."""

    def __init__(self, target: Anything, choose: Callable[[int], int]) -> None:
        self.target = target
        self.choose = choose

    def step(self) -> None:
        name = NAMES[self.choose(len(NAMES))]
        steps: list[Callable[[str], None]] = [self.bind, self.bind, self.mutate, self.mutate]
        [*steps, self.mutate, self.delete][self.choose(6)](name)

    def bind(self, name: str) -> None:
        setattr(self.target, name, self.value())

    def delete(self, name: str) -> None:
        vars(self.target).pop(name, None)

    def mutate(self, name: str) -> None:
        found = self.some_inside(getattr(self.target, name, None))
        value = self.value()
        match found:
            case list() if found and self.choose(3) == 0:
                found.pop()
            case list():
                found.append(value)
            case dict() if found and self.choose(3) == 0:
                found.pop(next(iter(found)))
            case dict():
                found[NAMES[self.choose(len(NAMES))]] = value
            case Node():
                found.link = value

    def value(self) -> Any:
        makers: list[Callable[[], Any]] = [
            lambda: self.choose(3),
            lambda: "xyz"[self.choose(3)] * 3,
            list,
            dict,
            lambda: Node([]),
            lambda: self.target,
            self.existing,
            self.existing,
            lambda: (self.existing(), self.choose(2)),
            lambda: [self.existing()],
            lambda: ["long" * 2000],
        ]
        return makers[self.choose(len(makers))]()

    def existing(self) -> Any:
        return self.some_inside(getattr(self.target, NAMES[self.choose(len(NAMES))], None))

    def some_inside(self, value: Any) -> Any:
        for _ in range(self.choose(4)):
            match value:
                case list() | tuple() if value:
                    value = value[self.choose(len(value))]
                case dict() if value:
                    value = list(value.values())[self.choose(len(value))]
                case Node():
                    value = value.link if value.link is not None else value.items
        return value


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_whatever_is_written_the_copy_follows(data: st.DataObject) -> None:
    def choose(count: int) -> int:
        return data.draw(st.integers(0, count - 1))

    active, passive = Anything(), Anything(a=[1], stale=2)
    image, follower = StateImage(active), StateImage(passive)
    writer = Writer(active, choose)
    waiting = [received(image.whole())]
    for _ in range(choose(12)):
        for _ in range(choose(4)):
            writer.step()
        change = image.capture()
        assert image.capture() is None
        if change is not None:
            waiting.append(received(change))
        if choose(10) == 0:
            waiting.append(received(image.whole()))
        if choose(3):
            follower.apply(waiting)
            waiting = []
            assert described(passive) == described(active)
            assert state_digest(passive, follower) == state_digest(active, image)
    follower.apply(waiting)
    assert described(passive) == described(active)
    assert follower.capture() is None
    if choose(2):  # the copy is promoted, and the old active follows
        Writer(passive, choose).step()
        change = follower.capture()
        image.apply([] if change is None else [received(change)])
        assert described(passive) == described(active)


# --- classes that no module has ---------------------------------------------------------------

SCRIPT = """
import pickle, sys
from raphub.actors.state_image import StateImage

class Item:
    def __init__(self, price):
        self.price = price
    def doubled(self):
        return 2 * self.price

class Shop:
    def __init__(self):
        self.items = [Item(1)]
        self.best = [Item(2)]

shop = Shop()
image = StateImage(shop)
changes = [image.whole()]
shop.items.append(Item(3))
changes.append(image.capture())
shop.items, shop.best = [], []
changes.append(image.capture())
late = image.whole()
shop.items.append(Item(4))
changes.append(image.capture())
sys.stdout.buffer.write(pickle.dumps((changes, late)))
"""


def test_a_class_of_a_script_is_defined_once_for_each_copy() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    changes, late = pickle.loads(done.stdout)
    defined = [len(read(change).classes) for change in changes]
    assert defined == [1, 0, 0, 1]  # a copy that began with `late` does not know it
    assert read(late).classes == ()
    passive, skipping, lately = Anything(), Anything(), Anything()
    follower = StateImage(passive)
    for change in changes[:2]:
        follower.apply([received(change)])
    assert [item.doubled() for item in passive.items] == [2, 6]
    assert type(passive.items[0]) is type(passive.best[0])
    assert follower.capture() is None
    StateImage(skipping).apply(list(map(received, changes)))
    StateImage(lately).apply([received(late), received(changes[-1])])
    assert skipping.items[0].doubled() == lately.items[0].doubled() == 8


def test_a_copy_that_is_promoted_defines_no_class_again() -> None:
    class Item:
        pass

    active, image, passive, follower = pair(items=[Item()])
    passive.items.append(Item())
    change = follower.capture()
    assert change is not None
    assert read(change).classes == ()
    assert names_in(change) == [("items",)]
    image.apply([received(change)])
    assert len(active.items) == 2


def test_a_class_that_cannot_be_copied_is_named() -> None:
    class Item:
        lock = threading.Lock()

    with pytest.raises(
        StateNotReplicable, match=r"class .*Item.*Item\.lock \(_thread.lock\)"
    ) as told:
        StateImage(Anything(items=[Item()])).capture()
    assert "module" in told.value.hint


# --- several changes at once ------------------------------------------------------------------


class CountsLoads:
    loads: ClassVar[int] = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, Any]) -> None:
        CountsLoads.loads += 1
        self.__dict__.update(state)


def test_only_the_newest_of_each_attribute_is_unpickled() -> None:
    active, image, passive, follower = pair(value=None, other=0)
    changes = []
    for number in range(5):
        active.value = CountsLoads(number)
        active.other = number
        changes.append(received(image.capture()))
    CountsLoads.loads = 0
    follower.apply(changes)
    assert passive.value.number == 4
    assert passive.other == 4
    assert CountsLoads.loads == 1


def test_deleted_and_set_again() -> None:
    active, image, passive, follower = pair(value=[1])
    changes = []
    del active.value
    changes.append(received(image.capture()))
    active.value = [1]
    changes.append(received(image.capture()))
    follower.apply(changes)
    assert passive.value == [1]
    del active.value
    follower.apply([received(image.capture())])
    assert not hasattr(passive, "value")


def test_a_whole_change_deletes_what_it_does_not_hold() -> None:
    active, image, passive, follower = pair(value=[1], other=2)
    passive.extra = 3
    del active.other
    active.value.append(2)
    image.capture()
    follower.apply([received(image.whole())])
    assert vars(passive) == {"value": [1, 2]}


def test_only_the_last_whole_change_counts() -> None:
    active, image, passive, follower = pair()
    active.value = 1
    first = received(image.whole())
    del active.value
    follower.apply([first, received(image.whole())])
    assert vars(passive) == {}


def test_a_whole_change_says_nothing_of_what_the_sender_keeps() -> None:
    active, passive = Anything(conn=None, value=1), Anything(conn=[1], value=1)
    follower = StateImage(passive)
    follower.capture()
    follower.apply([received(StateImage(active, {"conn"}).whole())])
    assert vars(passive) == {"conn": [1], "value": 1}
    assert names_in(follower.capture()) == [("conn",)]


def test_a_failing_apply_leaves_all_as_it_was() -> None:
    active, image, passive, follower = pair(first=1, second=[2])
    active.first, active.second = 10, [20]
    change = image.capture()
    assert change is not None
    head = msgpack.unpackb(change[0])
    head[3][1][1] = b"no pickle"
    with pytest.raises(Exception, match=r"."):
        follower.apply([(msgpack.packb(head),)])
    assert vars(passive) == {"first": 1, "second": [2]}
    assert follower.capture() is None
    follower.apply([received(change)])
    assert vars(passive) == {"first": 10, "second": [20]}


# --- local attributes -------------------------------------------------------------------------


class Marked:
    lock: raphub.Local[Lock]
    mode: "raphub.Local[Mode] | None"  # type: ignore[name-defined] # noqa: F821, UP037 - a name that only type checkers know
    maybe: Optional[raphub.Local[int]]  # noqa: UP045 - the older way to write it
    of_class: ClassVar[raphub.Local[int]]
    plain: int
    unknown: "Unknown[int]"  # type: ignore[name-defined] # noqa: F821, UP037
    nested: dict[str, raphub.Local[int]]


class Derived(Marked):
    more: raphub.Local[str]


def test_local_attributes_are_found_in_the_annotations() -> None:
    assert local_names(Derived) == {"lock", "mode", "maybe", "of_class", "more"}


def test_local_attributes_are_neither_shipped_nor_touched() -> None:
    active, passive = Anything(lock=threading.Lock(), value=1), Anything(lock=None, value=0)
    image, follower = StateImage(active, {"lock"}), StateImage(passive, {"lock"})
    follower.apply([received(image.whole())])
    assert vars(passive) == {"lock": None, "value": 1}
    active.lock = threading.Lock()
    assert image.capture() is None


def test_a_local_attribute_is_not_touched_though_a_change_holds_it() -> None:
    active = Anything(value=1, other=[1])
    image = StateImage(active)
    passive = Anything(value=0)
    StateImage(passive, {"value"}).apply([received(image.whole())])
    assert vars(passive) == {"value": 0, "other": [1]}
    active.__dict__.clear()
    StateImage(passive, {"value"}).apply([received(image.capture())])
    assert vars(passive) == {"value": 0}


def test_what_the_callback_binds_is_local() -> None:
    active, image, passive, follower = pair(mode="passive", conn=None, kept=[1], gone=1)
    image.before_callback()
    active.mode = "active"
    active.conn = threading.Lock()
    active.new = threading.Lock()
    active.kept.append(2)
    del active.gone
    assert image.after_callback() == {"mode", "conn", "new", "gone"}
    assert image.local == {"mode", "conn", "new", "gone"}
    change = image.capture()
    assert names_in(change) == [("kept",)]
    follower.apply([received(change)])
    assert vars(passive) == {"mode": "passive", "conn": None, "kept": [1, 2], "gone": 1}
    follower.apply([received(image.whole())])
    assert vars(passive) == {"mode": "passive", "conn": None, "kept": [1, 2], "gone": 1}


def test_one_of_those_that_share_becomes_local() -> None:
    shared = [1]
    active, image, passive, follower = pair(first=shared, second=shared)
    image.before_callback()
    active.second = [2]
    image.after_callback()
    follower.apply([received(image.capture())])
    assert vars(passive) == {"first": [1], "second": [1]}
    assert image.capture() is None
    assert follower.capture() is not None  # it is not certain what others have as `second`


def test_one_of_those_that_share_becomes_local_and_the_copy_lags() -> None:
    shared = [1]
    active = Anything(first=shared, second=shared)
    image = StateImage(active)
    changes = [received(image.whole())]
    image.before_callback()
    active.second = [2]
    image.after_callback()
    active.first.append(3)
    changes.append(received(image.capture()))
    passive = Anything()
    StateImage(passive).apply(changes)
    assert vars(passive) == {"first": [1, 3], "second": [1]}


# --- get_state and set_state ------------------------------------------------------------------


class OwnState:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.items: list[int] = []
        self.sets = 0

    def get_state(self) -> list[int]:
        return self.items

    def set_state(self, state: list[int]) -> None:
        self.items = state
        self.sets += 1


def test_get_state_and_set_state_replace_the_attributes() -> None:
    active, passive = OwnState(), OwnState()
    image, follower = StateImage(active), StateImage(passive)
    follower.apply([received(image.whole())])
    changes = []
    for number in range(3):
        active.items.append(number)
        changes.append(received(image.capture()))
        assert image.capture() is None
    follower.apply(changes)
    assert passive.items == [0, 1, 2]
    assert passive.sets == 2
    assert follower.capture() is None
    assert image.state() == [0, 1, 2]


def test_one_of_the_two_is_refused() -> None:
    class OnlyGet:
        def get_state(self) -> int:
            return 1

    class OnlySet:
        def set_state(self, state: int) -> None:
            pass

    with pytest.raises(StateNotReplicable, match="no set_state"):
        StateImage(OnlyGet())
    with pytest.raises(StateNotReplicable, match="no get_state"):
        gives_own_state(OnlySet)


def test_a_coroutine_is_refused() -> None:
    class Asynchronous:
        async def get_state(self) -> int:
            return 1

        async def set_state(self, state: int) -> None:
            pass

    with pytest.raises(StateNotReplicable, match="coroutine"):
        StateImage(Asynchronous())


def test_a_dict_with_attributes_is_refused() -> None:
    class Store(dict[str, int]):
        pass

    with pytest.raises(StateNotReplicable, match="derives from dict"):
        StateImage(Store())


def test_the_two_kinds_of_change_are_told_apart() -> None:
    own = received(StateImage(OwnState()).whole())
    attributes = received(StateImage(Anything(value=1)).whole())
    with pytest.raises(ValueError, match="not attributes"):
        StateImage(Anything()).apply([own])
    with pytest.raises(ValueError, match="get_state"):
        StateImage(OwnState()).apply([attributes])


# --- what cannot be shipped -------------------------------------------------------------------


def test_an_error_names_the_attribute_and_the_way_out() -> None:
    active, image, passive, follower = pair(value=1, items=[1], deep={"a": [0, None]})
    active.value = 2
    active.items.append(2)
    active.deep["a"][1] = Anything(lock=threading.Lock())
    with pytest.raises(StateNotReplicable) as told:
        image.capture()
    assert "'deep'" in told.value.message
    assert "self.deep['a'][1].lock (_thread.lock)" in told.value.message
    assert "deep: raphub.Local[...]" in told.value.hint
    active.deep["a"][1] = 5
    follower.apply([received(image.capture())])
    assert vars(passive) == vars(active)


def test_a_failing_whole_leaves_the_image_as_it_was() -> None:
    active, image, _, _ = pair(value=1, items=[1])
    active.lock = threading.Lock()
    with pytest.raises(StateNotReplicable, match="lock"):
        image.whole()
    del active.lock
    assert image.capture() is None


def test_an_object_ref_is_refused() -> None:
    ref: Any = ray.ObjectRef(b"1" * ray.ObjectRef.size())
    with pytest.raises(StateNotReplicable, match=r"self.items\[1\].*ObjectRef") as told:
        StateImage(Anything(items=[1, ref])).capture()
    assert "ray.get" in told.value.hint


def test_what_get_state_gave_is_named() -> None:
    own = OwnState()
    own.items.append(threading.Lock())  # type: ignore[arg-type]
    with pytest.raises(StateNotReplicable, match=r"OwnState.get_state.*state\[0\]"):
        StateImage(own).capture()


# --- garbage ----------------------------------------------------------------------------------

HEADS: list[Any] = [
    None,
    [],
    [1, None, [], []],
    [2, None, [], [], []],
    [1, None, [], [[["a"], b"x", 1, []]], []],
    [1, None, [], [[["a"], b"", 0, []]], []],
    [1, None, [], [[["a"], b"x" * 16, -1, []]], []],
    [1, None, [], [[["a"], b"x", 0, 1]], []],
    [1, None, [], [[["a"], b"x", 0]], []],
    [1, None, [], [[[1], b"x", 0, []]], []],
    [1, None, [], [], [[["a", "b"], b"x", 0, []]]],
    [1, None, [], [], [[["a"], b"I1\n.", 0, []]]],
    [1, None, [], 5, []],
    [1, None, [], [], 5],
    [1, None, 5, [], []],
    [1, 5, [], [], []],
]


@pytest.mark.parametrize("head", [b"", b"\xc1", b"abc", *map(msgpack.packb, HEADS)])
def test_garbage_is_no_change(head: bytes) -> None:
    with pytest.raises(ValueError, match="change of a state"):
        StateImage(Anything()).apply([(head,)])


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_random_bytes_are_no_change(parts: list[Buffer]) -> None:
    with contextlib.suppress(ValueError):
        read(parts)


def test_missing_parts_are_noticed() -> None:
    change = StateImage(Anything(items=["x" * 10_000])).whole()
    assert len(change) == 2
    for parts in (change[:1], (*change, b"")):
        with pytest.raises(ValueError, match="parts"):
            StateImage(Anything()).apply([parts])
