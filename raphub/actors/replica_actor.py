"""What is a copy of a child to Ray?

A plain synchronous actor, and nothing more than the names under which Ray calls: what they do is
`replica_host`'s. Ray wraps every method of an actor's class, so those that run on each call are
not methods of this one.
"""

from __future__ import annotations

from collections.abc import Iterator

import ray

from raphub.actors.replica_host import ReplicaHost
from raphub.actors.replica_orders import ReplicaOrders

READS_MAX = 8
"""So many reads and streams run in a copy at the same time."""


class ReplicaActor:
    """The Ray actor. All its methods but reads run on one thread."""

    def __init__(self, orders: ReplicaOrders) -> None:
        """Listen on the wire; the user's object comes later, with `build`."""
        self._host = ReplicaHost(orders)

    def locate(self) -> tuple[str, int, int]:
        """The host and port of the wire, and the process."""
        return self._host.locate()

    def build(self, payload: bytes) -> str:
        """Construct the user's object, once. Returns "" or the traceback of what it raised."""
        return self._host.build(payload)

    def serve(self, header: bytes, /, *args: object, **kwargs: object) -> object:
        """Run one call, if this copy may. Returns its result, or what `calling` has instead."""
        return self._host.serve(header, args, kwargs)

    @ray.method(concurrency_group="reads")
    def read(self, header: bytes, /, *args: object, **kwargs: object) -> object:
        """Run a read beside others, if what this copy has is new enough."""
        return self._host.read(header, args, kwargs)

    @ray.method(concurrency_group="reads", num_returns="streaming")
    def stream(self, header: bytes, /, *args: object, **kwargs: object) -> Iterator[object]:
        """Run a generator that only reads, item by item."""
        yield from self._host.stream(header, args, kwargs)
