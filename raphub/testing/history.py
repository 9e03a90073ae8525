"""What did clients of a replicated list do, and could a single list have answered them so?

The object is the simplest one that shows every fault of replication: a list to which clients
append items, each a different one, and from which they read. `History` writes down what each
client asked, was told, and when. `check` then says whether the history is linearizable: whether
each operation that took effect did so at one instant between its beginning and its end.
(Herlihy and Wing: Linearizability: A Correctness Condition for Concurrent Objects, ACM TOPLAS
12(3), 1990.)

Finding an order that explains a history is hard in general. Here the list itself is the order of
the appends and each read names its place in it, so that no order has to be sought.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

EMPTY_DIGEST = ""
"""The digest of the empty list."""

DIGEST_BYTES = 8


def next_digest(digest: str, item: str) -> str:
    """The digest of a list of this digest after one more item; takes the same time for any list."""
    told = f"{digest}\0{item}".encode()
    return hashlib.blake2b(told, digest_size=DIGEST_BYTES).hexdigest()


def digests_of(items: Iterable[str]) -> list[str]:
    """The digest of every prefix: of the first 0, 1, 2, ... items."""
    digests = [EMPTY_DIGEST]
    for item in items:
        digests.append(next_digest(digests[-1], item))
    return digests


# --- Operations -------------------------------------------------------------------------------


class OperationKind(StrEnum):
    """What a client asked for."""

    APPEND = "append"
    READ = "read"


class Outcome(StrEnum):
    """How an operation ended for its client."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """It certainly did not run, and never will."""
    UNKNOWN = "unknown"
    """It may have run, or may run still."""
    PENDING = "pending"
    """It has not ended. It may have run, as one of unknown outcome."""


class Seen(NamedTuple):
    """What a read answers: how many items there are, the last one, and `next_digest` over all."""

    length: int
    last: str | None
    digest: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one client.

    `item` is what is appended; a read has None. The times are seconds of one clock for all
    operations. `answer` is the length of the list after an append, or what a read saw; it is None
    unless the outcome is ANSWERED. Raises `ValueError` or `TypeError` for what does not fit together.
    """

    client: str
    kind: OperationKind
    item: str | None
    began_at: float
    ended_at: float | None = None
    outcome: Outcome = Outcome.PENDING
    answer: int | Seen | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense: a judge that passed over it would call it right."""
        is_append = self.kind is OperationKind.APPEND
        if is_append != (self.item is not None):
            raise ValueError(f"an append has an item, and a read has none: {self.item!r}")
        if self.outcome is Outcome.ANSWERED:
            if not isinstance(self.answer, int if is_append else Seen):
                raise TypeError(f"{self.answer!r} is no answer to {self.kind}")
            if self.ended_at is None:
                raise ValueError("what was answered has ended, and needs ended_at")
        elif self.answer is not None:
            raise ValueError(f"an operation that ended as {self.outcome} has no answer")

    def __str__(self) -> str:
        """For example `append('c1-7') by c1 [1.203, 1.207] = 12`."""
        what = f"append({self.item!r})" if self.kind is OperationKind.APPEND else "read()"
        end = "..." if self.ended_at is None else f"{self.ended_at:.6f}"
        told = self.answer if self.outcome is Outcome.ANSWERED else self.outcome
        shown = f"{told.length} items" if isinstance(told, Seen) else f"{told}"
        return f"{what} by {self.client} [{self.began_at:.6f}, {end}] = {shown}"


class Recording:
    """One operation under way. End it once, by `answered`, `refused` or `unknown`.

    It is a context manager, too: a block that ends without having said how, by an exception or
    not, ends with an unknown outcome. One thread at a time may use it.
    """

    def __init__(self, history: History, index: int) -> None:
        """Made by `History.begin_append` and `History.begin_read`."""
        self._history = history
        self._index = index
        self._has_ended = False

    def answered(self, answer: int | tuple[int, str | None, str]) -> None:
        """It was answered just now: an append with the length after it, a read with `Seen`."""
        self._end(Outcome.ANSWERED, answer if isinstance(answer, int) else Seen(*answer))

    def refused(self) -> None:
        """It certainly did not run, and never will."""
        self._end(Outcome.REFUSED)

    def unknown(self) -> None:
        """It may have run, or may run still."""
        self._end(Outcome.UNKNOWN)

    def __enter__(self) -> Self:
        """The operation has begun already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Whatever was not said is unknown."""
        if not self._has_ended:
            self.unknown()

    def _end(self, outcome: Outcome, answer: int | Seen | None = None) -> None:
        if self._has_ended:
            raise RuntimeError("an operation ends once, and this one has ended already")
        self._has_ended = True
        self._history._end(self._index, outcome, answer)  # noqa: SLF001 - two halves of one thing


class History:
    """What clients did. Any number of threads may record into it and look at it at the same time.

    `clock` gives seconds. The default may be used across processes of one machine, since Linux
    counts them from the same start; it is not comparable between machines.
    """

    def __init__(
        self, operations: Iterable[Operation] = (), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with operations that were recorded elsewhere, if any."""
        self._operations = list(operations)
        self._clock = clock
        self._lock = threading.Lock()

    def begin_append(self, client: str, item: str) -> Recording:
        """An append begins now: call it *before* the request is sent. Items must differ."""
        return self._begin(client, OperationKind.APPEND, item)

    def begin_read(self, client: str) -> Recording:
        """A read begins now: call it *before* the request is sent."""
        return self._begin(client, OperationKind.READ, None)

    @property
    def operations(self) -> list[Operation]:
        """All operations so far, in the order in which they began to be recorded."""
        with self._lock:
            return list(self._operations)

    def __len__(self) -> int:
        """How many operations have begun."""
        return len(self._operations)

    def __iter__(self) -> Iterator[Operation]:
        """The operations so far."""
        return iter(self.operations)

    def _begin(self, client: str, kind: OperationKind, item: str | None) -> Recording:
        with self._lock:
            self._operations.append(Operation(client, kind, item, self._clock()))
            return Recording(self, len(self._operations) - 1)

    def _end(self, index: int, outcome: Outcome, answer: int | Seen | None) -> None:
        # Read before the lock: the shorter an operation seems, the more a check can find.
        now = self._clock()
        with self._lock:
            begun = self._operations[index]
            self._operations[index] = replace(begun, ended_at=now, outcome=outcome, answer=answer)


