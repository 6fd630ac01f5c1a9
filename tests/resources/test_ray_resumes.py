"""On a real Ray cluster (`make test-ray`): a run that was stopped and resumed gives the bytes of one process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from learners.run.config import load_run
from learners.run.training import train
from mutual_env.errors import ConfigError
from tests.runs.test_resume import CONFIG, MODES, stopped_and_resumed_is_the_same

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

EVERY = list(itertools.product(("memory", "sqlite", "ray"), MODES, ["ray"]))
QUICK = [
    ("sqlite", "asynchronous waves", "ray"),
    ("ray", "any staleness", "ray"),
]
CASES = [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in EVERY]


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


@pytest.mark.parametrize(("exchange", "mode", "executor"), CASES)
def test_a_run_that_was_stopped_and_resumed_on_a_cluster_gives_the_bytes_of_one_process(
    config_file: Path, address: str, exchange: str, mode: str, executor: str
) -> None:
    where = f"resources.options={{address: '{address}'}}"
    stopped_and_resumed_is_the_same(config_file, exchange, mode, executor, 19, where)


@pytest.mark.parametrize("executor", ["serial", "threads", "processes"])
def test_an_exchange_on_a_cluster_is_refused_by_an_executor_that_is_not_there(config_file: Path, executor: str) -> None:
    overrides = ["sharing.exchange=ray", f"resources.executor={executor}"]
    with pytest.raises(ConfigError, match=r"needs resources\.executor=ray"):
        train(load_run(config_file, overrides))
