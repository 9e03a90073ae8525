"""What names this process as a caller?"""

from __future__ import annotations

import os
import uuid

_client_id = ""


def client_id() -> str:
    """What names this process: never pickled, new after a fork."""
    global _client_id  # noqa: PLW0603 - it belongs to the process
    if not _client_id:
        _client_id = uuid.uuid4().hex[:16]
    return _client_id


def _forget_in_fork() -> None:
    global _client_id  # noqa: PLW0603 - it belongs to the process
    _client_id = ""


os.register_at_fork(after_in_child=_forget_in_fork)
