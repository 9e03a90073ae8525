"""What is written to: a replicated counter, a plain Ray actor, and one that does it all by hand?

All of them stand on the nodes beside the driver's, and each says at its end whether its state is
what was acknowledged.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from workload import Counter, Follower, Relay

import raphub
from raphub.testing import LocalCluster

LIMIT_S = 120.0
NODES = 3


class Side(Protocol):
    """Something that counts. `added` is what was acknowledged."""

    added: int

    def write(self) -> None:
        """Add 1 and wait for the answer."""

    def burst(self, count: int) -> None:
        """Add 1 so often without waiting in between, and wait for all answers."""

    def total(self) -> int:
        """What it has counted."""

    def end(self) -> None:
        """Nothing of it is left."""


@dataclass(slots=True)
class Place:
    """A cluster and a hub in it. `absences` tells of copies that a measured child went on without."""

    cluster: LocalCluster
    hub: raphub.Hub
    absences: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def note_absences(self, child_id: str) -> None:
        """Remember when writes were not awaited by all copies: they cost less then."""
        events = self.hub.events(child_id=child_id)
        self.absences += [str(event) for event in events if event.kind == "out_of_sync"]

    def child(self, cls: type, **options: Any) -> Any:
        """The handle of a new child whose copies are all in sync."""
        child_id = f"{cls.__name__.lower()}-{next(self._numbers)}"
        spec = raphub.ChildSpec(child_id=child_id, cls=cls, **options)
        result = self.hub.start_child(spec).result(LIMIT_S)
        assert result.ok, f"{child_id} did not start: {result.errors}"
        handle = self.hub.get(child_id)
        await_in_sync(handle)
        return handle

    def actor(self, cls: type, node: int, *args: object) -> Any:
        """A plain synchronous Ray actor on one of the nodes that have the copies."""
        remote: Any = ray.remote(num_cpus=0.001)(cls)
        where = NodeAffinitySchedulingStrategy(self.cluster.node_ids[node], soft=False)
        return remote.options(scheduling_strategy=where).remote(*args)


def await_in_sync(handle: Any) -> Any:
    """The status of the child once every copy that is wanted holds every write."""
    gives_up_at = time.monotonic() + LIMIT_S
    while time.monotonic() < gives_up_at:
        status = handle.status()
        if status.health == "ok" and len(status.in_sync) == status.factor:
            return status
        time.sleep(0.002)
    raise TimeoutError(f"not all copies are in sync: {handle.status().as_text()}")


class Replicated:
    """A child of raphub's."""

    def __init__(self, place: Place, **options: Any) -> None:
        """`options` are those of a `ChildSpec`."""
        self.handle = place.child(Counter, **options)
        self.added = 0
        self._place = place

    def write(self) -> None:
        """One call."""
        self.handle.add.remote(1).result(LIMIT_S)
        self.added += 1

    def burst(self, count: int) -> None:
        """So many calls in flight."""
        raphub.results([self.handle.add.remote(1) for _ in range(count)], LIMIT_S)
        self.added += count

    def map(self, count: int) -> None:
        """The same through `map`, which adds 0, 1, 2..."""
        results = list(self.handle.add.map(range(count)))
        assert len(results) == count, f"{len(results)} results of {count}"
        self.added += sum(range(count))

    def total(self) -> int:
        """As the active says."""
        self._place.note_absences(self.handle.child_id)
        return int(self.handle.add.remote(0).result(LIMIT_S))

    def end(self) -> None:
        """Stop the child."""
        self.handle.stop()


class Plain:
    """A bare Ray actor, which does the same work for itself."""

    def __init__(self, place: Place) -> None:
        """On the first node."""
        self.actor = place.actor(Counter, 0)
        self.added = 0

    def write(self) -> None:
        """One call."""
        ray.get(self.actor.add.remote(1), timeout=LIMIT_S)
        self.added += 1

    def burst(self, count: int) -> None:
        """So many calls in flight."""
        ray.get([self.actor.add.remote(1) for _ in range(count)], timeout=LIMIT_S)
        self.added += count

    def total(self) -> int:
        """As it says."""
        return int(ray.get(self.actor.add.remote(0), timeout=LIMIT_S))

    def end(self) -> None:
        """End its process."""
        ray.kill(self.actor)


class ByHand(Plain):
    """A bare Ray actor that calls its followers through Ray before it answers."""

    def __init__(self, place: Place, followers: int) -> None:
        """Each follower is on a node of its own."""
        self.followers = [place.actor(Follower, 1 + index) for index in range(followers)]
        self.actor = place.actor(Relay, 0, self.followers)
        self.added = 0

    def end(self) -> None:
        """End all their processes."""
        for actor in (self.actor, *self.followers):
            ray.kill(actor)


@contextmanager
def ending(side: Any) -> Iterator[Any]:
    """Use a side; at its end, it must have counted what it has acknowledged."""
    try:
        yield side
        total = side.total()
        assert total == side.added, f"{side.added} was acknowledged, and its state says {total}"
    finally:
        side.end()
