"""What travels between a caller and a copy with each call?

It crosses Ray on every call, so it is made of what Ray packs cheapest: the header is one line of
text, and an answer is the method's result itself, with nothing around it. Whatever is not an
answer is told by a class of this module, which no method returns.
"""

from __future__ import annotations

from dataclasses import dataclass

ANY_ROLE = -1
"""In place of an epoch: run the call whatever role the copy has."""

ANY_LAG = -1
"""In place of a bound: as many missing writes as the child allows."""

_SEPARATOR = "\n"


@dataclass(frozen=True, slots=True)
class Header:
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

    def line(self) -> str:
        """As one text."""
        flags = 2 * self.is_retry + self.is_map
        return (
            f"{self.client}\n{self.number}\n{self.epoch}\n{self.method}\n{self.settled_below}"
            f"\n{self.after}\n{flags}\n{self.max_lag_writes}"
        )


def read_header(line: str) -> Header:
    """What `Header.line` put together."""
    client, number, epoch, method, settled_below, after, flags, lag = line.split(_SEPARATOR)
    return Header(
        client,
        int(number),
        int(epoch),
        method,
        int(settled_below),
        int(after),
        is_retry=flags in "23",
        is_map=flags in "13",
        max_lag_writes=int(lag),
    )


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