# --- Files ------------------------------------------------------------------------------------


def dump(history: History, path: str | Path, final_items: Sequence[str] | None = None) -> None:
    """Write the history as lines of JSON, one an operation; the last one has the final items."""
    with Path(path).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(operation)) + "\n" for operation in history)
        if final_items is not None:
            file.write(json.dumps({"final_items": list(final_items)}) + "\n")


def load(path: str | Path) -> tuple[History, list[str] | None]:
    """Read what `dump` has written: the history, and the final items if there are any."""
    operations, final_items = [], None
    with Path(path).open(encoding="utf-8") as file:
        for line in file:
            told: dict[str, Any] = json.loads(line)
            if "final_items" in told:
                final_items = told["final_items"]
            else:
                operations.append(_operation(told))
    return History(operations), final_items


def _operation(told: dict[str, Any]) -> Operation:
    answer = told.pop("answer")
    return Operation(
        **{**told, "kind": OperationKind(told["kind"]), "outcome": Outcome(told["outcome"])},
        answer=Seen(*answer) if isinstance(answer, list) else answer,
    )


# --- Judgement --------------------------------------------------------------------------------


class ViolationKind(StrEnum):
    """In which way a history is impossible."""

    LOST_WRITE = "lost write"
    """An append was answered, and its item is not in the list."""
    DOUBLED_WRITE = "doubled write"
    """An item that was sent once is in the list more than once."""
    PHANTOM_ITEM = "phantom item"
    """An item is in the list that nobody has sent."""
    REFUSED_YET_APPLIED = "refused yet applied"
    """An append certainly did not run, says its outcome, and its item is in the list."""
    WRONG_INDEX = "wrong index"
    """An append was answered with a place that is not its item's."""
    ORDER_REVERSED = "order reversed"
    """An append ended before another one began, and its item comes after the other one's."""
    STALE_READ = "stale read"
    """A read began after an append had ended, and does not see it."""
    READ_WENT_BACK = "read went back"
    """A read began after another one had ended, and sees less."""
    READ_AHEAD = "read ahead"
    """A read ended before an append began, and saw its item."""
    FORKED_READ = "forked read"
    """A read saw something that is no beginning of the final list."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which a history is impossible; `text` says it in one sentence."""

    kind: ViolationKind
    text: str
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        """For example `lost write: append('c1-7') by c1 [1.2, 1.3] = 12 is not in the list`."""
        return f"{self.kind}: {self.text}"


def check(history: Iterable[Operation], final_items: Sequence[str]) -> list[Violation]:
    """Say everything that is wrong with a history; an empty list means that it is linearizable.

    `final_items` is the whole list, read after every answered operation has ended. An operation
    that is pending or of unknown outcome may have taken effect at any time after it began, or not
    at all. Takes O(n log n) for n operations and items. Raises `ValueError` if two appends sent
    the same item: nobody could tell whose it is.

    Each violation has a witness; not promised is that all pairs of operations that contradict
    each other are named, for there may be n² of them.
    """
    operations = list(history)
    senders = _senders(operations)
    places: dict[str, list[int]] = {}
    for place, item in enumerate(final_items, 1):
        places.setdefault(item, []).append(place)
    found = list(_wrong_items(senders, places))
    spots = []
    digests = digests_of(final_items)
    for operation in operations:
        if operation.item is not None:
            own_places = places.get(operation.item, [])
            found += _wrong_append(operation, own_places)
            if own_places:
                told = [place for place in own_places if place == operation.answer]
                spots.append(_Spot((told or own_places)[0], operation))
        elif isinstance(operation.answer, Seen):
            if _is_prefix(operation.answer, final_items, digests):
                spots.append(_Spot(operation.answer.length, operation))
            else:
                found.append(_forked(operation))
    return found + list(_wrong_order(spots))


