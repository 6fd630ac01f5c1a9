"""A lease reaches a device: what the record says is what the process saw. No GPU is needed: a process is shown GPUs by
`CUDA_VISIBLE_DEVICES`, and that is read back from where it counts."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from learners.example import Example
from learners.placement import gpus_here, placed, shown, visible
from learners.resources.cards import Card, cards
from learners.resources.demand import Demand, Needs, Node, Patience, Rounds, Supply
from learners.resources.plan import make_plan
from learners.resources.processes import ProcessExecutor
from learners.resources.record import Event, Span
from learners.resources.testing import run_rounds
from learners.resources.threads import ThreadExecutor
from learners.tabular import TabularLearner
from mutual_env.errors import ConfigError
from mutual_env.types import Metrics

TWO_GPUS = Supply((Node("local", 4.0, gpus=2),))
QUICK = Patience(restarts=1, restart_limit=60.0)


class Seeing(TabularLearner):
    """Says in its metrics which GPUs its process was shown before anything was imported."""

    def update(self, examples: Sequence[Example]) -> Metrics:
        shown_here = visible()
        numbers = {"gpus": float(len(shown_here or ())), "first": float(shown_here[0]) if shown_here else -1.0}
        return {**super().update(examples), **numbers}


class Told(TabularLearner):
    """Remembers which GPUs of its process it was given while it was built."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.gpus = gpus_here()


class WithEngine(TabularLearner):
    """Starts a process of its own, as vLLM's engine does, and writes down its number."""

    def __init__(self, name: str, pids: str) -> None:
        super().__init__(name=name)
        engine = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600.0,))
        engine.start()
        Path(pids).write_text(str(engine.pid))


def demand(policy: str, gpus: float = 1.0, seconds: float = 1.0, gang: int = 1) -> Demand:
    needs = Needs(seconds, cpus=0.5, gpus=gpus, gang=gang, limit=60.0)
    return Demand(policy, {"act": needs, "update": needs})


def seen(executor: ProcessExecutor, *policies: str) -> dict[str, tuple[float, float]]:
    history = run_rounds(executor, {name: partial(Seeing, name=name) for name in policies}, 1)
    return {name: (metrics["gpus"], metrics["first"]) for name, metrics in history[0].items()}


