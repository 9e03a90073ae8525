"""Code that only a job has."""

from __future__ import annotations

from pathlib import Path

import raphub
from raphub.testing import LocalCluster
from tests.cluster.conftest import left_of
from tests.cluster.waiting import LIMIT_S, until_ok, until_replaced

JOB = """
import ray, raphub
ray.init(runtime_env={"working_dir": "."}, log_to_driver=False)
from only_here import Greeter
roles = raphub.Replication(state="none")
hub = raphub.Hub.start(raphub.HubConfig(hub_id="job", redundancy=roles))
print(hub.start_child(raphub.ChildSpec(child_id="greeter", cls=Greeter)).result(60))
"""
MODULE = """
class Greeter:
    def greet(self):
        return "hello from " + __file__.rpartition("/")[2]
"""


def test_a_class_of_a_jobs_working_directory_is_rebuilt_after_the_job_has_ended(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "only_here.py").write_text(MODULE)
    done = cluster.run_driver(JOB, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (tmp_path / "only_here.py").unlink()
    with raphub.Hub.connect("job") as hub:
        before = until_ok(hub, "greeter")
        assert before.active is not None
        greeter = hub.get("greeter")
        assert greeter.greet.remote().result(LIMIT_S) == "hello from only_here.py"
        cluster.kill_node(before.active.node_id)
        cluster.add_node()
        after = until_replaced(hub, "greeter", before.active.replica_id)
        assert len(after.ready) == 2
        answers = greeter.all.greet.remote().values()
        assert [a.result(LIMIT_S) for a in answers] == ["hello from only_here.py"] * 2
    assert left_of("job") == []
