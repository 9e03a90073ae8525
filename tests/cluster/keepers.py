"""Classes whose state is replicated, for the tests on real clusters."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import raphub
from raphub import Local, Role, read_only


class Keeper:
    """Keeps what it is given, and says where it runs."""

    def __init__(self, start: int = 0) -> None:
        self.value = start
        self.items: list[Any] = []
        self.same = self.items

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def add_slowly(self, amount: int, takes_s: float) -> int:
        time.sleep(takes_s)
        return self.add(amount)

    def keep(self, item: Any) -> int:
        self.items.append(item)
        return len(self.items)

    @read_only
    def get(self) -> int:
        return self.value

    @read_only
    def kept(self) -> list[Any]:
        return self.items

    @read_only
    def is_shared(self) -> bool:
        return self.same is self.items

    @read_only
    def where(self) -> tuple[str, int]:
        here = raphub.current()
        return here.replica_id, here.seq

    @read_only
    def count_to(self, end: int) -> Iterator[int]:
        for number in range(end):
            yield number + self.value

    @read_only
    async def count_slowly(self, end: int) -> AsyncIterator[int]:
        for number in range(end):
            yield number

    async def add_later(self, amount: int) -> int:
        self.value += amount
        return self.value

    def fail_midway(self) -> None:
        self.value += 1000
        raise KeyError("midway")

    def call_id(self) -> str | None:
        self.value += 1
        return raphub.current().call_id

    def odd_answer(self) -> Any:
        self.value += 1
        return threading.Lock()

    def spoil(self) -> None:
        self.lock = threading.Lock()

    def hold(self, seconds: float) -> int:
        time.sleep(seconds)
        self.value += 1
        return self.value

    def kill(self, folder: str) -> None:
        """Die in mid-call, and leave a trace of it."""
        with (Path(folder) / "runs").open("a") as runs:
            runs.write(f"{os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGKILL)

    def kill_once(self, folder: str) -> int:
        """Die in the first run only."""
        marker = Path(folder) / "died"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.value += 1
        return self.value


class Roled(Keeper):
    """Has attributes of its own on every copy."""

    lock: Local[Any]

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.mode = "none"

    def on_role_change(self, role: Role) -> None:
        self.mode = role.value

    @read_only
    def told(self) -> tuple[str, bool]:
        return self.mode, self.lock.acquire(blocking=False) and self.lock.release() is None


class OwnState:
    """Says itself what its state is."""

    def __init__(self) -> None:
        self.total = 0
        self.cache = threading.Lock()

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    @read_only
    def get(self) -> int:
        return self.total

    def get_state(self) -> int:
        return self.total

    def set_state(self, state: int) -> None:
        self.total = state


class Locked:
    """Its state cannot travel."""

    def __init__(self) -> None:
        self.door = threading.Lock()

    def ring(self) -> str:
        return "ring"


class Dice:
    """Does something else on every copy."""

    def __init__(self) -> None:
        self.value = 0.0

    def throw(self) -> float:
        self.value = random.random()
        return self.value

    def quiet_throw(self) -> None:
        self.value = random.random()


class Caller:
    """Calls another child from within a method."""

    def __init__(self, other: Any) -> None:
        self.other = other
        self.calls = 0

    def pass_on(self, folder: str) -> int:
        """Have the other one add, and die behind that in the first run."""
        answer = self.other.add.remote(1).result(timeout_s=30)
        marker = Path(folder) / "passed"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls += 1
        return int(answer)


class Slow(Keeper):
    """Only its first copy is built at once."""

    def __init__(self, folder: str, takes_s: float) -> None:
        super().__init__()
        try:
            (Path(folder) / "first").touch(exist_ok=False)
        except FileExistsError:
            time.sleep(takes_s)


class Warned(Keeper):
    """Writes down when it is told that its node goes."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def on_drain(self, deadline_s: float) -> None:
        with Path(self.path).open("a") as told:
            told.write(f"{raphub.current().role} {deadline_s > 0}\n")


class Large:
    """As much state as is asked for."""

    def __init__(self, megabytes: int) -> None:
        self.block = os.urandom(1024 * 1024) * megabytes
        self.count = 0
        self.numbers = itertools.count()

    def add(self) -> int:
        self.count += 1
        return self.count

    def change_all(self) -> int:
        self.block = os.urandom(1024) + self.block[1024:]
        self.count += 1
        return self.count

    @read_only
    def size(self) -> int:
        return len(self.block)
