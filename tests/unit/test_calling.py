"""What a caller packs is what the copy reads, and the answer is what the method returned."""

from __future__ import annotations

from enum import IntEnum

import pytest

from raphub.actors.calling import (
    PLAIN_LENGTH_MAX,
    Header,
    Refused,
    pack_answer,
    read_answer,
    read_call,
)

HEADER = Header("client", 7, 3, "add", 5, 6, is_retry=True, max_lag_writes=2)


class Level(IntEnum):
    HIGH = 1


@pytest.mark.parametrize(
    "args", [(), (1, 2.5, None, True, "text", b"bytes"), (float("inf"),), ("ü" * PLAIN_LENGTH_MAX,)]
)
def test_plain_arguments_travel_within_the_header(args: tuple[object, ...]) -> None:
    packed, apart = HEADER.packed_with(args, {})
    assert apart == ()
    assert read_call(packed, ()) == (HEADER, args)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (([1],), {}),
        ((1,), {"n": 2}),
        ((Level.HIGH,), {}),
        (("x" * (PLAIN_LENGTH_MAX + 1), 1), {}),
        ((object(),), {}),
    ],
)
def test_others_are_left_to_ray(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    packed, apart = HEADER.packed_with(args, kwargs)
    assert apart == args
    assert read_call(packed, args) == (HEADER, args)


LONG = b"x" * (PLAIN_LENGTH_MAX + 1)


@pytest.mark.parametrize(
    "answer",
    [
        *(None, 1, True, 2.5, "text", b"", b"bytes", LONG),
        *([b"x"], Level.HIGH, Refused("stale"), bytearray(b"x")),
    ],
)
def test_an_answer_arrives_as_it_left(answer: object) -> None:
    arrived = read_answer(pack_answer(answer))
    assert arrived == answer
    assert type(arrived) is type(answer)