def _senders(operations: Iterable[Operation]) -> dict[str, Operation]:
    senders: dict[str, Operation] = {}
    for operation in operations:
        if operation.item is not None:
            if operation.item in senders:
                raise ValueError(
                    f"the item {operation.item!r} was sent twice, by "
                    f"{senders[operation.item].client} and by {operation.client}: "
                    "a history can be checked only if all items differ"
                )
            senders[operation.item] = operation
    return senders


def _wrong_items(
    senders: dict[str, Operation], places: dict[str, list[int]]
) -> Iterator[Violation]:
    """What the list alone shows."""
    for item, own_places in places.items():
        sender = senders.get(item)
        if sender is None:
            yield Violation(
                ViolationKind.PHANTOM_ITEM,
                f"item {own_places[0]} of the list is {item!r}, which nobody has sent",
                (),
            )
        elif len(own_places) > 1:
            listed = " and ".join(map(str, own_places))
            yield Violation(
                ViolationKind.DOUBLED_WRITE, f"{sender} is in the list at {listed}", (sender,)
            )


def _wrong_append(append: Operation, own_places: list[int]) -> Iterator[Violation]:
    """What one append and the list show."""
    match append.outcome:
        case Outcome.ANSWERED if not own_places:
            yield Violation(ViolationKind.LOST_WRITE, f"{append} is not in the list", (append,))
        case Outcome.ANSWERED if append.answer not in own_places:
            told = f"{append} was told a wrong place: its item is at {own_places[0]}"
            yield Violation(ViolationKind.WRONG_INDEX, told, (append,))
        case Outcome.REFUSED if own_places:
            told = f"{append} is in the list at {own_places[0]}"
            yield Violation(ViolationKind.REFUSED_YET_APPLIED, told, (append,))
        case _:
            pass


def _is_prefix(seen: Seen, final_items: Sequence[str], digests: list[str]) -> bool:
    if not 0 <= seen.length <= len(final_items):
        return False
    last = final_items[seen.length - 1] if seen.length else None
    return seen.last == last and seen.digest == digests[seen.length]


def _forked(read: Operation) -> Violation:
    assert isinstance(read.answer, Seen)
    told = f"{read} up to {read.answer.last!r} saw no beginning of the final list"
    return Violation(ViolationKind.FORKED_READ, told, (read,))


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where in the order of the list an operation took effect.

    A read comes after the append that it has seen last, and before the next one.
    """

    place: int
    operation: Operation

    @property
    def key(self) -> tuple[int, bool]:
        return self.place, self.operation.kind is OperationKind.READ


def _wrong_order(spots: list[_Spot]) -> Iterator[Violation]:
    """What contradicts real time, each operation with the worst of those that ended before.

    The list orders all operations but reads that saw the same. So the history is in order if no
    operation comes before one that had ended when it began, and to know that it suffices to look
    at the one that comes last of these.
    """
    ended = sorted(
        (s for s in spots if s.operation.outcome is Outcome.ANSWERED),
        key=lambda s: _end_of(s.operation),
        reverse=True,
    )
    last: dict[OperationKind, _Spot] = {}
    for later in sorted(spots, key=attrgetter("operation.began_at")):
        while ended and _end_of(ended[-1].operation) < later.operation.began_at:
            spot = ended.pop()
            best = last.get(spot.operation.kind)
            if best is None or spot.key > best.key:
                last[spot.operation.kind] = spot
        for earlier in last.values():
            if earlier.key > later.key:
                yield _reversed(earlier.operation, later.operation)


def _end_of(answered: Operation) -> float:
    assert answered.ended_at is not None
    return answered.ended_at


def _reversed(earlier: Operation, later: Operation) -> Violation:
    match earlier.kind, later.kind:
        case OperationKind.APPEND, OperationKind.APPEND:
            kind, told = ViolationKind.ORDER_REVERSED, "comes after it in the list"
        case OperationKind.APPEND, OperationKind.READ:
            kind, told = ViolationKind.STALE_READ, "is not seen by it"
        case OperationKind.READ, OperationKind.READ:
            kind, told = ViolationKind.READ_WENT_BACK, "saw more than it"
        case _:
            kind, told = ViolationKind.READ_AHEAD, "saw its item"
    text = f"{earlier} ended before {later} began, yet {told}"
    return Violation(kind, text, (earlier, later))
