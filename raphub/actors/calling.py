"""What travels between a caller and a copy with each call?

It crosses Ray on every call, and Ray's cost grows with the number of values more than with their
size. So the header and plain arguments are one bytes value, and so is a plain answer; anything else
is Ray's to carry. Whatever is not an answer is told by a class of this module, which no method
returns.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, NamedTuple

ANY_ROLE = -1
"""In place of an epoch: run the call whatever role the copy has."""

ANY_LAG = -1
"""In place of a bound: as many missing writes as the child allows."""

PLAIN_LENGTH_MAX = 4096
"""Longer text and bytes go as values of their own: Ray does not copy them once more."""

_PLAIN = frozenset((int, float, bool, type(None)))
_LONG = frozenset((str, bytes))

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class Header(NamedTuple):
    """One attempt of a call. See `core.replication.Call` for what its numbers mean.

    A call with `is_map` carries one list of argument tuples, and is answered by a `Mapped`.
    `max_lag_writes` is for reads that may go to passives.
    """

    client: str
    number: int
    epoch: int
    method: str
    settled_below: int = 1
    after: int = 0
    is_retry: bool = False
    is_map: bool = False
    max_lag_writes: int = ANY_LAG

    def packed_with(self, args: Args, kwargs: Kwargs) -> tuple[bytes, Args]:
        """The header as bytes, and the positional arguments that have to follow it apart."""
        if not kwargs and all(map(_is_plain, args)):
            return pickle.dumps((*self, args)), ()
        return pickle.dumps((*self, None)), args


def read_call(packed: bytes, args: Args) -> tuple[Header, Args]:
    """The header and the positional arguments that `Header.packed_with` took apart."""
    *header, plain = pickle.loads(packed)  # noqa: S301 - whoever may call it may run code in it
    return Header(*header), args if plain is None else plain


def pack_answer(answer: object) -> object:
    """What a copy hands to Ray as an answer. Bytes are always something packed."""
    if _is_plain(answer):
        return pickle.dumps(answer)
    return Unpacked(answer) if type(answer) is bytes else answer


def read_answer(answer: object) -> object:
    """The answer that `pack_answer` made something of."""
    if type(answer) is bytes:
        return pickle.loads(answer)  # noqa: S301 - the copy packed it
    return answer.content if type(answer) is Unpacked else answer


def _is_plain(value: object) -> bool:
    kind = type(value)
    return kind in _PLAIN or (kind in _LONG and len(value) <= PLAIN_LENGTH_MAX)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Bytes that are an answer as they are."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Raised:
    """The method raised: the pickled exception, and its traceback as text."""

    error: bytes
    story: str


@dataclass(frozen=True, slots=True)
class Mapped:
    """The results of a `map`, in order; an item that raised has `Raised` in its place."""

    results: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The call did not run here: `reason` is a `core.replication.Admission`, or "lags"."""

    reason: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """The call ran, but the copy lost its right to answer meanwhile."""

    reason: str
