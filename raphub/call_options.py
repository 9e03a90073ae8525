"""How is one call to be made, and may it be made so?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from raphub.core.model import ReplicaId
from raphub.errors import InvalidSetting
from raphub.known import Known

ReadFrom = Literal["active", "any", "passive"]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a call is made. `timeout_s` bounds `.result()` without a time-out of its own.

    `max_lag_writes` is how many writes a passive that answers may have missed; None: as many as
    the child allows. `is_map` says that its one argument is a list of arguments of many calls.
    """

    timeout_s: float | None = None
    retry: bool = True
    read_from: ReadFrom = "active"
    max_lag_writes: int | None = None
    is_map: bool = False

    def check(self) -> None:
        """Raise `InvalidSetting` for what no call could be made with."""
        if self.read_from not in get_args(ReadFrom):
            raise InvalidSetting(
                f'read_from should be "active", "any" or "passive", not {self.read_from!r}.',
                field="read_from",
            )
        lag = self.max_lag_writes
        if lag is not None and (not isinstance(lag, int) or lag < 0):
            raise InvalidSetting(
                f"max_lag_writes should be a whole number from 0, not {lag!r}.",
                field="max_lag_writes",
            )
        if lag is not None and self.read_from == "active":
            raise InvalidSetting(
                "max_lag_writes is for reads from passives: the active misses nothing.",
                field="max_lag_writes",
                hint='Give read_from="any" or read_from="passive", too.',
            )

    def check_read(self, known: Known, method: str) -> None:
        """Raise `InvalidSetting` if the method may not be called on passives."""
        if self.read_from != "active":
            refuse_unread(known, method, f'read_from="{self.read_from}"', "read_from")

    def readers(self, known: Known) -> tuple[ReplicaId, ...]:
        """The copies that such a read may go to first."""
        match self.read_from:
            case "any":
                return (*known.serving, *known.passives)
            case "passive":
                return known.passives
            case "active":
                return ()


def refuse_unread(known: Known, method: str, words: str, field: str) -> None:
    """Raise `InvalidSetting` unless the method only reads, of a child whose copies are the same."""
    if method not in known.read_only:
        raise InvalidSetting(
            f"{words} is for methods that only read, and {method!r} is not marked as one.",
            field=field,
            hint="Mark it @raphub.read_only if it changes no state.",
        )
    if not known.is_replicated and field == "read_from":
        raise InvalidSetting(
            f'{words} cannot be used: with state="none" every copy keeps its own state.',
            field=field,
            hint='Replicate it: state="snapshot". `handle.all` asks every copy.',
        )
