"""How does a call run in a copy: admitted, executed, kept, and answered when that is safe?"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from raphub import context
from raphub.actors import calling
from raphub.actors.calling import Args, Header, Kwargs, read_call
from raphub.actors.clock import now_s
from raphub.actors.exceptions import portable
from raphub.actors.replicated_object import ReplicatedObject, stored
from raphub.core.dedup import Kept
from raphub.core.messages import CallBegan, CallEnded, CallRead, CallWrote, StateBroken
from raphub.core.replication import Admission, Call
from raphub.errors import StateNotReplicable

if TYPE_CHECKING:
    from raphub.actors.replica_host import ReplicaHost

ADMISSION_WAIT_S = 1.0
"""How long a call waits at a copy that is about to serve, before its caller is told to look again."""


class CopyCalls:
    """The calls of one copy."""

    def __init__(self, host: ReplicaHost) -> None:
        """Nothing runs yet."""
        self._host = host
        self._running = _Running(host)

    def serve(self, packed: bytes, args: Args, kwargs: Kwargs) -> object:
        """Run one call, if this copy may."""
        (header, args), target = read_call(packed, args), self._host.object
        if header.epoch == calling.ANY_ROLE:
            return self._anyhow(header, args, kwargs)
        is_read = header.method in target.read_only
        verdict, kept, epoch = self._admit(header, is_read=is_read)
        if verdict is Admission.ANSWERED:
            assert kept is not None
            return self._released(epoch, kept.seq, stored(kept.answer))
        if verdict is not Admission.SERVE:
            return calling.Refused(verdict.value)
        with self._running, context.calling(f"{header.client}:{header.number}"):
            if not isinstance(target, ReplicatedObject):
                with target.gate.alone():
                    answer = _plain(target, header, args, kwargs)
                return self._released(epoch, 0, answer)
            if is_read:
                return self._read(target, header, args, kwargs, epoch)
            return self._write(target, header, args, kwargs, epoch)

    def read(self, packed: bytes, args: Args, kwargs: Kwargs) -> object:
        """Run a read beside others: on a passive within its bound, or on the active."""
        (header, args), target = read_call(packed, args), self._host.object
        if header.method not in target.read_only:
            return calling.Refused("not_read_only")
        if self._may_read(header):
            with target.gate.among_readers():
                return _plain(target, header, args, kwargs)
        verdict, _, epoch = self._admit(header, is_read=True)
        if verdict is not Admission.SERVE:
            self._host.hurry()
            return calling.Refused("lags")
        with self._running:
            with target.gate.among_readers():
                answer = _plain(target, header, args, kwargs)
                seq = self._seq()
            return self._released(epoch, seq, answer, is_read=True)

    def stream(self, packed: bytes, args: Args, kwargs: Kwargs) -> Iterator[object]:
        """Run a generator that only reads; writes may go on between two of its items."""
        (header, args), target = read_call(packed, args), self._host.object
        epoch = -1
        if header.method not in target.read_only:
            yield calling.Refused("not_read_only")
            return
        if not self._may_read(header):
            verdict, _, epoch = self._admit(header, is_read=True)
            if verdict is not Admission.SERVE:
                yield calling.Refused(verdict.value)
                return
            # It may take for ever, so nobody waits for its end.
            self._host.handle(CallEnded())
        items: Any = None
        while True:
            try:
                with target.gate.among_readers():
                    if items is None:
                        items = _iterated(target, target.run(header.method, args, kwargs))
                    answer = next(items)
                    seq = self._seq()
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 - the user's; it reaches the caller unchanged
                yield portable(error)
                return
            yield answer if epoch < 0 else self._released(epoch, seq, answer, is_read=True)

    # --- execution ----------------------------------------------------------------------------

    def _anyhow(self, header: Header, args: Args, kwargs: Kwargs) -> object:
        """Run it whatever the role: where nothing is replicated, or nothing is changed."""
        target = self._host.object
        if not isinstance(target, ReplicatedObject):
            with target.gate.alone():
                return _plain(target, header, args, kwargs)
        if header.method not in target.read_only:
            return calling.Refused("not_read_only")
        with target.gate.among_readers():
            return _plain(target, header, args, kwargs)

    def _read(
        self, target: ReplicatedObject, header: Header, args: Args, kwargs: Kwargs, epoch: int
    ) -> object:
        self._host.handle(CallBegan(header.client, header.number))
        with target.gate.among_readers():
            answer = target.answer(header.method, args, kwargs, is_map=header.is_map)
            seq = self._seq()
        self._host.handle(CallRead(header.client, header.number))
        return self._released(epoch, seq, answer, is_read=True)

    def _write(
        self, target: ReplicatedObject, header: Header, args: Args, kwargs: Kwargs, epoch: int
    ) -> object:
        host = self._host
        with target.gate.alone():
            host.handle(CallBegan(header.client, header.number))
            try:
                written = target.write(header, args, kwargs)
            except StateNotReplicable as error:
                # Its state cannot be shipped: a copy that has the state before this call goes on.
                host.handle(StateBroken(str(error)))
                return portable(error)
            host.handle(
                CallWrote(
                    epoch,
                    header.client,
                    header.number,
                    header.settled_below,
                    written.packed,
                    written.change,
                    written.answer_bytes,
                    written.size,
                )
            )
            seq = self._seq()
        return self._released(epoch, seq, written.answer)

    # --- questions to the machine -------------------------------------------------------------

    def _admit(self, header: Header, *, is_read: bool) -> tuple[Admission, Kept | None, int]:
        """Decide about the call; one that may be served in a moment waits for it.

        One that is to be served runs in a `with self._running`.
        """
        call = Call(
            header.client,
            header.number,
            header.epoch,
            header.settled_below,
            header.after,
            is_retry=header.is_retry,
            is_read=is_read,
        )
        machine, changed = self._host.machine, self._host.changed
        with changed:
            verdict, kept = machine.admit_call(call, now_s())
            if verdict is Admission.WAIT:
                gives_up_at = now_s() + ADMISSION_WAIT_S
                while verdict is Admission.WAIT and (left_s := gives_up_at - now_s()) > 0:
                    changed.wait(left_s)
                    verdict, kept = machine.admit_call(call, now_s())
            return verdict, kept, machine.epoch

    def _may_read(self, header: Header) -> bool:
        lag = None if header.max_lag_writes == calling.ANY_LAG else header.max_lag_writes
        with self._host.changed:
            return self._host.machine.may_read(now_s(), lag)

    def _seq(self) -> int:
        """How many writes what was just seen reflects."""
        replication = self._host.machine.replication
        return 0 if replication is None else replication.holding.log.tail.seq

    def _released(self, epoch: int, seq: int, answer: object, *, is_read: bool = False) -> object:
        """Give the answer once it is safe. A lapsed lease may be renewed, a new epoch ends it."""
        host, machine = self._host, self._host.machine
        with host.changed:
            gives_up_at = 0.0
            while not machine.may_release(epoch, seq, now := now_s(), is_read=is_read):
                gives_up_at = gives_up_at or now + host.orders.lease_duration_s
                if now >= gives_up_at or not machine.may_serve_again(epoch):
                    return calling.Withheld("not all copies in sync have it, or the lease is over")
                host.wait_for_news(gives_up_at - now)
        return answer


class _Running:
    """What was admitted runs inside; its end is told, whatever it comes to."""

    def __init__(self, host: ReplicaHost) -> None:
        self._host = host

    def __enter__(self) -> None:
        """Its admission has told the machine of its beginning."""

    def __exit__(self, *_: object) -> None:
        self._host.handle(CallEnded())


def _plain(target: Any, header: Header, args: Args, kwargs: Kwargs) -> object:  # noqa: ANN401
    """Run a call for whoever is inside the gate."""
    if header.is_map:
        return calling.Mapped(tuple(_one(target, header.method, item, {}) for item in args[0]))
    return _one(target, header.method, args, kwargs)


def _one(target: Any, method: str, args: Args, kwargs: Kwargs) -> object:  # noqa: ANN401
    try:
        return target.run(method, args, kwargs)
    except Exception as error:  # noqa: BLE001 - the user's; it reaches the caller unchanged
        return portable(error)


def _iterated(target: Any, items: Any) -> Iterator[object]:  # noqa: ANN401 - the user's
    """The items of a generator, also of one of coroutines."""
    if not inspect.isasyncgen(items):
        return iter(items)

    def each() -> Iterator[object]:
        while True:
            try:
                yield target.awaited(following())
            except StopAsyncIteration:
                return

    async def following() -> object:
        return await anext(items)

    return each()
