"""A run that was stopped and resumed gives the same bytes, whatever its exchange, staleness and executor, or is refused
with what is different."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from learners.cli import main
from learners.run.config import load_run
from learners.run.training import resume, train
from mutual_env.errors import ConfigError, StorageError
from mutual_env.types import Metrics
from sharing.exchange import registry as exchanges
from sharing.exchange.memory import InMemoryExchange
from tests.tiers import rest_long

CONFIG = """
name: whole
rounds: 22
env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 8, options: {digits: 1, modulus: 4}}
sharing: {strategy: sgt}
policies:
  ada:
    learner: tabular
    options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, alphabet: "0123", max_new_tokens: 1}
  bob:
    learner: tabular
    options:
      tokenizer: {kind: pair, alphabet: "0123456789+=()%", merges: ["%1", "01"]}
      alphabet: "0123"
      max_new_tokens: 1
evaluation: {every: 11, prompts: 4}
checkpoint: {every: 10}
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    return path


class EnoughError(Exception):
    pass


class Stops:
    """As a kill does: the exchange already holds what was published after the last checkpoint."""

    def __init__(self, after: int) -> None:
        self._after = after

    def started(self, run: object) -> None:
        pass

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        if done == self._after:
            raise EnoughError

    def finished(self, status: str) -> None:
        pass


def whole(directory: Path) -> dict[str, bytes]:
    kept = {name: (directory / name).read_bytes() for name in ("metrics.jsonl", "samples.jsonl")}
    last = max((directory / "checkpoints").glob("round_*"))
    return kept | {str(p.relative_to(last)): p.read_bytes() for p in sorted(last.glob("[!.]*/*"))}


MODES = {
    "staleness 0": ["sharing.options={max_staleness: 0}"],
    "staleness 5": ["sharing.options={max_staleness: 5}"],
    "any staleness": ["sharing.options={max_staleness: null}"],
    "asynchronous 1": ["sharing.options={max_staleness: 1}", "resources.mode=asynchronous"],
    "a target share": ["sharing.options={target_share: 0.2}"],
    "waves": ["env.refills=2", "env.spare_prompts=1"],
    "asynchronous waves": ["sharing.options={max_staleness: 1}", "resources.mode=asynchronous", "env.refills=1"],
    "asynchronous 5": ["sharing.options={max_staleness: 5}", "resources.mode=asynchronous"],
    "a reset reference": [f"policies.ada.options.{key}" for key in ("kl_coefficient=0.1", "reference_reset=7")],
}
EXECUTORS = ("serial", "threads", "processes")
EVERY = list(itertools.product(("memory", "sqlite"), MODES, EXECUTORS))
QUICK = [
    ("memory", "staleness 0", "serial"),
    ("sqlite", "any staleness", "serial"),
    ("memory", "asynchronous 1", "serial"),
    ("sqlite", "asynchronous waves", "serial"),
    ("memory", "a reset reference", "serial"),
    ("memory", "any staleness", "threads"),
    ("sqlite", "asynchronous 5", "processes"),
]


EXPECTED: dict[str, dict[str, bytes]] = {}  # of each mode: neither exchange nor executor changes a byte


def stopped_and_resumed_is_the_same(
    config_file: Path, exchange: str, mode: str, executor: str, after: int, *more: str
) -> None:
    overrides = [f"sharing.exchange={exchange}", *MODES[mode], f"resources.executor={executor}", *more]
    if mode not in EXPECTED:
        EXPECTED[mode] = whole(train(load_run(config_file, MODES[mode])).directory)
    with pytest.raises(EnoughError):
        train(load_run(config_file, ["name=cut", *overrides]), listeners=[Stops(after)])
    directory = config_file.parent / "cut"
    assert resume(directory).rounds == 22
    assert whole(directory) == EXPECTED[mode]


@pytest.mark.parametrize(("exchange", "mode", "executor"), rest_long(QUICK, quick=2))
def test_a_run_that_was_stopped_and_resumed_gives_the_same_bytes(
    config_file: Path, exchange: str, mode: str, executor: str
) -> None:
    stopped_and_resumed_is_the_same(config_file, exchange, mode, executor, 19)


@pytest.mark.slow
@pytest.mark.parametrize(("exchange", "mode", "executor"), EVERY)
def test_so_it_does_in_every_configuration(config_file: Path, exchange: str, mode: str, executor: str) -> None:
    """`make soak`; those on a cluster are in tests/resources/test_ray_resumes.py."""
    stopped_and_resumed_is_the_same(config_file, exchange, mode, executor, 19)


TOKENIZERS = {
    "ada": '{kind: char, alphabet: "0123456789+=()%"}',
    "bob": '{kind: pair, alphabet: "0123456789+=()%", merges: ["%1", "01"]}',
}
RESETTING = "width: 16, layers: 1, max_new_tokens: 1, kl_coefficient: 0.1, reference_reset: 3, optimizer_reset: true"
TINY = [
    *("sharing.options={max_staleness: 5}", "rounds=9", "checkpoint.every=4", "evaluation.every=0"),
    *(f"policies.{name}.learner=tiny" for name in TOKENIZERS),
    *(f"policies.{name}.options={{tokenizer: {given}, {RESETTING}}}" for name, given in TOKENIZERS.items()),
]


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize(
    ("exchange", "executor"), [("memory", "serial"), ("sqlite", "threads"), ("sqlite", "processes")]
)
def test_so_it_does_where_the_optimizer_begins_anew_with_its_reference(
    config_file: Path, exchange: str, executor: str
) -> None:
    """Stopped after seven rounds: the last checkpoint lies between two resets, and one comes after it."""
    expected = whole(train(load_run(config_file, TINY)).directory)
    overrides = [*TINY, "name=cut", f"sharing.exchange={exchange}", f"resources.executor={executor}"]
    with pytest.raises(EnoughError):
        train(load_run(config_file, overrides), listeners=[Stops(7)])
    directory = config_file.parent / "cut"
    assert resume(directory).rounds == 9
    assert whole(directory) == expected


