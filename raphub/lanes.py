"""Which calls of this process to replicated children are not settled, and who sends them again?

A lane holds on to its calls until they are settled, whether anybody waits for them or not. What is
sent when is decided by `core.lane`; it goes out in order, under the lane's lock. Calls are sent
again by whoever is there: the view's thread when there is news, those who wait for an answer, and
a keeper, which also looks for the answers that nobody fetches.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any, Protocol

import ray

from raphub.actors.calling import Header
from raphub.caller import client_id
from raphub.context import RunningCall
from raphub.core.calls import Attempt
from raphub.core.lane import Lane
from raphub.known import Known
from raphub.sent import LOOK_AGAIN_S, Sent, have_come

log = logging.getLogger("raphub")

LOOKED_AT_MAX = 256
"""The keeper looks at so many calls at a time, the oldest first: those after them end later."""

KEEPS_ON_S = 1.0
"""The keeper looks on for so long after the last call was settled, before it has to be woken."""

SLICE_S = 1.0

_lanes = itertools.count(1)


class LaneCall(Protocol):
    """A call, as its lane sees it."""

    method: str
    is_map: bool
    sent: Sent | None

    @property
    def is_settled(self) -> bool:
        """Has it its outcome?"""
        ...

    def place(self, client: str, number: int, after: int) -> None:
        """These are its names from now on."""

    def transmit(self, remote: Any, header: Header, attempt: Attempt) -> None:  # noqa: ANN401 - Ray's
        """Leave this process. Raises what hinders it."""

    def look(self) -> bool:
        """Act on what has come; is it settled now? Never waits."""
        ...

    def overtaken(self, sent: Sent) -> None:
        """Another active serves, and this attempt has brought nothing."""

    def done(self) -> bool:
        """Look, and have an answer that has come fetched."""
        ...

    def fail(self, error: BaseException) -> None:
        """It is settled with this error."""


class Knowing(Protocol):
    """What a lane needs of a registry's view."""

    hub_id: str
    is_open: bool

    def known(self, child_id: str) -> Known | None:
        """The child as it was last told, or None."""


