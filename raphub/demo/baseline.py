"""What would a Ray user do without raphub? The same class as a plain actor that Ray restarts.

With `max_restarts=-1, max_task_retries=-1`: Ray starts it again for ever, wherever there is room,
and sends its calls again. That is the most that Ray itself offers.
"""

from __future__ import annotations

from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raphub.demo.stream import Await
from raphub.demo.workload import Answer, SearchIndex

NODE_TIMEOUT_S = 60.0
STATE_TIMEOUT_S = 20.0
CPU_SHARE = 0.001


class PlainIndex:
    """The search index as one plain Ray actor, first placed on the node that is given."""

    def __init__(self, node_id: str) -> None:
        """Start it; calls wait until it is there. Ask `node` where it really is."""
        remote: Any = ray.remote
        self._actor: Any = (
            # Ray follows a soft wish for a node only for an actor that asks for some CPU.
            remote(max_restarts=-1, max_task_retries=-1, num_cpus=CPU_SHARE)(SearchIndex)
            # Soft: it is to die with this node and to live on elsewhere.
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=True))
            .remote()
        )

    def ask(self, number: int, word: str) -> Await:
        """One call, with Ray's own retries."""
        ref = self._actor.answer.remote(number, word)

        def wait(timeout_s: float) -> Answer:
            answer: Answer = ray.get(ref, timeout=timeout_s)
            return answer

        return wait

    def times(self) -> bytes | None:
        """What its state says was answered; None if it does not say so in time."""
        try:
            return bytes(ray.get(self._actor.times.remote(), timeout=STATE_TIMEOUT_S))
        except (ray.exceptions.RayError, TimeoutError):
            return None

    def node(self) -> str:
        """The id of the node on which it runs now, as its process says."""
        told = self._actor.__ray_call__.remote(_node_id)
        return str(ray.get(told, timeout=NODE_TIMEOUT_S))

    def end(self) -> None:
        """End it for good."""
        ray.kill(self._actor, no_restart=True)


def _node_id(_: SearchIndex) -> str:
    here: str = ray.get_runtime_context().get_node_id()
    return here
