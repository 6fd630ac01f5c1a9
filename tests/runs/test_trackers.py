"""Who is told how a run goes, and what happens when a listener fails."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from learners.run import trackers
from learners.run.check import check
from learners.run.config import load_run
from learners.run.trackers import TrackedRun
from learners.run.tracking import TRACED, conversations, finite
from learners.run.training import resume, train
from mutual_env.errors import MissingExtraError, UnknownNameError
from mutual_env.types import Metrics

CONFIG = """
name: r
rounds: 4
env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 3, options: {digits: 1}}
policies:
  ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+="}}}
  bob: {learner: tabular, options: {tokenizer: {kind: pair, alphabet: "0123456789+=", merges: ["01"]}}}
evaluation: {every: 2, prompts: 4}
checkpoint: {every: 2}
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    return path


class Diary:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.runs: list[TrackedRun] = []
        self.told: list[tuple[int, str, str, float]] = []
        self.ends: list[str] = []

    def started(self, run: TrackedRun) -> None:
        self.runs.append(run)

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        self.told += [(done, policy, name, value) for policy, of in metrics.items() for name, value in of.items()]

    def finished(self, status: str) -> None:
        self.ends.append(status)


def test_every_listener_hears_of_every_round_and_evaluation_of_each_policy(config_file: Path) -> None:
    first, second = Diary(), Diary()
    directory = train(load_run(config_file), listeners=[first, second]).directory
    (run,) = first.runs
    assert (run.name, run.directory, run.policies, run.rounds, run.done) == ("r", directory, ("ada", "bob"), 4, 0)
    assert run.config["env"]["options"] == {"digits": 1}
    for policy in ("ada", "bob"):
        rewards = [done for done, who, name, _ in first.told if (who, name) == (policy, "reward/mean")]
        accuracies = [done for done, who, name, _ in first.told if (who, name) == (policy, "eval/accuracy")]
        assert (rewards, accuracies) == ([1, 2, 3, 4], [0, 2, 4])
    assert first.ends == ["finished"]
    assert (second.told, second.ends) == (first.told, first.ends)


def test_a_listener_of_a_resumed_run_is_told_how_many_rounds_were_done_before(config_file: Path) -> None:
    directory = train(load_run(config_file)).directory
    diary = Diary()
    resume(directory, listeners=[diary])
    assert [run.done for run in diary.runs] == [4]


class Reader(Diary):
    """Reads along, and watches."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[dict[str, Any]] = []
        self.phases: set[str] = set()

    def entered(self, phase: str) -> None:
        self.phases.add(phase)

    def wrote(self, done: int, policy: str, samples: Mapping[str, Any]) -> None:
        self.read.append({"round": done - 1, "policy": policy, **samples})


@pytest.mark.parametrize("by_name", [True, False])
def test_a_listener_that_reads_is_told_what_the_run_keeps(config_file: Path, by_name: bool) -> None:
    reader = Reader()
    trackers.register("reader", lambda: reader)
    overrides, listeners = (["trackers=[reader]"], []) if by_name else ([], [reader])
    directory = train(load_run(config_file, overrides), listeners=listeners).directory
    assert reader.read == [json.loads(line) for line in (directory / "samples.jsonl").read_text().splitlines()]
    assert {"sampling", "updating", "evaluating", "saving"} <= reader.phases
    (messages, known), *_ = conversations(reader.read[0])
    assert [message["role"] for message in messages] == ["user", "assistant"]
    first = reader.read[0]["groups"][0]
    assert messages[0]["content"] == first["prompt"]
    assert messages[1]["content"] == first["completions"][0][0]
    assert known["task"] == first["task"]
    assert known["reward"] == first["completions"][0][1]


def test_a_prompt_of_messages_stays_one_in_a_trace_and_their_number_is_bounded() -> None:
    prompt = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "1+1?"}]
    completions = [["2", 1.0, "correct", True, 1, "", 0.5]] * (2 * TRACED)
    found = conversations({"groups": [{"task": "t", "prompt": prompt, "answer": "2", "completions": completions}]})
    assert len(found) == TRACED
    assert found[0][0] == [*prompt, {"role": "assistant", "content": "2"}]


class Fails(Diary):
    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        super().measured(done, metrics)
        if done == 2:
            raise ConnectionError("no network")


def test_a_named_tracker_that_fails_is_warned_of_and_the_run_goes_on_without_it(config_file: Path) -> None:
    made: list[Fails] = []

    def make() -> Fails:
        made.append(Fails())
        return made[-1]

    trackers.register("fails", make)
    quiet = train(load_run(config_file)).directory
    with pytest.warns(UserWarning, match="tracker 'fails' failed when the run measured .* ConnectionError: no network"):
        directory = train(load_run(config_file, ["name=tracked", "trackers=[fails]"])).directory
    assert max(done for done, *_ in made[0].told) == 2
    assert made[0].ends == []
    assert (directory / "metrics.jsonl").read_bytes() == (quiet / "metrics.jsonl").read_bytes()


def test_an_unknown_tracker_is_refused_with_the_nearest_name(config_file: Path) -> None:
    trackers.register("paper-diary", Diary)
    with pytest.raises(UnknownNameError, match="unknown tracker 'paper-dairy': did you mean 'paper-diary'"):
        check(load_run(config_file, ["trackers=[paper-dairy]"]))


MODULE = """
import json
class Lines:
    def started(self, run):
        self.path = run.directory / "acme.json"
        self.heard = []
    def measured(self, done, metrics):
        self.heard.append([done, sorted(metrics)])
    def finished(self, status):
        self.path.write_text(json.dumps([status, self.heard]))
"""


def test_a_tracker_of_another_package_is_one_class(config_file: Path, install) -> None:
    install("acme_lines", "[mutual_env.trackers]\nacme-lines = acme_lines:Lines\n", MODULE)
    directory = train(load_run(config_file, ["trackers=[acme-lines]", "evaluation.every=0"])).directory
    expected = ["finished", [[done, ["ada", "bob"]] for done in (1, 2, 3, 4)]]
    assert json.loads((directory / "acme.json").read_text()) == expected


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_tracker_whose_package_is_missing_is_refused_before_the_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'mutual-env\[{name}\]'"):
        trackers.check([name])


def test_what_cannot_be_drawn_is_left_out() -> None:
    found = finite({"ada": {"reward/mean": 0.5, "loss": float("nan"), "share/x{y}": float("inf"), "a{b}": 1.0}})
    assert found == {"ada": {"reward/mean": 0.5, "a_b_": 1.0}}
