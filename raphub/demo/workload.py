"""What does the demo replicate? A search index that takes a second or two to build.

Each question that it answers is also a write: its number is noted in the object's state. The same
class runs as copies of a child and as a plain Ray actor, and in a single process without either;
raphub's marks in it only say what is each copy's own, and what changes nothing.
"""

from __future__ import annotations

import math
import os
import re
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import raphub

MODULES_MAX = 1000
"""So that building takes a bounded time wherever the demo runs."""

WORD_LENGTH_MIN = 3
TIMES_MAX = 255
_NAME = re.compile(r"[a-z_]{3,}")
_LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"})

WORDS = (
    "socket", "thread", "decode", "parse", "pickle", "signal", "queue", "iterator", "compress",
    "digest", "header", "buffer", "timeout", "locale", "subclass", "coroutine",
)  # fmt: skip
"""Questions to ask in turn; each occurs in every standard library."""


class Hit(NamedTuple):
    """A module in which the word matters, and the first line that has it."""

    module: str
    line_number: int
    line: str
    score: float


class Answer(NamedTuple):
    """The best hits, and who found them: the process, and when its index was begun and done.

    The times are Unix times in seconds.
    """

    hits: list[Hit]
    pid: int
    began_at_s: float
    built_at_s: float


class Occurrence(NamedTuple):
    """How often a module has a word, and where first."""

    module: int
    times: int
    first_line: int


class SearchIndex:
    """An index of the words in Python's standard library, built by the constructor.

    Every copy reads the same installed sources, so every copy gives the same answers. `modules_max`
    bounds how many it reads. The index is therefore local to a copy; what is replicated is `_times`,
    how often the question of each number was answered. It has a byte for each number, because with
    `state="snapshot"` an attribute that changed is shipped as a whole.
    """

    began_at_s: raphub.Local[float]
    built_at_s: raphub.Local[float]
    _names: raphub.Local[list[str]]
    _texts: raphub.Local[list[list[str]]]
    _lengths: raphub.Local[list[int]]
    _occurrences: raphub.Local[dict[str, list[Occurrence]]]

    def __init__(self, modules_max: int = MODULES_MAX) -> None:
        self.began_at_s = time.time()
        self._times = bytearray()
        self._names = []
        self._texts = []
        self._lengths = []
        self._occurrences = {}
        root = Path(sysconfig.get_path("stdlib"))
        for _, path in zip(range(modules_max), _sources(root), strict=False):
            self._add(".".join(path.relative_to(root).with_suffix("").parts), path)
        self.built_at_s = time.time()

    def answer(self, number: int, word: str) -> Answer:
        """Search, and note in the state that the question of this number was answered."""
        self._times.extend(bytes(max(0, number + 1 - len(self._times))))
        self._times[number] = min(TIMES_MAX, self._times[number] + 1)
        return self.search(word)

    @raphub.read_only
    def times(self) -> bytes:
        """How often the question of each number was answered, as the state says; 255: or more."""
        return bytes(self._times)

    @raphub.read_only
    def search(self, word: str, hits_max: int = 3) -> Answer:
        """Find the modules in which the word is frequent and elsewhere rare, best first."""
        found = self._occurrences.get(word.lower(), [])
        rarity = math.log((1 + len(self._names)) / (1 + len(found)))
        ranked = sorted(found, key=lambda one: (-self._frequency(one), one.module))
        hits = [self._hit(one, self._frequency(one) * rarity) for one in ranked[:hits_max]]
        return Answer(hits, os.getpid(), self.began_at_s, self.built_at_s)

    @raphub.read_only
    def size(self) -> tuple[int, int]:
        """How many modules and how many different words the index has."""
        return len(self._names), len(self._occurrences)

    def _add(self, name: str, path: Path) -> None:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        seen: dict[str, tuple[int, int]] = {}
        words = 0
        for number, line in enumerate(lines, 1):
            for word in _words(line):
                count, first = seen.get(word, (0, number))
                seen[word] = (count + 1, first)
                words += 1
        module = len(self._names)
        self._names.append(name)
        self._texts.append(lines)
        self._lengths.append(max(1, words))
        for word, (count, first) in seen.items():
            self._occurrences.setdefault(word, []).append(Occurrence(module, count, first))

    def _frequency(self, one: Occurrence) -> float:
        return one.times / self._lengths[one.module]

    def _hit(self, one: Occurrence, score: float) -> Hit:
        line = self._texts[one.module][one.first_line - 1].strip()
        return Hit(self._names[one.module], one.first_line, line, round(score, 4))


def _words(line: str) -> Iterator[str]:
    """Every name in the line, and its parts: `read_only` is found as `read`, too."""
    for name in _NAME.findall(line.lower()):
        yield name
        if "_" in name:
            yield from (part for part in name.split("_") if len(part) >= WORD_LENGTH_MIN)


def _sources(root: Path) -> Iterator[Path]:
    """The library's own modules in one order everywhere, without its tests and what was added."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - _LEFT_OUT)
        yield from (Path(folder) / name for name in sorted(files) if name.endswith(".py"))
