"""Which objects are known to be right, or wrong in one way, so that the runs themselves are tried?

Control experiments. Both keep their items in a file that outlives every process, under a lock that
no two hold: replication has no part in whether they are right.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from raphub.testing import Seen
from tests.chaos.workload import Book

DWELL_S = 0.002
"""How long an item is in the file before its append is answered: kills fall into this time."""


class FileBook(Book):
    """Right: what was appended stays, and an item that is sent again is known."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.offset = 0

    def append(self, item: str) -> int:
        with self._locked() as file:
            if self.is_known(item):
                return self.items.index(item) + 1
            os.write(file, f"{item}\n".encode())
            self._catch_up(file)
            length = len(self.items)
        time.sleep(DWELL_S)
        return length

    def read(self) -> Seen:
        with self._locked():
            return super().read()

    def whole(self) -> list[str]:
        with self._locked():
            return super().whole()

    def is_known(self, item: str) -> bool:
        return item in self.items

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, with nobody else in it, and what is in it read. The kernel frees a dead lock."""
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._catch_up(file)
            yield file
        finally:
            os.close(file)

    def _catch_up(self, file: int) -> None:
        size = os.fstat(file).st_size
        told = os.pread(file, size - self.offset, self.offset)
        self.offset = size
        for item in told.decode().splitlines():
            Book.append(self, item)


class ForgetfulFileBook(FileBook):
    """Wrong: an item that is sent again is appended again."""

    def is_known(self, item: str) -> bool:
        return False
