"""What travels between a caller and a copy with each call?

Small tuples and whole numbers rather than classes: they cross Ray on every call.
"""

from __future__ import annotations

from typing import Any

ANSWERED, RAISED, REFUSED, WITHHELD = range(4)

ANY_ROLE = -1
"""In place of an epoch: run the call whatever role the copy has."""

Header = tuple[str, int, int, str]
"""The caller's client id, its request number, the epoch it believes in, and the method."""

Answer = tuple[int, Any]
"""ANSWERED and the result; RAISED and `(exception, traceback)`; REFUSED or WITHHELD and a reason."""