def devices_of(items: Sequence[Span | Event]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for span in (item for item in items if isinstance(item, Span)):
        found.setdefault(span.policy, set()).update(span.devices)
    return found


def test_a_worker_sees_the_gpu_that_its_leases_name_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    demands = [demand("a"), demand("b"), demand("on the CPU", gpus=0.0)]
    executor = ProcessExecutor(demands, TWO_GPUS, QUICK)
    assert seen(executor, "a", "b", "on the CPU") == {"a": (1, 0), "b": (1, 1), "on the CPU": (0, -1)}
    items = executor.record.take()
    assert devices_of(items) == {"a": {"local/gpu0"}, "b": {"local/gpu1"}, "on the CPU": {"local/cpu"}}
    placed_events = {i.policy: i.detail for i in items if isinstance(i, Event) and i.kind == "placed"}
    assert placed_events == {"a": "GPU 0: CUDA_VISIBLE_DEVICES=0", "b": "GPU 1: CUDA_VISIBLE_DEVICES=1"}
    predicted = make_plan(demands, TWO_GPUS, Rounds(2)).simulation
    assert predicted is not None
    assert devices_of(predicted.spans) == devices_of(items)


def test_the_gpus_of_a_process_are_those_that_the_run_itself_was_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert seen(ProcessExecutor([demand("a"), demand("b")], TWO_GPUS, QUICK), "a", "b") == {"a": (1, 3), "b": (1, 5)}


@pytest.mark.long
def test_a_gang_sees_all_its_gpus_and_policies_that_share_one_see_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    wide = ProcessExecutor([demand("gang", gang=2), demand("pair", gpus=2.0)], TWO_GPUS, QUICK)
    assert seen(wide, "gang", "pair") == {"gang": (2, 0), "pair": (2, 0)}
    one = Supply((Node("local", 4.0, gpus=1),))
    assert seen(ProcessExecutor([demand("a"), demand("b", 0.5)], one, QUICK), "a", "b") == {"a": (1, 0), "b": (1, 0)}


def test_nobody_is_kept_from_gpus_where_nothing_was_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert seen(ProcessExecutor((), TWO_GPUS, QUICK), "a") == {"a": (1, 1)}


def test_a_policy_in_a_thread_is_told_its_gpu_while_it_is_built() -> None:
    executor = ThreadExecutor([demand("a"), demand("b"), demand("c", gpus=0.0)], TWO_GPUS)
    learners: dict[str, Any] = executor.host({name: partial(Told, name) for name in "abcd"})
    assert {name: learner.gpus for name, learner in learners.items()} == {"a": (0,), "b": (1,), "c": (), "d": None}
    assert gpus_here() is None
    executor.close()


def test_devices_of_several_nodes_are_refused_where_everything_runs_on_one_machine() -> None:
    supply = Supply((Node("n0", 4.0, gpus=1), Node("n1", 4.0, gpus=1)))
    with pytest.raises(ConfigError, match=r"GPUs of 2 nodes \(n0, n1\).*executor=ray"):
        ThreadExecutor([demand("a"), demand("b")], supply).host({"a": partial(Told, "a"), "b": partial(Told, "b")})


def alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def gone(pid: int) -> bool:
    ends = time.monotonic() + 20.0
    while alive(pid) and time.monotonic() < ends:
        time.sleep(0.05)
    return not alive(pid)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_worker_may_have_processes_and_takes_them_along(tmp_path: Path, end: str) -> None:
    executor = ProcessExecutor([demand("a", gpus=0.0)], TWO_GPUS, Patience(restarts=0))
    learner = executor.host({"a": partial(WithEngine, "a", str(tmp_path / "pid"))})["a"]
    engine = int((tmp_path / "pid").read_text())
    assert alive(engine)
    if end == "kill":
        executor.hosts["a"].kill()
        with pytest.raises(Exception, match="given up"):
            learner.act(["1+1="], 1, seed=0)
    executor.close()
    assert gone(engine)


SCRIPT = """
import sys, os, signal
from functools import partial
from learners.resources.processes import ProcessExecutor
from tests.resources.test_placement import TWO_GPUS, WithEngine, demand

if __name__ == "__main__":
    executor = ProcessExecutor([demand("a", gpus=0.0)], TWO_GPUS)
    executor.host({"a": partial(WithEngine, "a", sys.argv[1])})
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["ends", "killed"])
def test_a_program_that_closes_nothing_ends_all_the_same_and_leaves_nobody_behind(tmp_path: Path, how: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, str(script), str(tmp_path / "pid"), how], env=environ, timeout=120.0, check=False)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_process_that_is_started_for_a_policy_sees_its_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb,GPU-cc")
    with placed((2, 0)), shown(gpus_here()):
        assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]) == ("GPU-cc,GPU-aa", "PCI_BUS_ID")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aa,GPU-bb,GPU-cc"


DRIVER = """#!/bin/sh
echo "0, GPU-aa11, 81559, NVIDIA H100 80GB HBM3"
echo "1, GPU-bb22, 40960, NVIDIA A100"
"""


@pytest.mark.parametrize(
    ("said", "indices"),
    [(None, ["0", "1"]), ("1", ["1"]), ("GPU-bb22,0", ["1", "0"]), ("", []), ("7,0", []), ("-1", [])],
)
def test_the_cards_of_a_machine_are_those_that_the_process_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, indices: list[str]
) -> None:
    (tmp_path / "nvidia-smi").write_text(DRIVER)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if said is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert [card.index for card in cards()] == indices
    (node,) = Supply.local().nodes
    sizes = {"0": 81559 * 1024**2, "1": 40960 * 1024**2}
    assert (node.gpus, node.gpu_memory) == (len(indices), min((sizes[i] for i in indices), default=0))
    assert cards()[:1] in ((), (Card("0", "GPU-aa11", sizes["0"], "NVIDIA H100 80GB HBM3"),)) or indices[0] == "1"
