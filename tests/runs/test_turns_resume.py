"""Rounds of several turns: a run killed in the middle of an episode goes on as if it was not; its seed decides all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mutual_env
from learners.run.check import check
from learners.run.config import load_run
from learners.run.training import resume, train
from mutual_env.errors import ConfigError
from tests.runs.mortal_families import KILL_AT, Clock, EnoughError
from tests.tiers import rest_long

RETRIES, DEBATE, GAME = "test/mortal-retries-v0", "test/mortal-debate-v0", "test/mortal-pile-v0"
ADA = """
  ada:
    learner: tabular
    options: {tokenizer: {kind: char, alphabet: "0123456789+=()%?-\\n"}, alphabet: "0123", max_new_tokens: 1}
"""
BOB = """
  bob:
    learner: tabular
    options:
      tokenizer: {kind: pair, alphabet: "0123456789+=()%?-\\n", merges: ["%1", "01"]}
      alphabet: "0123"
      max_new_tokens: 1
"""
CONFIG = """
name: whole
rounds: 8
env: {group_size: 3, prompts_per_round: 3, options: {digits: 1, modulus: 4}}
sharing: {strategy: prp}
checkpoint: {every: 3}
evaluation: {every: 4, prompts: 4}
"""
ASYNCHRONOUS = ["resources.mode=asynchronous", "sharing.options={max_staleness: 2}", "resources.executor=threads"]


@pytest.fixture(scope="module", autouse=True)
def _families() -> None:
    mutual_env.register(RETRIES, "tests.runs.mortal_families:MortalRetryTasks")
    mutual_env.register(GAME, "tests.runs.mortal_families:MortalPileTasks")
    mutual_env.register(DEBATE, "tests.runs.mortal_families:MortalDebateTasks")


@pytest.fixture(autouse=True)
def _clock() -> Iterator[None]:
    Clock.calls, Clock.at = 0, None
    yield
    Clock.at = None


def written(tmp_path: Path, *policies: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + "policies:" + "".join(policies or (ADA, BOB)) + f"output: {tmp_path}\n")
    return path


def kept(directory: Path) -> dict[str, bytes]:
    files = {name: (directory / name).read_bytes() for name in ("metrics.jsonl", "samples.jsonl", "lessons.jsonl")}
    last = max((directory / "checkpoints").glob("round_*"))
    return files | {str(p.relative_to(last)): p.read_bytes() for p in sorted(last.glob("[!.]*/*"))}


@pytest.mark.parametrize(
    ("family", "mode"),
    rest_long(
        [
            (RETRIES, ASYNCHRONOUS),
            (RETRIES, []),
            (GAME, []),
            (DEBATE, ["sharing.exchange=memory", "resources.executor=processes"]),
        ],
        quick=1,
    ),
)
def test_stopped_in_the_middle_of_an_episode_and_resumed_gives_the_same_bytes(
    tmp_path: Path, family: str, mode: list[str]
) -> None:
    config = written(tmp_path)
    overrides = [f"env.id={family}", *mode]
    whole = kept(train(load_run(config, overrides)).directory)
    Clock.at, Clock.calls = Clock.calls * 6 // 10, 0
    with pytest.raises(EnoughError):
        train(load_run(config, ["name=cut", *overrides]))
    Clock.at = None
    assert kept(resume(tmp_path / "cut").directory) == whole


def test_killed_in_the_middle_of_an_episode_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    config = written(tmp_path)
    whole = kept(train(load_run(config, [f"env.id={RETRIES}"])).directory)
    program = (
        "import sys, mutual_env\n"
        "from learners.cli import main\n"
        f"mutual_env.register({RETRIES!r}, 'tests.runs.mortal_families:MortalRetryTasks')\n"
        "main(sys.argv[1:])"
    )
    arguments = ["train", str(config), "name=cut", f"env.id={RETRIES}"]
    environment = {**os.environ, KILL_AT: str(Clock.calls // 2), "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, timeout=120
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert kept(resume(tmp_path / "cut").directory) == whole


@pytest.mark.parametrize(
    ("family", "executor"), rest_long([(DEBATE, "threads"), (RETRIES, "processes"), (GAME, "threads")], quick=1)
)
def test_no_executor_changes_a_byte(tmp_path: Path, family: str, executor: str) -> None:
    config = written(tmp_path)
    serial = kept(train(load_run(config, [f"env.id={family}"])).directory)
    other = train(load_run(config, ["name=other", f"env.id={family}", f"resources.executor={executor}"]))
    assert kept(other.directory) == serial


@pytest.mark.parametrize("family", [DEBATE, GAME])
def test_agents_that_answer_one_another_do_not_run_apart(tmp_path: Path, family: str) -> None:
    config = load_run(written(tmp_path), [f"env.id={family}", *ASYNCHRONOUS])
    with pytest.raises(ConfigError, match=f"{family}: its agents answer one another, .*set resources.mode=synchronous"):
        train(config)
    assert not (tmp_path / "whole").exists()
    with pytest.raises(ConfigError, match="its agents answer one another"):
        check(config)


@pytest.mark.parametrize("family", rest_long([GAME, RETRIES, DEBATE], quick=1))
def test_the_order_of_the_agents_changes_nothing(tmp_path: Path, family: str) -> None:
    (tmp_path / "b").mkdir()
    third = ADA.replace("ada", "cleo")
    chosen = [f"env.id={family}", *(["env.options.players=3"] if family == GAME else [])]
    one = train(load_run(written(tmp_path, ADA, BOB, third), chosen)).directory
    other = train(load_run(written(tmp_path / "b", third, BOB, ADA), chosen)).directory
    assert by_policy(one) == by_policy(other)


def by_policy(directory: Path) -> tuple[list[str], dict[str, bytes]]:
    """The metrics, whoever's come first, and the weights."""
    lines = sorted((directory / "metrics.jsonl").read_text().splitlines())
    weights = {name: data for name, data in kept(directory).items() if "/" in name}
    return lines, weights


@pytest.mark.long
@pytest.mark.parametrize("family", ["mutual/retries-v0", "mutual/python-v0"])
def test_the_number_of_worker_processes_changes_nothing(family: str) -> None:
    played = []
    for workers in (1, 3):
        with mutual_env.VerifierPool(workers) as pool:
            options: dict[str, Any] = {"family": "mutual/arithmetic-v0"}
            env = mutual_env.make(
                family, agents=2, group_size=3, prompts_per_round=2, pool=pool, verifier="math_verify", **options
            )
            env.reset(seed=0)
            texts = iter(["<python>print(7)", "1", "\\boxed{2}", "<python>import os\nos.getcwd() != ''"] * 50)
            steps = []
            while env.agents:
                steps.append(
                    env.step({agent: [[next(texts) for _ in range(3)] for _ in range(2)] for agent in env.agents})
                )
            played.append(steps)
    assert played[0] == played[1]
