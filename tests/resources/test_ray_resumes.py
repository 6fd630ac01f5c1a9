"""On a real Ray cluster (`make test-ray`): a run that was stopped and resumed gives the bytes of one process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs.test_resume import CONFIG, MODES, stopped_and_resumed_is_the_same

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

EVERY = [
    *itertools.product(("memory", "sqlite", "ray"), MODES, ["ray"]),
    *itertools.product(["ray"], MODES, ("serial", "processes")),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    ray.init(address=cluster.address, namespace="mutual-env", log_to_driver=False)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    return path


@pytest.mark.parametrize(("exchange", "mode", "executor"), EVERY)
def test_a_run_that_was_stopped_and_resumed_on_a_cluster_gives_the_bytes_of_one_process(
    config_file: Path, address: str, exchange: str, mode: str, executor: str
) -> None:
    more = [f"resources.options={{address: '{address}'}}"] if executor == "ray" else []
    stopped_and_resumed_is_the_same(config_file, exchange, mode, executor, 19, *more)
