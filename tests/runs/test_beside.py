"""A policy that samples beside its own training: the bytes of one that does one after the other, sooner."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from learners import registry
from learners.example import Example
from learners.run.config import load_run
from learners.run.lines import read_lines
from learners.run.places import read_places
from learners.run.training import resume, train
from learners.tabular import TabularLearner
from mutual_env.errors import ConfigError
from mutual_env.types import Completion, Context, Metrics, Prompt
from tests.runs.test_run import CONFIG, in_a_process, whole
from tests.tiers import rest_long

WAIT = 30.0
APART = ["resources.mode=asynchronous"]
BESIDE = [*APART, "resources.own_sampler=true"]
STRETCHES = ["rounds=8", "checkpoint.every=4", "evaluation.every=4"]  # of four rounds: all meet between them


OF_TORCH = CONFIG.replace("learner: tabular", "learner: tiny").replace('alphabet: "0123456789", ', "")
OF_TORCH = OF_TORCH.replace('      alphabet: "0123456789"\n', "")
LEARNT = [  # what the copies are given beside the weights: moments, a reference, adapters
    f"policies.{name}.options.{option}"
    for name, options in (
        ("ada", ("kl_coefficient=0.1", "reference_reset=2", "optimizer_reset=true", "minibatches=2")),
        ("bob", ("lora_rank=2", "architecture=gpt_neox", "dtype=bfloat16", "schedule=cosine", "total_steps=20")),
    )
    for option in (*options, "learning_rate=0.01", "width=16", "layers=1")
]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(f"{CONFIG}output: {tmp_path}\n")
    return path


@pytest.fixture
def of_torch(tmp_path: Path) -> Path:
    path = tmp_path / "torch.yaml"
    path.write_text(f"{OF_TORCH}output: {tmp_path}\n")
    return path


@pytest.mark.parametrize(
    ("executor", "bound", "further"),
    rest_long(
        [
            ("threads", 1, ()),
            ("threads", 2, ("env.refills=1",)),
            ("processes", 2, ()),
            ("threads", 3, ("sharing.strategy=auto",)),
            ("threads", 1, ("evaluation.background=true",)),
        ],
        quick=1,
    ),
)
def test_the_bytes_are_those_of_sampling_first_and_learning_after(
    config_file: Path, executor: str, bound: int, further: tuple[str, ...]
) -> None:
    common = [*STRETCHES, f"sharing.options.max_staleness={bound}", *further]
    plain, beside = (
        train(load_run(config_file, [*common, *way, f"name={name}", f"resources.executor={executor}"])).directory
        for name, way in (("plain", APART), ("beside", BESIDE))
    )
    assert whole(beside) == whole(plain)
    acts = [line for line in read_lines(beside / "timings.jsonl") if line.get("phase") == "act"]
    rounds = sum(line["policy"] == "ada (sampler)" for line in acts)
    assert rounds >= 2 * (4 - bound)  # more where a round has several waves


@pytest.mark.torch
@pytest.mark.parametrize(("executor", "bound"), rest_long([("threads", 1), ("processes", 2)], quick=0))
def test_models_sample_beside_their_training_with_the_same_bytes(of_torch: Path, executor: str, bound: int) -> None:
    common = [*STRETCHES, *LEARNT, f"sharing.options.max_staleness={bound}", f"resources.executor={executor}"]
    plain, beside = (
        train(load_run(of_torch, [*common, *way, f"name={name}"])).directory
        for name, way in (("plain", APART), ("beside", BESIDE))
    )
    assert whole(beside) == whole(plain)
    acts = [line for line in read_lines(beside / "timings.jsonl") if line.get("phase") == "act"]
    assert {line["policy"] for line in acts} >= {"ada (sampler)", "bob (sampler)"}


class Watched(TabularLearner):
    """Learns for the second time only once somebody has sampled with what it had learnt until then."""

    sampled = threading.Event()

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        if self.version == 1 and self.name == "ada":
            self.sampled.set()
        return super().act(prompts, n, seed=seed)

    def update(self, examples: Sequence[Example]) -> Metrics:
        if self.version == 1 and self.name == "ada":
            assert self.sampled.wait(WAIT), "it samples after its update"
            assert not self.sampled.clear()
        return super().update(examples)


def test_it_samples_while_it_learns(tmp_path: Path) -> None:
    registry.register("watched beside", lambda name="": Watched(name=name, max_new_tokens=2, alphabet="0123456789"))
    Watched.sampled.clear()
    path = tmp_path / "run.yaml"
    path.write_text(
        f"{CONFIG.partition('policies:')[0]}policies: {{ada: {{learner: watched beside}}}}\n"
        f"evaluation: {{every: 0}}\ncheckpoint: {{every: 0}}\noutput: {tmp_path}\n"
    )
    train(load_run(path, [*BESIDE, "sharing.options.max_staleness=1", "resources.executor=threads"]))


KILLED = """
import os, signal
from pathlib import Path
from learners.run.beside import Beside
from learners.run.config import load_run
from learners.run.training import train
real, count = Beside._sample, [0]
def dies(self, *asked):
    count[0] += 1
    if count[0] == {which}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *asked)
