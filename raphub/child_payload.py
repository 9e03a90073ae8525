"""What of a child travels as bytes that only its copies read?

The class and the constructor's arguments, and where the starter's process found its modules. The
hub actor passes the bytes on and never looks inside: it need not be able to import user code.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import ray

from raphub.errors import InvalidSetting

# Ray's own pickler; it has no types, so it is imported as a plain value.
pickle: Any = importlib.import_module("ray.cloudpickle")


def payload_of(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The class and its arguments as bytes; top-level ObjectRefs are resolved first, as in Ray.

    Raises `InvalidSetting` naming what cannot be pickled.
    """
    resolved = tuple(_resolved(arg) for arg in args)
    named = {name: _resolved(arg) for name, arg in kwargs.items()}
    try:
        content = pickle.dumps((cls, resolved, named))
    except Exception as error:
        culprit = _culprit(cls, resolved, named)
        raise InvalidSetting(
            f"{culprit} cannot be pickled, so it cannot travel to another node: {error}",
            hint="Open files, sockets, locks and threads in `__init__`: every copy runs its own.",
            field=culprit,
        ) from error
    packed: bytes = pickle.dumps((_import_path(), content))
    return packed


def runtime_env_of(said: dict[str, Any] | None) -> dict[str, Any] | None:
    """The runtime environment of a child: that of the job that starts it, and what was said."""
    context = ray.get_runtime_context()
    inherited = {k: v for k, v in dict(context.runtime_env).items() if not k.startswith("_")}
    merged = {**inherited, **(said or {})}
    env_vars = {**inherited.get("env_vars", {}), **(said or {}).get("env_vars", {})}
    if env_vars:
        merged["env_vars"] = env_vars
    return merged or None


def _resolved(arg: Any) -> Any:  # noqa: ANN401 - the user's
    return ray.get(arg) if isinstance(arg, ray.ObjectRef) else arg


def _culprit(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Name the part that does not pickle."""
    parts = [(f"the class {cls.__qualname__}", cls)]
    parts += [(f"argument {index}", arg) for index, arg in enumerate(args, 1)]
    parts += [(f"argument {name!r}", arg) for name, arg in kwargs.items()]
    for name, part in parts:
        try:
            pickle.dumps(part)
        except Exception:  # noqa: BLE001 - that it fails is all that matters here
            return name
    return "the class with its arguments"


def _import_path() -> list[str]:
    """The places that this process imports from and a fresh worker would not."""
    installed = (sys.prefix, sys.base_prefix)
    # `Path.resolve` would follow links, and a module would get another file name.
    entries = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100
    return [
        entry
        for entry in dict.fromkeys(entries)
        if Path(entry).is_dir() and not entry.startswith(installed)
    ]
