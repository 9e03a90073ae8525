"""What does the hub get to know of a child that is to be started, and can its class work?"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import ray

from raphub.actors.user_object import READ_ONLY_ATTRIBUTE
from raphub.child_payload import payload_of, runtime_env_of
from raphub.core.model import ChildPlan, State
from raphub.errors import StateNotReplicable
from raphub.spec import ChildSpec, HubConfig, class_options, load_class, plan_child


def planned(spec: ChildSpec, config: HubConfig, metadata: dict[str, Any]) -> ChildPlan:
    """The spec as the hub needs it; whatever cannot work is found out here, before a start.

    Raises `InvalidSetting` and `StateNotReplicable`.
    """
    cls = load_class(spec.cls) if isinstance(spec.cls, str) else spec.cls
    options = class_options(cls)
    env = runtime_env_of(spec.runtime_env or options.runtime_env)
    spec = spec.model_copy(update={"metadata": {**metadata, **spec.metadata}, "runtime_env": env})
    plan = plan_child(
        spec,
        config,
        class_options=options,
        job_id=ray.get_runtime_context().get_job_id(),
        payload=payload_of(cls, tuple(spec.args), dict(spec.kwargs)),
        read_only=read_only_methods(cls),
    )
    if plan.state is not State.NONE:
        refuse_streamed_writes(cls, plan.state)
    return plan


def read_only_methods(cls: type) -> tuple[str, ...]:
    """The names of the methods that are marked as `@read_only`, inherited ones among them."""
    return tuple(name for name, method in _methods(cls) if _is_read_only(method))


def refuse_streamed_writes(cls: type, state: State) -> None:
    """Raise `StateNotReplicable` for a generator that may change state: nobody knows when."""
    for name, method in _methods(cls):
        is_generator = inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method)
        if is_generator and not _is_read_only(method) and not name.startswith("_"):
            raise StateNotReplicable(
                f"{cls.__qualname__}.{name} is a generator, and with state={state.value!r} a call "
                "that may change state has to be over before its answer goes.",
                hint="Mark it @raphub.read_only to stream, or return a list.",
            )


def _methods(cls: type) -> Iterator[tuple[str, Any]]:
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        yield name, getattr(found, "__func__", found)


def _is_read_only(method: object) -> bool:
    return getattr(method, READ_ONLY_ATTRIBUTE, False) is True
