"""GPUs on a real Ray cluster (`make test-ray`). Ray is told that its nodes have GPUs, and counts and hands them out as
it would real ones; only nothing computes on them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from learners.example import Example
from learners.resources.demand import Demand, Needs, Patience
from learners.resources.executor import SerialExecutor
from learners.resources.on_ray import RayExecutor
from learners.tabular import TabularLearner
from mutual_env.errors import ConfigError, WorkerLostError
from mutual_env.types import Metrics
from tests.resources.toy import run_rounds

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

PATIENT = Patience(reserve=30.0, limit=300.0, restarts=3, restart_limit=60.0)


class Seeing(TabularLearner):
    """Says in its metrics which GPUs it was given, and when it used them."""

    def update(self, examples: Sequence[Example]) -> Metrics:
        began = time.time()
        time.sleep(0.1)
        visible = [int(gpu) for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        seen = {"gpu/count": float(len(visible)), "gpu/first": float(min(visible, default=-1))}
        return {**super().update(examples), **seen, "began": began, "ended": time.time()}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two nodes of two GPUs."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=4, num_gpus=2)
    ray.init(address=cluster.address, namespace="mutual-env", log_to_driver=False)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def demand(policy: str, gpus: float, gang: int = 1) -> Demand:
    needs = Needs(seconds=0.1, cpus=0.5, gpus=gpus, gang=gang, limit=60.0)
    return Demand(policy, {"act": needs, "update": needs})


def run(address: str, *demands: Demand, rounds: int = 3) -> tuple[list[dict[str, Metrics]], RayExecutor]:
    executor = RayExecutor(demands, PATIENT, address=address)
    return run_rounds(executor, {d.policy: partial(Seeing, name=d.policy) for d in demands}, rounds)[:-1], executor


def test_each_actor_sees_the_gpus_that_its_policy_asked_for(address: str) -> None:
    history, executor = run(address, demand("half", 0.5), demand("whole", 1.0), demand("pair", 2.0))
    assert {name: metrics["gpu/count"] for name, metrics in history[0].items()} == {"half": 1, "whole": 1, "pair": 2}
    plain = run_rounds(SerialExecutor(), {n: partial(TabularLearner, name=n) for n in history[0]}, 3)[:-1]
    assert [{n: {key: m[key] for key in plain[0][n]} for n, m in r.items()} for r in history] == plain
    spans = [span for span in executor.record.take() if getattr(span, "policy", "") == "pair"]
    assert {len(span.devices) for span in spans if span.phase == "update"} == {2}  # type: ignore[union-attr]


def test_a_gang_is_placed_over_nodes_all_of_it_or_not_at_all(address: str) -> None:
    history, executor = run(address, demand("gang", 1.0, gang=3))
    assert history[0]["gang"]["gpu/count"] == 1.0  # the learner is the first member
    (nodes,) = {tuple(sorted(span.devices)) for span in executor.record.take()}  # type: ignore[union-attr]
    assert len(nodes) == 3
    assert len({device.split("/")[0] for device in nodes}) == 2  # three members on two nodes of two
    with pytest.raises(ConfigError, match="gang=4 instead of 5"):
        RayExecutor([demand("wide", 1.0, gang=5)], PATIENT, address=address)


def test_policies_that_have_to_share_a_gpu_never_use_it_at_the_same_time(address: str) -> None:
    names = "abcdef"  # six that want a GPU each, and there are four
    history, executor = run(address, *(demand(name, 1.0) for name in names))
    leased: dict[str, set[str]] = {}
    for span in executor.record.take():
        leased.setdefault(span.policy, set()).update(d for d in span.devices if "gpu" in d)  # type: ignore[union-attr]
    assert all(len(gpus) == 1 for gpus in leased.values()), "each lives on one GPU, and is leased that one"
    shared = [(one, two) for one in names for two in names if one < two and leased[one] == leased[two]]
    assert shared
    for one, two in shared:
        assert history[0][one]["gpu/first"] == history[0][two]["gpu/first"]
        for mine, theirs in ((r[one], r[two]) for r in history):
            assert mine["ended"] <= theirs["began"] or theirs["ended"] <= mine["began"]
    assert len({tuple(gpus) for gpus in leased.values()}) >= 3  # two have room on one, so fewer cannot hold the six


def test_two_gpus_in_one_process_cannot_be_shared_and_a_sentence_says_so(address: str) -> None:
    demands = [demand(name, 2.0) for name in "abc"]  # six GPUs, and there are four
    executor = RayExecutor(demands, Patience(reserve=5.0, restarts=0, restart_limit=20.0), address=address)
    with pytest.raises(WorkerLostError, match="no place for its placement group"):
        executor.host({d.policy: partial(Seeing, name=d.policy) for d in demands})
    executor.close()
