# pyright: strict
"""What checkers must see. Each `reveal_type` carries the type that both of them have to tell."""

from collections.abc import Mapping, Sequence
from typing import Any, reveal_type

import raphub
from raphub import ChildHandle, Role, read_only, replicated


@replicated(factor=2)
class Counter(raphub.Replicated):
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    @read_only
    def get(self) -> int:
        return self.value

    async def slow(self, word: str) -> str:
        return word

    def on_role_change(self, role: Role) -> None: ...


@replicated
class Bare(raphub.Replicated):
    def __init__(self, a: int, *, b: str) -> None: ...


class Derived(Counter):
    def extra(self) -> float:
        return 1.0


@replicated(num_cpus=1, model="active_active", signal="active", spread="strict", zone_label="zone")
class Plain:
    """It does not derive from `Replicated`: the decorator keeps it as it is."""

    def go(self) -> int:
        return 1


reveal_type(Plain().go())  # is: int
reveal_type(Counter(5).add(1))  # is: int
reveal_type(Counter(5).get())  # is: int

reveal_type(Counter.remote(start=5))  # is: ChildHandle[Counter]
reveal_type(Counter.remote())  # is: ChildHandle[Counter]
reveal_type(Bare.remote(1, b="x"))  # is: ChildHandle[Bare]
named = Counter.options(child_id="hits", factor=3, hub="shop")
reveal_type(named.remote(start=5))  # is: ChildHandle[Counter]
everywhere = Counter.options(factor="cluster_size", get_if_exists=True)
reveal_type(everywhere.remote())  # is: ChildHandle[Counter]

counter = Counter.remote(5)
reveal_type(counter.child_id)  # is: str
reveal_type(counter.call(Counter.add, 3))  # is: Call[int]
reveal_type(counter.call(Counter.add, n=3).result(timeout_s=1))  # is: int
reveal_type(counter.call(Counter.get))  # is: Call[int]
reveal_type(counter.call(Counter.slow, "a"))  # is: Call[str]
reveal_type(counter.add.remote(3))  # is: Call[Any]
reveal_type(counter.all.get.remote())  # is: dict[str, Call[Any]]
reveal_type(counter.get.options(read_from="any", max_lag_writes=3).remote())  # is: Call[Any]
reveal_type(counter.get.options(stream=True).remote())  # is: Stream
for value in counter.add.map(range(3), batch_size=2, return_exceptions=True):
    reveal_type(value)  # is: Any

reveal_type(Derived.remote(start=3).call(Derived.extra))  # is: Call[float]
reveal_type(Derived.remote(start=3).call(Counter.add, 1))  # is: Call[int]
as_base: ChildHandle[Counter] = Derived.remote()


async def in_async_code() -> None:
    reveal_type(await counter.call(Counter.add, 3))  # is: int
    reveal_type(await counter.call(Counter.slow, "a"))  # is: str


spec = raphub.ChildSpec(child_id="a", cls=Counter, args=(5,), factor=3, model="active_passive")
by_name = raphub.ChildSpec(child_id="b", cls="package.module:Class", kwargs={"start": 5})
config = raphub.HubConfig(
    hub_id="my_hub",
    redundancy=raphub.Replication(
        factor="cluster_size", model="active_passive", signal="all", state="none"
    ),
    distribution=raphub.ConsistentHashing(),
    partition_tolerance=raphub.Divergence(),
    child_specs=[spec, by_name],
    wire_ports=(30000, 30100),
)


class FewestCopies(raphub.DistributionStrategy):
    rack: str = "a"

    def rank(
        self, child_id: str, nodes: Sequence[raphub.Candidate], taken: Mapping[str, int]
    ) -> list[str]:
        return [node.node_id for node in nodes if node.labels.get("rack") == self.rack]


places: dict[str, list[str]] = {"a": ["10.0.0.1", "10.0.0.2"]}
raphub.HubConfig(distribution=raphub.Guided(mapping=places))
raphub.HubConfig(distribution=raphub.LeastLoaded())
raphub.HubConfig(distribution=FewestCopies(rack="b"))
alone = raphub.HubConfig(redundancy=raphub.Singularity(), lease_duration_s=5)


def shown(status: raphub.ChildStatus, result: raphub.StartResult) -> None:
    reveal_type(status.active)  # is: ReplicaStatus | None
    reveal_type(status.replicas)  # is: list[ReplicaStatus]
    reveal_type(result.started)  # is: dict[str, list[ReplicaStatus]]
    for child_id, node_id, reason in result.errors:
        reveal_type(child_id)  # is: str
        reveal_type(node_id)  # is: str | None
        reveal_type(reason)  # is: str


def caught(error: raphub.CallTimeout) -> Any:
    reveal_type(error.hint)  # is: str
    return error.call
