"""What travels between a caller and a copy with each call?

It crosses Ray on every call, so it is made of what Ray packs cheapest: the header is one line of
text, and an answer is the method's result itself, with nothing around it. Whatever is not an
answer is told by a class of this module, which no method returns.
"""

from __future__ import annotations

from dataclasses import dataclass

ANY_ROLE = -1
"""In place of an epoch: run the call whatever role the copy has."""

_SEPARATOR = "\n"


def header(client: str, number: int, epoch: int, method: str) -> str:
    """The caller's client id, its request number, the epoch it believes in, and the method."""
    return f"{client}\n{number}\n{epoch}\n{method}"


def read_header(line: str) -> tuple[str, int, int, str]:
    """What `header` put together."""
    client, number, epoch, method = line.split(_SEPARATOR)
    return client, int(number), int(epoch), method


@dataclass(frozen=True, slots=True)
class Raised:
    """The method raised: the pickled exception, and its traceback as text."""

    error: bytes
    story: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The call did not run: the copy does not serve, or not in the caller's epoch."""

    reason: str


@dataclass(frozen=True, slots=True)
class Withheld:
    """The call ran, but the copy lost its right to answer meanwhile."""

    reason: str
