"""Classes that the tests replicate."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import raphub
from raphub import Role


class Clerk:
    """Remembers what it was told and answers who it is."""

    def __init__(self, start: int = 0) -> None:
        self.value = start
        self.roles: list[str] = []

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def pid(self) -> int:
        return os.getpid()

    def told(self) -> list[str]:
        return self.roles

    def where(self) -> tuple[str, str, int, bool]:
        here = raphub.current()
        return here.replica_id, here.node_id, here.epoch, here.is_active

    def fail(self, text: str) -> None:
        raise KeyError(text)

    def crash(self) -> None:
        os._exit(3)

    def on_role_change(self, role: Role) -> None:
        self.roles.append(role.value)


class Refuser:
    """Never comes up."""

    def __init__(self) -> None:
        raise LookupError("this class refuses to be built")


class Sensitive(Clerk):
    """Its role callback raises."""

    def on_role_change(self, role: Role) -> None:
        super().on_role_change(role)
        raise ValueError(f"cannot bear to be {role.value}")


class Stubborn(Clerk):
    """Its role callback hangs as long as it is to be active, on one node only."""

    def __init__(self, hangs_in: str) -> None:
        super().__init__()
        self.hangs_in = hangs_in

    def on_role_change(self, role: Role) -> None:
        super().on_role_change(role)
        if role is Role.ACTIVE and raphub.current().replica_id == self.hangs_in:
            threading.Event().wait()


class Streams:
    """One of its methods is a generator, and may write."""

    def rows(self) -> Iterator[int]:
        yield 1


class Asynchronous:
    """Its methods are coroutines."""

    async def double(self, number: int) -> int:
        return 2 * number
