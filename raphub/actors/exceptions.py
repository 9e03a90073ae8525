"""How does an exception of the user's reach the caller unchanged?

As bytes, with the story of where it came from beside it: the caller gets the very same type and
text, and the remote traceback.
"""

from __future__ import annotations

import importlib
import traceback
from typing import Any

from raphub.actors.calling import Raised


def portable(error: Exception) -> Raised:
    """The exception as bytes, and the story of where it came from."""
    pickle: Any = importlib.import_module("ray.cloudpickle")
    story = "".join(traceback.format_exception(error)).rstrip()
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # noqa: BLE001 - the user's class decides what fails here
        data = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return Raised(data, story)