@pytest.mark.parametrize("mode", ["any staleness", "asynchronous 1"])
def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_again_as_if_it_never_had(
    config_file: Path, mode: str
) -> None:
    stopped_and_resumed_is_the_same(config_file, "sqlite", mode, "serial", 9)


def short(config_file: Path, *overrides: str) -> Path:
    return train(load_run(config_file, ["rounds=3", "evaluation.every=0", "checkpoint.every=1", *overrides])).directory


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("config.yaml", "seed: 0", "seed: 5", "seed: 0, now 5"),
        ("config.yaml", "rounds: 3", "rounds: 2", "rounds: 3, now 2"),
        ("config.yaml", "strategy: sgt", "strategy: prp", "sharing.strategy: 'sgt', now 'prp'"),
        ("config.yaml", "digits: 1", "digits: 2", "env.options.digits: 1, now 2"),
        ("config.yaml", "max_new_tokens: 1", "max_new_tokens: 2", "policies.ada.options.max_new_tokens: 1, now 2"),
        (
            "config.yaml",
            "max_new_tokens: 1",
            "learning_rate: .nan",
            "policies.ada.options.learning_rate: '(nothing)', now",
        ),
        ("config.yaml", "trackers: []", "trackers: [x]", "trackers: [], now ['x']"),
        ("run.json", '"numpy": "', '"numpy": "0.', "versions.numpy: '0."),
        ("run.json", '"python": "3', '"python": "2', "versions.python: '2"),
        ("run.json", '"config"', '"other"', "does not say what the run began with"),
    ],
)
def test_what_is_not_as_it_was_is_shown_and_the_run_left_as_it_is(
    config_file: Path, file: str, old: str, new: str, sentence: str
) -> None:
    directory = short(config_file)
    edited(directory / file, old, new)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="not as it was when the run began") as caught:
        resume(directory)
    assert sentence in str(caught.value)
    assert "--accept-changes" in str(caught.value)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_accepted_changes_are_on_record_and_are_what_the_run_is_from_then_on(config_file: Path) -> None:
    directory = short(config_file)
    edited(directory / "config.yaml", "seed: 0", "seed: 5")
    edited(directory / "config.yaml", "rounds: 3", "rounds: 5")
    assert main(["train", "--resume", str(directory), "--quiet"]) == 2
    assert main(["train", "--resume", str(directory), "--quiet", "--accept-changes"]) == 0
    info = json.loads((directory / "run.json").read_text())
    assert (info["seed"], info["config"]["rounds"], info["status"]) == (5, 5, "finished")
    assert info["resumed"] == [{"after_rounds": 3, "changed": {"rounds": [3, 5], "seed": [0, 5]}}]
    assert resume(directory).rounds == 5


def test_a_run_goes_on_by_continue_only_if_it_is_the_run_that_is_asked_for(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = short(config_file)
    same = ["train", str(config_file), "rounds=3", "evaluation.every=0", "checkpoint.every=1", "--quiet", "--continue"]
    assert main(same) == 0
    assert main([*same, "seed=7"]) == 2
    assert "seed: 0, now 7" in capsys.readouterr().err
    assert main([*same, "rounds=4", "--accept-changes"]) == 0
    assert load_run(directory / "config.yaml").rounds == 4


@pytest.mark.parametrize("damage", ["removed", "emptied"])
def test_a_run_without_its_exchange_is_refused_and_left_as_it_is(config_file: Path, damage: str) -> None:
    directory = short(config_file)
    for path in directory.glob("exchange.sqlite*"):
        path.unlink() if damage == "removed" else path.write_bytes(b"")
    with pytest.raises(StorageError, match=r"holds 0 records of the run's own policies .* and held \d+ when"):
        resume(directory)
    assert resume(directory, accept_changes=True).rounds == 3
    (noted,) = json.loads((directory / "run.json").read_text())["resumed"]
    assert "holds 0 records" in noted["changed"]["exchange"][0]


def test_a_strategy_that_finds_nothing_to_go_on_from_says_so(config_file: Path) -> None:
    directory = short(config_file, "sharing.strategy=independent")
    edited(directory / "config.yaml", "strategy: independent", "strategy: hacpo")
    with pytest.raises(StorageError, match="keeps nothing that strategy 'hacpo' can go on from"):
        resume(directory, accept_changes=True)


class Forgetful:
    """An exchange of somebody else's that cannot be brought back."""

    def __init__(self, path: Path) -> None:
        self._inner = InMemoryExchange()
        self.publish, self.read, self.scan = self._inner.publish, self._inner.read, self._inner.scan

    def close(self) -> None:
        pass


def test_an_exchange_that_cannot_go_back_to_a_checkpoint_is_refused_at_the_resume(config_file: Path) -> None:
    exchanges.register("forgetful", Forgetful)
    directory = short(config_file, "sharing.exchange=forgetful")
    with pytest.raises(ConfigError, match="'forgetful' has no `save` and `load`"):
        resume(directory)
    assert resume(directory, accept_changes=True).rounds == 3
