"""The quickstart, a few rounds of it: every executor writes the same metrics, to the last digit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from learners.run.config import arm_config, load_suite
from learners.run.training import train

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def metrics_of(output: Path, executor: str, **options: Any) -> str:
    config = arm_config(load_suite(QUICKSTART), "sgt", 0)
    config.rounds, config.output = 3, str(output / executor)
    config.evaluation.every = 3
    config.resources.executor, config.resources.options = executor, options
    for policy in config.policies.values():
        policy.options["warm_start"]["steps"] = 5
    return (train(config).directory / "metrics.jsonl").read_text()


@pytest.fixture(autouse=True)
def _one_thread_as_in_a_worker() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.torch
@pytest.mark.slow
def test_worker_processes_write_the_metrics_of_one_process(tmp_path: Path) -> None:
    assert metrics_of(tmp_path, "processes", threads=1) == metrics_of(tmp_path, "serial")


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_ray_cluster_writes_the_metrics_of_one_process(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    try:
        ray.init(address=cluster.address, namespace="mutual-env", log_to_driver=False)
        assert metrics_of(tmp_path, "ray", address=cluster.address) == metrics_of(tmp_path, "serial")
    finally:
        ray.shutdown()
        cluster.shutdown()