class CallLane:
    """The calls to one child, of this process or of one call that runs in it.

    After a refusal the lane is blocked: until there is news, its first call alone is sent again
    now and then, and the others follow once that one is settled. So a child that admits nothing for
    ten seconds is not asked by a thousand calls twenty times a second.
    """

    def __init__(self, lanes: Lanes, child_id: str, running: RunningCall | None) -> None:
        """Of `running`, or of this process."""
        self.child_id = child_id
        self._lanes = lanes
        hub_id = lanes.view.hub_id
        # Unlike any other lane's, and for a running call the same at each of its executions.
        self._client = (
            f"{client_id()}.{next(_lanes)}"
            if running is None
            else f"{running.call_id}/{hub_id}/{child_id}"
        )
        # A running call may be executed again, and ask for all of its answers again.
        self._settles = running is None
        self._lock = threading.RLock()
        self._lane = Lane()
        self._calls: dict[int, LaneCall] = {}
        self._blocked_in: int | None = None
        self._next_try_at = 0.0
        self._probe = 0
        self._is_sweeping = False
        self._is_kept = False
        self._empty_since = 0.0

    # --- the calls' side ----------------------------------------------------------------------

    def enter(self, call: LaneCall, known: Known, *, is_read: bool) -> None:
        """Take a call in, and send it unless others have to go first, or nobody serves."""
        with self._lock:
            number = self._lane.open(is_read=is_read)
            self._calls[number] = call
            after = self._lane.write_before(number)
            call.place(self._client, number, after)
            if not self._is_kept:
                self._is_kept = True
                self._lanes.keep(self)
            if len(self._lane.held) == 1 and known.serving:
                try:
                    self._send(number, after, known)
                except BaseException:
                    self._forget(number)
                    raise

    def settle(self, number: int) -> None:
        """The call has its outcome."""
        with self._lock:
            self._forget(number)
            if number == self._probe:
                self._probe, self._blocked_in = 0, None
                self._press(is_news=True)

    def hold(self, number: int, sent: Sent, *, did_not_run: bool, is_blocked: bool) -> None:
        """This attempt brought nothing: send the call again in its turn."""
        with self._lock:
            call = self._calls.get(number)
            if call is None or call.sent is not sent or call.is_settled:
                return
            call.sent = None
            self._lane.hold(number, did_not_run=did_not_run)
            was_probe = number == self._probe
            if was_probe:
                self._probe = 0
            if is_blocked and (self._blocked_in is None or was_probe):
                self._blocked_in = sent.attempt.epoch
                self._next_try_at = time.monotonic() + LOOK_AGAIN_S

    def press(self) -> None:
        """Send what is held, if it is time."""
        with self._lock:
            self._press(is_news=False)

    def patience_s(self) -> float:
        """After how many seconds a held call is to be looked at again, if there is no news."""
        known = self._known()
        return LOOK_AGAIN_S if known is not None and known.serving else SLICE_S

    # --- the other sides ----------------------------------------------------------------------

    def told(self) -> bool:
        """There is news of the child; was anything sent?"""
        with self._lock:
            known = self._known()
            if known is None or not known.serving:
                return False
            sent = [self._calls[number].sent for number in self._lane.outdated(known.view.epoch)]
            outdated = [one for one in sent if one is not None]
            by_ref = dict(zip(map(id, outdated), have_come(outdated), strict=True))
            with _Sweeping(self):
                for number in self._lane.outdated(known.view.epoch):
                    call = self._calls[number]
                    one = call.sent
                    if one is not None and not (by_ref.get(id(one)) and call.look()):
                        call.overtaken(one)
            return self._press(is_news=True)

    def tend(self, now: float) -> None:
        """Look at the oldest calls, and send what is to be sent."""
        while True:
            with self._lock:
                if not self._calls:
                    self._empty_since = self._empty_since or now
                    self._is_kept = now - self._empty_since < KEEPS_ON_S
                    if not self._is_kept:
                        self._lanes.leave(self)
                    return
                self._empty_since = 0.0
                oldest = list(islice(self._calls.values(), LOOKED_AT_MAX))
            came = self._take_what_came(oldest)
            if came < LOOKED_AT_MAX:
                break
        for call in oldest:
            sent = call.sent
            is_under_way = sent is not None and sent.ended is None and self._known() is not None
            if is_under_way or not call.look():
                break
        self.press()

    # --- inside, under the lock ---------------------------------------------------------------

    def _known(self) -> Known | None:
        return self._lanes.view.known(self.child_id)

    def _forget(self, number: int) -> None:
        self._lane.settle(number)
        self._calls.pop(number, None)

    def _press(self, *, is_news: bool) -> bool:
        known = self._known()
        if not self._lane.held or self._is_sweeping or known is None or not known.serving:
            return False
        blocked_in = self._blocked_in
        if blocked_in is None or is_news or known.view.epoch > blocked_in:
            self._sweep()
            self._blocked_in, self._probe = None, 0
            return self._send_all(self._lane.due_after(), known)
        now = time.monotonic()
        if self._probe or now < self._next_try_at:
            return False
        self._next_try_at = now + LOOK_AGAIN_S
        first = min(self._lane.held)
        self._probe = first
        return self._send_all([(first, self._lane.write_before(first))], known)

    def _sweep(self) -> None:
        """Those behind a refused call were refused, too: find them, or they would go one by one."""
        with _Sweeping(self):
            self._take_what_came(list(self._calls.values()))

    def _take_what_came(self, calls: list[LaneCall]) -> int:
        pairs = [(call, call.sent) for call in calls]
        sent = [(call, one) for call, one in pairs if one is not None and one.ended is None]
        came = 0
        for (call, _), has_come in zip(sent, have_come([one for _, one in sent]), strict=True):
            if has_come:
                came += 1
                call.done()
        for call, one in pairs:
            if one is not None and one.ended is not None:
                call.look()
        return came

    def _send_all(self, due: Iterable[tuple[int, int]], known: Known) -> bool:
        was_sent = False
        instead: dict[int, int] = {}
        for number, after in due:
            after = instead.get(after, after)  # noqa: PLW2901 - the one before it was never sent
            try:
                self._send(number, after, known)
                was_sent = True
            except Exception as error:  # noqa: BLE001 - it is raised to whoever asks for the answer
                instead[number] = after
                self._calls[number].fail(error)
        return was_sent

    def _send(self, number: int, after: int, known: Known) -> None:
        waiting, call = self._lane.waiting[number], self._calls[number]
        attempt = Attempt(known.serving[0], known.view.epoch)
        header = Header(
            self._client,
            number,
            attempt.epoch,
            call.method,
            self._lane.settled_below if self._settles else 1,
            after,
            is_retry=waiting.may_have_run,
            is_map=call.is_map,
        )
        call.transmit(known.serve[known.serving[0]], header, attempt)
        self._lane.sent(number, attempt)


