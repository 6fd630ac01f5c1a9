"""A run's `resources`: the same numbers on every executor, and a policy that is lost for good is parked in sight."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from learners import registry
from learners.build import check
from learners.cli import main
from learners.config import load_run
from learners.results import read_run
from learners.run import resume, train
from learners.run_directory import read_lines
from learners.tabular import TabularLearner
from mutual_env.errors import MutualEnvError
from mutual_env.types import Completion, Prompt

CONFIG = """
name: r
rounds: 4
env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 3, options: {digits: 1}}
sharing: {strategy: prp}
policies:
  ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+="}}}
  bob: {learner: tabular, options: {tokenizer: {kind: pair, alphabet: "0123456789+=", merges: ["01"]}}}
evaluation: {every: 2, prompts: 4}
checkpoint: {every: 2}
"""


class Hanging(TabularLearner):
    """Stops answering after two updates."""

    def act(self, prompts: Sequence[Prompt], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        if self.version >= 2:
            time.sleep(8.0)
        return super().act(prompts, n, seed=seed)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    return path


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_every_executor_gives_the_same_metrics_byte_for_byte(config_file: Path, executor: str) -> None:
    serial = train(load_run(config_file)).directory / "metrics.jsonl"
    other = train(load_run(config_file, ["name=other", f"resources.executor={executor}"])).directory / "metrics.jsonl"
    assert other.read_bytes() == serial.read_bytes()


def test_a_policy_that_hangs_is_parked_and_the_others_go_on_also_after_a_resume(config_file: Path) -> None:
    registry.register("hanging", lambda name, tokenizer: Hanging(tokenizer, name=name))
    overrides = [
        "policies.bob={learner: hanging}",
        "resources={executor: threads, patience: {restarts: 0},"
        " demands: {bob: {phases: {act: {limit: 1.0}, score: {}, update: {}}}}}",
        "evaluation.every=0",
    ]
    config = load_run(config_file, overrides)
    result = train(config)
    run = read_run(result.directory)
    assert (result.rounds, len(run.metrics["ada"]["reward/mean"]), len(run.metrics["bob"]["reward/mean"])) == (4, 4, 2)
    events = [line for line in read_lines(result.directory / "timings.jsonl") if line.get("kind") == "parked"]
    assert [event["policy"] for event in events] == ["bob"]
    assert resume(result.directory).rounds == 4


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("resources.executor=thread", "did you mean 'threads'"),
        ("resources.options.adress=x", "unknown option of executor 'serial' 'adress'"),
        ("resources.demands={eve: {}}", "unknown policy in resources.demands 'eve'"),
        ("resources.demands={ada: {phases: {act: {gpu: 1}}}}", "did you mean 'gpus'"),
        ("resources.demands={ada: {phases: {act: {gpus: -1}}}}", "Needs.gpus must be a number of at least 0"),
        ("resources.patience={limit: .inf}", "Patience.limit must be finite"),
        ("resources.devices=two", "must read NODESxGPUS"),
    ],
)
def test_a_resources_section_that_makes_no_sense_is_refused_before_anything_starts(
    config_file: Path, override: str, sentence: str
) -> None:
    with pytest.raises(MutualEnvError) as caught:
        check(load_run(config_file, [override]))
    assert sentence in str(caught.value)


def test_a_plan_says_what_does_not_fit_and_exits_with_1(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs = "resources.demands={ada: {phases: {act: {gpus: 1, memory: 9.0e10}}}}"
    assert main(["plan", str(config_file), needs, "--devices", "1x1:80"]) == 1
    assert "ada" in capsys.readouterr().out
    assert main(["plan", str(config_file)]) == 0
