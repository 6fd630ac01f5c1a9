"""A run's `resources`: the same numbers on every executor, and a policy that is lost for good is parked in sight."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from learners import registry
from learners.cli import main
from learners.example import Example
from learners.report import write_run_report
from learners.run.check import check
from learners.run.checkpoint import load
from learners.run.config import load_run
from learners.run.lines import read_lines
from learners.run.results import read_run
from learners.run.training import resume, train
from learners.tabular import TabularLearner
from mutual_env.errors import MutualEnvError
from mutual_env.types import Completion, Context, Metrics, Prompt

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

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        if self.version >= 2:
            time.sleep(8.0)
        return super().act(prompts, n, seed=seed)


def hanging(name: str, tokenizer: Any) -> Hanging:
    return Hanging(tokenizer, name=name)


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


ASYNCHRONOUS = ["resources.mode=asynchronous", "sharing.options.max_staleness=2"]
EASY = [  # so that something is learnt in every round
    "rounds=7",
    "env.group_size=16",
    "env.prompts_per_round=6",
    "policies.ada.options.max_new_tokens=2",
    "policies.bob.options.max_new_tokens=2",
    "checkpoint.every=3",
]


class Slow(TabularLearner):
    """Takes its time to sample."""

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        time.sleep(0.03)
        return super().act(prompts, n, seed=seed)


def metrics_of(config_file: Path, name: str, *overrides: str) -> bytes:
    directory = train(load_run(config_file, [*EASY, f"name={name}", *overrides])).directory
    return (directory / "metrics.jsonl").read_bytes()


@pytest.mark.long
def test_asynchronous_rounds_give_the_same_metrics_in_processes(config_file: Path) -> None:
    serial = metrics_of(config_file, "serial", *ASYNCHRONOUS)
    assert metrics_of(config_file, "processes", *ASYNCHRONOUS, "resources.executor=processes") == serial


@pytest.mark.long
def test_asynchronous_rounds_give_the_same_metrics_in_threads_whoever_is_fast(config_file: Path) -> None:
    registry.register("slow", lambda name, tokenizer, max_new_tokens: Slow(tokenizer, name=name, max_new_tokens=2))
    serial = metrics_of(config_file, "serial", *ASYNCHRONOUS)
    for policy in ("ada", "bob"):
        slow = f"policies.{policy}.learner=slow"
        assert metrics_of(config_file, f"threads-{policy}", *ASYNCHRONOUS, "resources.executor=threads", slow) == serial


@pytest.mark.long
def test_what_asynchronous_rounds_learn_from_is_as_old_as_the_staleness_and_no_older(config_file: Path) -> None:
    more = ["evaluation.every=0", "checkpoint.every=5", "resources.executor=threads"]
    metrics_of(config_file, "run", *ASYNCHRONOUS, *more)
    run = read_run(config_file.parent / "run")
    for policy in ("ada", "bob"):
        # A checkpoint, where all that was sampled is learnt, is after 5 rounds: rounds 0 1 2 are sampled before
        # anything is learnt, then one for each that is learnt; and again from round 5 on.
        assert [int(age) for _, age in run.metrics[policy]["staleness/max"]] == [0, 1, 2, 2, 2, 0, 1]
        assert run.metrics[policy]["share/borrowed"][-1][1] == 0.5
    paces = [line for line in read_lines(run.path / "timings.jsonl") if line["type"] == "pace"]
    assert len(paces) == 2 * 7
    assert max(line["lead"] for line in paces) <= 3
    assert "seconds waited for the slowest" in write_run_report(run.path).read_text()


@pytest.mark.long
def test_asynchronous_rounds_without_a_delay_are_the_synchronous_ones(config_file: Path) -> None:
    config = load_run(config_file, [*EASY, "name=alone", *ASYNCHRONOUS, "checkpoint.every=1"])
    alone = read_run(train(config).directory)
    together = read_run(train(load_run(config_file, [*EASY, "name=together"])).directory)
    for policy in ("ada", "bob"):
        for metric in ("reward/mean", "loss", "gradient_norm", "share/lessons", "batch/examples"):
            assert alone.metrics[policy][metric] == together.metrics[policy][metric]
        assert any(norm > 0.0 for _, norm in alone.metrics[policy]["gradient_norm"])


@pytest.mark.long
def test_an_asynchronous_run_that_is_stopped_goes_on_to_the_same_metrics(config_file: Path) -> None:
    whole = metrics_of(config_file, "whole", *ASYNCHRONOUS)

    class EnoughError(Exception):
        pass

    class Stops:
        def started(self, run: object) -> None:
            pass

        def measured(self, done: int, metrics: object) -> None:
            if done == 5:
                raise EnoughError

        def finished(self, status: str) -> None:
            assert status == "stopped after 5 rounds"

    config = load_run(config_file, [*EASY, "name=cut", *ASYNCHRONOUS, "resources.executor=threads"])
    with pytest.raises(EnoughError):
        train(config, listeners=[Stops()])
    directory = config_file.parent / "cut"
    assert resume(directory).rounds == 7
    assert (directory / "metrics.jsonl").read_bytes() == whole


def test_a_policy_lost_in_asynchronous_rounds_is_parked_and_not_waited_for(config_file: Path) -> None:
    registry.register("hanging", hanging)
    overrides = [
        *ASYNCHRONOUS,
        "rounds=7",
        "policies.bob={learner: hanging}",
        "resources.executor=threads",
        "resources.patience={restarts: 0}",
        "resources.demands={bob: {phases: {act: {limit: 1.0}, score: {}, update: {}}}}",
        "evaluation.every=0",
    ]
    config = load_run(config_file, overrides)
    run = read_run(train(config).directory)
    assert (len(run.metrics["ada"]["reward/mean"]), run.finished) == (7, True)
    assert 2 <= len(run.metrics["bob"]["reward/mean"]) <= 4


class StuckAtTheEnd(TabularLearner):
    """Stops answering in its second update."""

    def update(self, examples: Sequence[Example]) -> Metrics:
        if self.version == 1:
            time.sleep(4.0)
        return super().update(examples)


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_a_policy_lost_just_before_a_checkpoint_is_not_in_it(config_file: Path, mode: str) -> None:
    registry.register("stuck", lambda name, tokenizer: StuckAtTheEnd(tokenizer, name=name))
    overrides = [
        f"resources.mode={mode}",
        "sharing.options.max_staleness=1",
        "policies.bob={learner: stuck}",
        "resources.executor=threads",
        "resources.patience={restarts: 0}",
        "resources.demands={bob: {phases: {act: {}, score: {}, update: {limit: 0.5}}}}",
        "evaluation.every=0",
    ]
    directory = train(load_run(config_file, overrides)).directory  # a checkpoint every 2 rounds
    checkpoint = load(directory / "checkpoints" / "round_00000002")
    assert checkpoint.state["parked"] == ["bob"]
    assert not (checkpoint.directory / "bob").exists()
    assert resume(directory).rounds == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("{}", "'prp' is given none"),
        ("{max_staleness: null}", "'prp' is given None"),
        ("{max_staleness: 0}", "is given 0"),
        ("{max_staleness: 1, teacher: bob}", "a policy in training"),
    ],
)
def test_asynchronous_rounds_without_a_bound_are_refused(config_file: Path, options: str, sentence: str) -> None:
    with pytest.raises(MutualEnvError, match=sentence):
        check(load_run(config_file, ["resources.mode=asynchronous", f"sharing.options={options}"]))


def test_a_policy_that_hangs_is_parked_and_the_others_go_on_also_after_a_resume(config_file: Path) -> None:
    registry.register("hanging", hanging)
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
        ("resources.patience={limit: .inf}", "option 'limit' of resources.patience must be a finite number, got inf"),
        ("resources.devices=two", "must read NODESxGPUS"),
        ("resources.mode=async", "resources.mode must be one of synchronous, asynchronous"),
        ("sharing.exchange=ray", "needs resources.executor=ray"),
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


def test_a_plan_says_which_durations_it_assumes_and_takes_them_from_a_run(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = "resources.demands={ada: {phases: {act: {seconds: 9}, update: {}}}}"
    assert main(["plan", str(config_file), needs, "--devices", "1x0@2"]) == 0
    out = capsys.readouterr().out
    assert "assumed    1 s for each of ada/update, bob/act, bob/verify, bob/score, bob/update, bob/sync: times" in out
    assert "makespan   26 s" in out  # two rounds; all meet after each phase: max(9, 1) + 1 + 1 + max(1, 1) + 1
    run = train(load_run(config_file)).directory
    with (run / "timings.jsonl").open("w") as file:
        for policy, phase, seconds in (("ada", "act", 3), ("ada", "update", 2), ("bob", "act", 4)):
            span = {"policy": policy, "phase": phase, "devices": ["local"], "requested": 0, "began": 1}
            file.write(json.dumps({"type": "span", **span, "ended": 1 + seconds, "outcome": "done", "share": 1}) + "\n")
    assert main(["plan", str(config_file), "--devices", "1x0@2", "--like", str(run)]) == 0
    out = capsys.readouterr().out
    assert "assumed" not in out
    assert "makespan   12 s" in out  # two rounds of max(3, 4) and 2


def test_without_gpus_where_a_policy_lives_is_found_without_its_learner_being_loaded(tmp_path: Path) -> None:
    # A report lays out what was planned: for that it had loaded torch and transformers, eight seconds of a processor.
    path = tmp_path / "run.yaml"
    path.write_text("policies: {ada: {learner: torch, options: {path: nowhere}}}\n")
    code = (
        "import sys; from pathlib import Path; from learners.resources.plan import parse_devices\n"
        "from learners.run.config import load_run; from learners.run.places import read_places\n"
        "assert read_places(load_run(Path(sys.argv[1])), parse_devices('1x0@2')).demands\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