Beside._sample = dies
train(load_run(Path({path!r}), {overrides!r}))
"""


@pytest.mark.parametrize(("executor", "which"), rest_long([("threads", 5), ("processes", 7)], quick=0))
def test_a_run_killed_while_both_go_on_is_resumed_to_the_same_bytes(
    config_file: Path, executor: str, which: int
) -> None:
    overrides = [*BESIDE, *STRETCHES, "sharing.options.max_staleness=2", f"resources.executor={executor}"]
    plain = train(load_run(config_file, [*overrides, "name=plain"])).directory
    code = KILLED.format(which=which, path=str(config_file), overrides=[*overrides, "name=killed"])
    assert in_a_process(code) == -signal.SIGKILL
    assert whole(resume(plain.parent / "killed").directory) == whole(plain)


@pytest.mark.torch
@pytest.mark.parametrize(("executor", "which"), rest_long([("threads", 5), ("processes", 6)], quick=0))
def test_models_killed_while_both_go_on_are_resumed_to_the_same_bytes(
    of_torch: Path, executor: str, which: int
) -> None:
    overrides = [*BESIDE, *STRETCHES, *LEARNT, "sharing.options.max_staleness=2", f"resources.executor={executor}"]
    plain = train(load_run(of_torch, [*overrides, "name=plain"])).directory
    code = KILLED.format(which=which, path=str(of_torch), overrides=[*overrides, "name=killed"])
    assert in_a_process(code) == -signal.SIGKILL
    assert whole(resume(plain.parent / "killed").directory) == whole(plain)


@pytest.mark.parametrize("way", [["resources.executor=threads"], [*APART, "sharing.options.max_staleness=1"]])
def test_it_is_refused_where_nobody_could_sample_beside(config_file: Path, way: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"own_sampler needs resources\.mode=asynchronous and resources\.executor="):
        train(load_run(config_file, [*way, "resources.own_sampler=true"]))


@pytest.mark.torch
@pytest.mark.parametrize(
    ("key", "way"),
    [
        ("resources.own_sampler", [*BESIDE, "sharing.options.max_staleness=1"]),
        ("evaluation.background", ["evaluation.background=true"]),
    ],
)
def test_a_copy_is_refused_where_it_would_sample_with_the_weights_of_its_policy(
    config_file: Path, key: str, way: list[str]
) -> None:
    """The policy sends them to its server after every update, while the copy is to sample with older ones."""
    at_a_server = "policies.bob={learner: vllm, options: {path: models/smollm2, server: 'http://127.0.0.1:8000'}}"
    config = load_run(config_file, [*way, at_a_server, "resources.executor=threads"])
    with pytest.raises(ConfigError, match=f"{key}: a copy of bob would sample with server 'http://127.0.0.1:8000' too"):
        read_places(config)
