"""Evaluations while a run goes on: the bytes of a run that stands still meanwhile, whatever ends it on the way."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from learners import registry
from learners.example import Example
from learners.run.config import load_run
from learners.run.evaluating import InOrder
from learners.run.lines import read_lines
from learners.run.loop import evaluate
from learners.run.training import resume, train
from learners.tabular import TabularLearner
from mutual_env.errors import ConfigError
from mutual_env.types import AgentInfo, Completion, Context, Metrics, Prompt
from tests.runs.test_run import CONFIG, in_a_process
from tests.runs.test_run import whole as metrics_samples_and_weights
from tests.tiers import rest_long

WAIT = 30.0
ASIDE = ["evaluation.background=true"]


def whole(directory: Path) -> dict[str, bytes]:
    return {**metrics_samples_and_weights(directory), "e": (directory / "evaluations.jsonl").read_bytes()}


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(f"{CONFIG}output: {tmp_path}\n")
    return path


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
@pytest.mark.parametrize("executor", rest_long(["threads", "processes"], quick=1))
def test_the_bytes_are_those_of_a_run_that_stood_still(config_file: Path, executor: str, mode: str) -> None:
    common = [f"resources.mode={mode}", "sharing.options.max_staleness=1"]
    plain = train(load_run(config_file, [*common, "name=plain"])).directory
    aside = train(load_run(config_file, [*common, "name=aside", f"resources.executor={executor}", *ASIDE])).directory
    assert whole(aside) == whole(plain)


class Watched(TabularLearner):
    """Whoever evaluates for `ada` after three rounds waits until the policy itself has learnt once more."""

    learnt = threading.Event()

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        if n == 2 and self.version == 3 and self.name == "ada":
            assert self.learnt.wait(WAIT), "the run stands still"
        return super().act(prompts, n, seed=seed)

    def update(self, examples: Sequence[Example]) -> Metrics:
        metrics = super().update(examples)
        if self.version == 4:
            self.learnt.set()
        return metrics


def test_rounds_go_on_and_their_lines_wait_for_the_evaluation_before_them(config_file: Path, tmp_path: Path) -> None:
    registry.register("awaited", lambda name="": Watched(name=name, max_new_tokens=2, alphabet="0123456789"))
    Watched.learnt.clear()
    path = tmp_path / "watched.yaml"
    text = CONFIG.partition("policies:")[0] + "policies: {ada: {learner: awaited}, bob: {learner: awaited}}\n"
    path.write_text(f"{text}evaluation: {{every: 3, prompts: 8, samples: 2}}\noutput: {tmp_path}\n")
    directory = train(load_run(path, ["resources.executor=threads", *ASIDE])).directory
    said = [("evaluation" in line, line["round"]) for line in read_lines(directory / "metrics.jsonl")]
    assert said == sorted(said, key=lambda one: (one[1], not one[0]))


KILLED = """
import os, signal, time
from pathlib import Path
from learners.run.config import load_run
from learners.run.evaluating import Twins
from learners.run.training import resume, train
real, count = Twins._evaluate, [0]
def dies(self, *asked):
    count[0] += 1
    if count[0] == {which}:
        time.sleep({seconds})
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *asked)
Twins._evaluate = dies
train(load_run(Path({path!r}), {overrides!r}))
"""


@pytest.mark.parametrize(("which", "seconds"), rest_long([(2, 0.0), (1, 0.0), (2, 0.3), (3, 0.0)], quick=1))
def test_an_evaluation_that_was_pending_at_a_kill_is_made_again(config_file: Path, which: int, seconds: float) -> None:
    plain = train(load_run(config_file, ["name=plain"])).directory
    overrides = ["name=killed", "resources.executor=threads", *ASIDE]
    code = KILLED.format(which=which, seconds=seconds, path=str(config_file), overrides=overrides)
    assert in_a_process(code) == -signal.SIGKILL
    directory = plain.parent / "killed"
    assert json.loads((directory / "run.json").read_text())["status"] == "running"
    assert whole(resume(directory).directory) == whole(plain)


def test_an_evaluation_that_fails_ends_the_run_and_is_made_again(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(load_run(config_file, ["name=plain"])).directory
    real, made = evaluate, list[int]()

    def fails(*asked: object) -> Mapping[str, AgentInfo]:
        made.append(0)
        if len(made) == 2:
            raise ArithmeticError("not a number")
        return real(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr("learners.run.evaluating.evaluate", fails)
    with pytest.raises(ArithmeticError, match="not a number"):
        train(load_run(config_file, ["name=failed", "resources.executor=threads", *ASIDE]))
    assert whole(resume(plain.parent / "failed").directory) == whole(plain)


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_it_is_refused_where_nobody_could_compute_beside(config_file: Path, executor: str) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.background needs resources\.executor=threads or processes"):
        train(load_run(config_file, [f"resources.executor={executor}", *ASIDE]))


def test_what_is_said_first_is_done_first() -> None:
    order, found, done = InOrder(), Future[Mapping[str, AgentInfo]](), list[str]()
    order.do(lambda: done.append("before"))
    order.after(found, lambda _: done.append("found"))
    order.do(lambda: done.append("after"))
    assert done == ["before"]
    threading.Timer(0.05, found.set_result, [{}]).start()
    order.settle()
    assert done == ["before", "found", "after"]
