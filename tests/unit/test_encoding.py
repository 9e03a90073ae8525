"""Does every value that travels come back the same, and large data without a copy?"""

from __future__ import annotations

import sys
import threading
from array import array
from pickle import PickleBuffer

import pytest

from raphub.actors import encoding
from raphub.actors.encoding import (
    APART_BYTES_MIN,
    BadBytesError,
    Outside,
    pack,
    pack_apart,
    unpack,
)
from raphub.core.messages import FromHub, LeaseGranted, RoleTaken, StepDown, TakeRole, Ticked
from raphub.core.model import NodeId, Role
from raphub.core.records import RequestId, RequestOpened, Trouble

TROUBLE = Trouble("a", "kind", "reason")

VALUES = {
    "no field": Ticked(),
    "one field": StepDown(7),
    "an enum": TakeRole(Role.PASSIVE, 3),
    "an enum and text": RoleTaken(Role.ACTIVE, 3, "trouble"),
    "one in another": FromHub(3, LeaseGranted(2, 1.5)),
    "several in tuples": RequestOpened(
        RequestId("me", 1),
        ("a",),
        troubles=(TROUBLE, TROUBLE, Trouble("b", "kind", "", NodeId("n"))),
    ),
    "tuples in tuples": ((), ((1, 2), ((),)), b"bytes"),
    "an empty dict": {},
    "dataclasses in a dict": {"a": TROUBLE, "b": (TROUBLE,)},
    "numbers and tuples as keys": {1: "a", ("me", 2): {0: None}},
    "one as the only key": {1: ("Ticked",)},
    "true in a dict of two": {True: 1, False: 2},
    "nothing": None,
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_value_comes_back_the_same(value: object) -> None:
    back = unpack(pack(value))
    assert back == value
    assert type(back) is type(value)
    assert unpack(memoryview(pack(value))) == value


def test_every_class_that_travels_has_a_name_of_its_own() -> None:
    assert encoding._CLASSES["LeaseGranted"] is LeaseGranted
    assert len(encoding._WRITERS) == len(encoding._READERS) == len(encoding._CLASSES)


def test_large_data___apart_and_not_copied_and_small_data_within() -> None:
    large, small = bytearray(APART_BYTES_MIN), bytearray(b"x" * (APART_BYTES_MIN - 1))
    packed, apart = pack_apart(FromHub(1, {"a": Outside(large), "b": (Outside(small), 5)}))  # type: ignore[arg-type]
    [buffer] = apart
    assert buffer.obj is large
    assert len(packed) < len(small) + 100
    received = bytearray(large)
    back = unpack(packed, [received])
    assert back == FromHub(1, {"a": large, "b": (small, 5)})  # type: ignore[arg-type]
    assert back.message["a"] is received
    back.message["b"][0][0] = 0  # What came within can be written to as well.


def test_large_data_where_nothing_goes_apart___within() -> None:
    large = bytes(range(256)) * 100
    assert unpack(pack((Outside(large),))) == (large,)


def test_data_of_other_shapes___its_bytes() -> None:
    numbers = array("d", [1.5] * 1000)
    for data in (
        numbers,
        memoryview(numbers).cast("B").cast("B", (80, 100)),
        PickleBuffer(numbers),
        PickleBuffer(memoryview(numbers)),
    ):
        _, [buffer] = pack_apart(Outside(data))  # type: ignore[arg-type]
        assert buffer == numbers.tobytes()
    for empty in (b"", array("d"), memoryview(b"")):
        packed, apart = pack_apart(Outside(empty))  # type: ignore[arg-type]
        assert (unpack(packed), apart) == (b"", [])


def test_data_in_several_pieces___refused_when_it_is_wrapped() -> None:
    for scattered in (memoryview(b"abcdef")[::2], PickleBuffer(memoryview(b"abcdef")[::2])):
        with pytest.raises((TypeError, BufferError)):
            Outside(scattered)


def test_buffer_that_did_not_come___bad_bytes() -> None:
    packed, _ = pack_apart((Outside(bytes(2000)), Outside(bytes(2000))))
    with pytest.raises(BadBytesError):
        unpack(packed, [bytearray(2000)])


def test_what_does_not_travel___an_error_and_the_next_value_is_packed_as_ever() -> None:
    for stranger in (object(), (1, {"a": object()}), {1, 2}, Outside):
        with pytest.raises(TypeError, match="does not travel"):
            pack(stranger)
        assert unpack(pack(("next",))) == ("next",)


def test_key_too_deep_to_be_looked_up___bad_bytes() -> None:
    deep: object = 1
    for _ in range(250):
        deep = FromHub(1, deep)  # type: ignore[arg-type]
    packed = pack(deep)
    assert unpack(packed) == deep
    with pytest.raises(BadBytesError):
        unpack(b"\x81" + b"\x81\xc3\x93\xa7FromHub\x01" * 500 + b"\x01\x01")


def test_packed_in_many_threads_at_once___each_its_own() -> None:
    failures: list[object] = []

    def work(number: int) -> None:
        data = bytes([number]) * 2000
        value = (number, FromHub(number, LeaseGranted(number, 0.5)), {"x" * number: TROUBLE})
        for _ in range(300):
            packed, apart = pack_apart((value, Outside(data)))
            if unpack(packed, apart) != (value, data):
                failures.append(packed)

    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(usual_s)
    assert failures == []
