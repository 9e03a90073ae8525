"""A Ray whose answers the tests make, and a view of a registry that the tests tell."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import json
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

from ray.exceptions import ActorUnavailableError, GetTimeoutError

from raphub.actors.encoding import pack
from raphub.actors.registry import Update, Version
from raphub.core.model import ChildId, ChildPlan, Health, Phase, Role, State
from raphub.core.views import ChildView, ReplicaView
from raphub.registry_view import RegistryView

LIMIT_S = 30.0
UNREACHABLE = ActorUnavailableError("the link is cut", None)


def replicated() -> ChildPlan:
    """A child whose state is replicated."""
    return replace(separate(), state=State.SNAPSHOT, read_only=("get", "rows"))


def separate() -> ChildPlan:
    """A child of which every copy keeps its own state."""
    options = {"cls": "module:Class", "lifetime": "detached", "metadata": {}}
    return ChildPlan(ChildId("a"), read_only=("get",), options=json.dumps(options))


class Clock:
    """A clock that stands still unless the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Ref:
    """An ObjectRef whose object the test makes."""

    def __init__(self) -> None:
        self.made: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def future(self) -> concurrent.futures.Future[Any]:
        return self.made

    def comes_to(self, content: object) -> None:
        if isinstance(content, BaseException):
            self.made.set_exception(content)
        else:
            self.made.set_result(content)


class Copy:
    """A copy's handle: what is sent to it is kept, and comes to what the test said, if anything."""

    def __init__(self, *contents: object) -> None:
        self.sent: list[Ref] = []
        self.lines: list[bytes] = []
        self.methods: list[str] = []
        self.is_asked = asyncio.Event()
        self._contents = list(contents)

    @property
    def serve(self) -> SimpleNamespace:
        return SimpleNamespace(remote=self.remote)

    @property
    def read(self) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *args: self.remote(*args, method="read"))

    def remote(self, header: bytes, *args: object, method: str = "serve") -> Ref:
        if any(callable(arg) for arg in args):
            raise TypeError("cannot pickle it")
        ref = Ref()
        self.lines.append(header)
        self.methods.append(method)
        self.sent.append(ref)
        self.is_asked.set()
        if self._contents:
            ref.comes_to(self._contents.pop(0))
        return ref


class Ray:
    """What `call` and its rooms use of Ray. `waited_s` is the longest that it was asked to wait."""

    def __init__(self) -> None:
        self.waited_s = 0.0
        self.gets = 0
        self.is_waiting = threading.Event()

    def get(self, ref: Ref, timeout: float) -> Any:
        self.gets += 1
        self.waited_s = max(self.waited_s, timeout)
        if not concurrent.futures.wait([ref.made], timeout).done:
            raise GetTimeoutError
        return ref.made.result()

    def is_initialized(self) -> bool:
        return True

    def wait(
        self, refs: list[Ref], *, num_returns: int = 1, timeout: float, fetch_local: bool = True
    ) -> tuple[list[Ref], list[Ref]]:
        self.waited_s = max(self.waited_s, timeout)
        self.is_waiting.set()
        concurrent.futures.wait(
            [ref.made for ref in refs], timeout, return_when=concurrent.futures.FIRST_COMPLETED
        )
        ready = [ref for ref in refs if ref.made.done()][:num_returns]
        return ready, [ref for ref in refs if ref not in ready]


class Told(RegistryView):
    """A view that is told by the test, in the order in which the hub's pushes are dealt with."""

    made: ClassVar[list[Told]] = []

    def __init__(self, plan: ChildPlan | None = None) -> None:
        super().__init__("hub", None, "")
        self.poll_ref = Ref()
        self.waited_s = 0.0
        self.plan = plan or separate()
        self.made.append(self)

    @classmethod
    def close_all(cls) -> None:
        """Close all views; their keepers have ended when this returns."""
        closed, cls.made[:] = list(cls.made), []
        for view in closed:
            view.close()
        for view in closed:
            if view.lanes._keeper is not None:
                view.lanes._keeper.join(LIMIT_S)

    def wait(self, is_met: Callable[[], bool], timeout_s: float | None) -> bool:
        self.waited_s = max(self.waited_s, LIMIT_S if timeout_s is None else timeout_s)
        return super().wait(is_met, timeout_s)

    def tell(
        self,
        epoch: int,
        active: str | None,
        health: Health = Health.OK,
        *,
        seqs: dict[str, int] | None = None,
        in_sync: Collection[str] | None = None,
        **copies: Copy,
    ) -> None:
        handles: dict[str, Any] = {f"a#{name[-1]}": copy for name, copy in copies.items()}
        members = handles if in_sync is None else in_sync
        replicas = tuple(
            dataclasses.replace(
                replica(name, Role.ACTIVE, epoch),
                seq=(seqs or {}).get(name, 0),
                is_in_sync=name in members,
            )
            for name in handles
        )
        child = ChildView(self.plan, health, "crashes", active, epoch, 2, False, replicas)  # noqa: FBT003
        self._told(children={"a": pack(child)}, handles=handles)

    def tell_gone(self) -> None:
        self._told(removed=("a",))

    def _told(self, **news: Any) -> None:
        update = Update("i", Version(1, self._number + 1), is_whole=False, **news)
        self.poll_ref.comes_to(update)
        self._apply(update)
        self.poll_ref = Ref()


def replica(name: str, role: Role, epoch: int) -> ReplicaView:
    told = {"replica": name, "role": role, "phase": Phase.READY, "epoch": epoch, "node_id": "n"}
    return ReplicaView(**{f.name: told.get(f.name, 1) for f in dataclasses.fields(ReplicaView)})
