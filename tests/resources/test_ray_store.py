"""What a cluster says whose object store is full, and the disk behind it too."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from learners.resources.demand import Demand, Needs, Patience
from learners.resources.on_ray import RayExecutor
from mutual_env.errors import StorageError
from tests.resources.toy import Bulky

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

STORE = 80 << 20  # bytes, about as few as Ray takes


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its nodes take any disk for full."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_local_fs_capacity_threshold", "0.0001")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=2, object_store_memory=STORE)
    ray.init(address=cluster.address, namespace="mutual-env", log_to_driver=False)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def test_a_full_store_and_disk_are_a_sentence_with_a_remedy(address: str, tmp_path: Path) -> None:
    needs = Needs(seconds=0.1, limit=60.0)
    demand = Demand("ada", {"act": needs, "update": needs})
    executor = RayExecutor([demand], Patience(reserve=30.0, restarts=2, restart_limit=60.0), address=address, keep=1)
    try:
        policy = executor.host({"ada": partial(Bulky, "ada", 2 * STORE, str(tmp_path / "fuse"))})["ada"]
        with pytest.raises(StorageError, match=r"policy 'ada': .* no room for what '\w+' .* --object-store-memory"):
            policy.update([])
    finally:
        executor.close()
