"""Which attributes reach something in common that can change?"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import logging
import pathlib
import re
import types
import uuid
from collections.abc import Mapping

from raphub.actors.change import Names
from raphub.actors.pickling import ATOMS

_UNSHARED = ATOMS | {
    tuple,
    frozenset,
    range,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    types.CodeType,
    type(Ellipsis),
    type(NotImplemented),
}
_VALUES = (
    type,
    enum.Enum,
    dt.date,
    dt.time,
    dt.timedelta,
    dt.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    pathlib.PurePath,
    re.Pattern,
    logging.Logger,  # found by its name in the copy, too
)
_DTYPE = ("numpy", "dtype")


def sharing(reached: Mapping[Names, list[object]], target: object) -> list[list[Names]]:
    """Put those together that reach a common object that can change.

    All that was reached is still referred to, so an id is one object's.
    """
    together: dict[Names, list[Names]] = {names: [names] for names in reached}
    holders: dict[int, Names] = {}
    for names in sorted(reached, key=lambda names: len(reached[names])):
        for found in reached[names]:
            if type(found) in _UNSHARED:
                continue
            holder = holders.setdefault(id(found), names)
            ours, theirs = together[names], together[holder]
            if ours is not theirs and found is not target and _can_change(found):
                ours += theirs
                for moved in theirs:
                    together[moved] = ours
    return list({id(groups): groups for groups in together.values()}.values())


def _can_change(found: object) -> bool:
    if isinstance(found, _VALUES):
        return False
    return all((base.__module__, base.__name__) != _DTYPE for base in type(found).__mro__)