class _Sweeping:
    """While several calls are looked at, none of them sends the others; all go afterwards."""

    def __init__(self, lane: CallLane) -> None:
        self._lane = lane

    def __enter__(self) -> None:
        self._was_sweeping, self._lane._is_sweeping = self._lane._is_sweeping, True  # noqa: SLF001 - its own

    def __exit__(self, *_: object) -> None:
        self._lane._is_sweeping = self._was_sweeping  # noqa: SLF001 - its own


class Lanes:
    """All lanes of this process to the children of one hub."""

    def __init__(self, view: Knowing) -> None:
        """There are none yet."""
        self.view = view
        self._own: dict[str, CallLane] = {}
        self._kept: set[CallLane] = set()
        self._lock = threading.Lock()
        self._is_needed = threading.Event()
        self._keeper: threading.Thread | None = None

    def lane(self, child_id: str, running: RunningCall | None) -> CallLane:
        """The lane to a child of this process, or of the call that runs in it."""
        lanes: dict[Any, CallLane] = self._own if running is None else running.lanes
        key = child_id if running is None else (self.view.hub_id, child_id)
        found = lanes.get(key)
        if found is None:
            with self._lock:
                found = lanes.setdefault(key, CallLane(self, child_id, running))
        return found

    def told(self, child_ids: Iterable[str], *, is_all: bool = False) -> bool:
        """There is news of these children, or of all; was anything sent?"""
        with self._lock:
            kept = list(self._kept)
        names = set(child_ids)
        found = [lane.told() for lane in kept if is_all or lane.child_id in names]
        return any(found)

    def keep(self, lane: CallLane) -> None:
        """Look after this lane until it has nothing more for a while."""
        with self._lock:
            self._kept.add(lane)
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._run, name="raphub-lanes", daemon=True)
                self._keeper.start()
        self._is_needed.set()

    def close(self) -> None:
        """The view is closed: whoever looks after lanes looks no more."""
        self._is_needed.set()

    def leave(self, lane: CallLane) -> None:
        """It needs no looking after until it says so again."""
        with self._lock:
            self._kept.discard(lane)

    def _run(self) -> None:
        """Waits in Python, not in Ray: a process that ends must not find it there."""
        while self.view.is_open and ray.is_initialized():
            self._is_needed.wait(1.0)
            time.sleep(LOOK_AGAIN_S)
            if not self.view.is_open:
                return
            with self._lock:
                kept = list(self._kept)
                if not kept:
                    self._is_needed.clear()
            for lane in kept:
                try:
                    lane.tend(time.monotonic())
                except Exception:
                    if not (self.view.is_open and ray.is_initialized()):
                        return
                    log.exception("the calls to %s are looked at again in a moment", lane.child_id)
