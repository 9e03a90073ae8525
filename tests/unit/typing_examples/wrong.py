# pyright: strict
"""What checkers must refuse. Each line that ends in `# wrong` must be an error to both of them."""

import raphub
from raphub import replicated


@replicated(factor=2)
class Counter(raphub.Replicated):
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value


@replicated
class Other(raphub.Replicated):
    def __init__(self, a: int) -> None: ...

    def go(self) -> int:
        return 1


counter = Counter.remote(start=5)

Counter.remote(start="x")  # wrong
Counter.remote(stop=1)  # wrong
Other.remote()  # wrong
Counter.options(factor="many")  # wrong
Counter.options(nope=1)  # wrong
Counter.options(factor=2).remote(start="x")  # wrong
counter.call(Counter.add, "x")  # wrong
counter.call(Counter.add, 1, 2)  # wrong
counter.call(Other.go)  # wrong
replicated(factor="all")  # wrong
replicated(model="leader")  # wrong
raphub.Replication(signal="some")  # wrong
raphub.HubConfig(hub="x")  # wrong
raphub.ChildSpec(cls=Counter)  # wrong
