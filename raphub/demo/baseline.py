"""What would a Ray user do without raphub? The same class as a plain actor that Ray restarts.

With `max_restarts=-1, max_task_retries=-1`: Ray starts it again for ever, wherever there is room,
and sends its calls again. That is the most that Ray itself offers.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raphub.demo.workload import Answer, SearchIndex

ANSWER_TIMEOUT_S = 60.0


class PlainIndex:
    """The search index as one plain Ray actor, first placed on the node that is given."""

    def __init__(self, node_id: str) -> None:
        """Start it; `search` waits until it is there."""
        remote: Any = ray.remote
        self._actor: Any = (
            remote(max_restarts=-1, max_task_retries=-1, num_cpus=0)(SearchIndex)
            # Soft: it is to die with this node and to live on elsewhere.
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=True))
            .remote()
        )

    def search(self, word: str) -> Answer:
        """One call, with Ray's own retries; raises what Ray raises after 60 s."""
        answer: Answer = ray.get(self._actor.search.remote(word), timeout=ANSWER_TIMEOUT_S)
        return answer

    def node_of(self, pid: int) -> str:
        """The node on which the actor's process runs; empty if it is not that process any more."""
        try:
            where = ray.get(self._actor.__ray_call__.remote(_whereabouts), timeout=ANSWER_TIMEOUT_S)
        except ray.exceptions.RayError:
            return ""
        return str(where[1]) if where[0] == pid else ""

    def end(self) -> None:
        """End it for good."""
        ray.kill(self._actor, no_restart=True)


def _whereabouts(index: SearchIndex) -> tuple[int, str]:
    import os  # noqa: PLC0415 - runs in the actor

    del index
    return os.getpid(), ray.get_runtime_context().get_node_id()
