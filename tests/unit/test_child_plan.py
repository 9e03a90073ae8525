"""Is it found out before a start what a class can do?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from raphub.child_plan import read_only_methods, refuse_streamed_writes
from raphub.core.model import State
from raphub.decorator import read_only
from raphub.errors import StateNotReplicable


class Base:
    @read_only
    def get(self) -> int:
        return 1

    @read_only
    def size(self) -> int:
        return 1

    @staticmethod
    @read_only
    def fixed() -> int:
        return 1

    def add(self) -> None: ...

    def _rows(self) -> Iterator[int]:
        yield 1


class Derived(Base):
    def size(self) -> int:
        return 2

    @read_only
    def rows(self) -> Iterator[int]:
        yield from self._rows()

    @read_only
    async def later(self) -> AsyncIterator[int]:
        yield 1


class Streams(Base):
    def rows(self) -> Iterator[int]:
        yield 1


class StreamsLater(Base):
    async def later(self) -> AsyncIterator[int]:
        yield 1


class Inherits(Streams):
    pass


def test_methods_marked_read_only_are_known_also_inherited_ones_unless_replaced() -> None:
    assert read_only_methods(Base) == ("fixed", "get", "size")
    assert read_only_methods(Derived) == ("fixed", "get", "later", "rows")


@pytest.mark.parametrize(
    ("cls", "name"), [(Streams, "rows"), (StreamsLater, "later"), (Inherits, "rows")]
)
def test_a_generator_that_may_change_state_is_refused(cls: Any, name: str) -> None:
    with pytest.raises(StateNotReplicable, match=name) as caught:
        refuse_streamed_writes(cls, State.LOG)
    assert "@raphub.read_only" in caught.value.hint


def test_a_generator_that_reads_and_a_private_one_are_not() -> None:
    refuse_streamed_writes(Derived, State.SNAPSHOT)
