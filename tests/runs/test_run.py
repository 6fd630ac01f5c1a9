"""A run is a function of its configuration: the same again, in any process, and across a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learners.report import write_run_report
from learners.run.check import check
from learners.run.config import load_run
from learners.run.directory import RunDirectory
from learners.run.results import read_run
from learners.run.training import resume, train
from mutual_env.errors import ConfigError, StorageError
from mutual_env.seeding import generator
from mutual_env.verifiers import isolation_report
from mutual_env.verifiers.pool import isolation
from tests.tiers import long

CONFIG = """
name: r
rounds: 6
env:
  id: mutual/arithmetic-v0
  group_size: 4
  prompts_per_round: 3
  options: {digits: 1, modulus: 10}
sharing: {strategy: sgt, options: {publish: [rollout]}}
policies:
  ada:
    learner: tabular
    options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, alphabet: "0123456789", max_new_tokens: 2}
  bob:
    learner: tabular
    options:
      tokenizer: {kind: pair, alphabet: "0123456789+=()%", merges: ["%1", "01"]}
      alphabet: "0123456789"
      max_new_tokens: 2
evaluation: {every: 3, prompts: 8, samples: 2, part: operation}
checkpoint: {every: 2, keep: 2}
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    return path


def whole(directory: Path) -> dict[str, bytes]:
    """Everything that must be the same, byte for byte: metrics, samples, and the weights of the last checkpoint."""
    kept = {name: (directory / name).read_bytes() for name in ("metrics.jsonl", "samples.jsonl")}
    last = max((directory / "checkpoints").glob("round_*"))
    return kept | {str(p.relative_to(last)): p.read_bytes() for p in sorted(last.glob("*/*"))}


def in_a_process(code: str, *, hash_seed: str = "0", timeout: float = 120) -> int:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run([sys.executable, "-c", code], env=environment, timeout=timeout, check=False).returncode


def test_a_run_writes_metrics_evaluations_samples_checkpoints_and_the_exchange(config_file: Path) -> None:
    result = train(load_run(config_file))
    run = read_run(result.directory)
    assert (result.rounds, run.rounds, run.finished) == (6, 6, True)
    assert [round_ for round_, _ in run.evaluations["bob"]["accuracy/add"]] == [0, 3, 6]
    assert "share/rescued" in run.metrics["ada"]
    checkpoints = sorted(p.name for p in (result.directory / "checkpoints").iterdir())
    assert checkpoints == ["round_00000004", "round_00000006"]
    assert RunDirectory(result.directory).exchange.stat().st_size > 0
    info = json.loads((result.directory / "run.json").read_text())
    assert info["versions"]["numpy"]
    assert info["isolation"] == isolation_report()


def test_a_run_that_asks_for_more_isolation_than_the_machine_has_does_not_begin(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_missing", lambda name: "there is none" if name == "container" else "")
    config = load_run(config_file, ["verifiers.isolation=container"])
    for begin in (check, train):
        with pytest.raises(
            ConfigError, match=r"isolation 'container' cannot be had .*: there is none; or ask for 'names"
        ):
            begin(config)
    assert not (Path(config.output) / config.name).exists()


def test_the_report_lays_what_was_planned_beside_what_was_done(config_file: Path) -> None:
    page = write_run_report(train(load_run(config_file)).directory).read_text()
    assert "Predicted and actual timeline" in page
    assert "executor serial" in page
    assert "ada/update: " in page


def test_the_same_configuration_gives_the_same_bytes_in_another_process_and_with_the_agents_in_another_order(
    config_file: Path, tmp_path: Path
) -> None:
    config = load_run(config_file)
    first = whole(train(config).directory)
    config.policies = dict(reversed(config.policies.items()))
    config.name = "reversed"
    lines = whole(train(config).directory)["metrics.jsonl"].splitlines()
    assert sorted(lines) == sorted(first["metrics.jsonl"].splitlines())
    code = f"from learners.cli import main; main(['train', {str(config_file)!r}, 'name=other', '--quiet'])"
    assert in_a_process(code, hash_seed="12345") == 0
    assert whole(tmp_path / "other") == first


# Each is a function that a run of six rounds goes through several times: dying at its n-th call is dying in that phase.
PHASES = {
    "sampling": ("learners.tabular", "TabularLearner.act", 9),
    "verifying": ("mutual_env.verifiers.pool.verifier_pool", "VerifierPool.verify", 6),
    "exchanging": ("sharing.exchange.sqlite", "SQLiteExchange.publish", 4),
    "optimizing": ("learners.tabular", "TabularLearner.update", 8),
    "updating a model": ("learners.torch.learner", "TorchLearner.update", 9),
    "saving": ("learners.tabular", "TabularLearner.save", 4),
    "hashing": ("learners.sealed", "sha256", 9),
    "renaming": ("learners.sealed", "give_name", 2),
    "renamed": ("learners.run.checkpoint", "Checkpoints._prune", 2),
    "writing metrics": ("learners.run.lines", "JsonLines.append", 30),
}


def killed_at(config_file: Path, name: str, phase: str) -> int:
    """Run in a process that kills itself, with SIGKILL, in the middle of a phase."""
    module, attribute, call = PHASES[phase]
    code = f"""
import importlib, os, signal
from learners.cli import main
module = importlib.import_module({module!r})
*path, last = {attribute!r}.split(".")
owner = getattr(module, path[0]) if path else module
original, calls = getattr(owner, last), []
def counted(*args, **kwargs):
    calls.append(1)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
setattr(owner, last, counted)
raise SystemExit(main(["train", {str(config_file)!r}, "name={name}", "--quiet"]))
"""
    return in_a_process(code)


@pytest.mark.parametrize(
    ("mode", "phase"),
    [
        ("synchronous", "saving"),
        ("asynchronous", "optimizing"),
        *(long(("synchronous", phase)) for phase in PHASES if phase not in ("updating a model", "saving")),
        *(long(("asynchronous", phase)) for phase in ("sampling", "exchanging", "saving", "writing metrics")),
    ],
)
def test_a_run_killed_in_any_phase_and_resumed_equals_the_uninterrupted_one(
    config_file: Path, tmp_path: Path, mode: str, phase: str
) -> None:
    if mode == "asynchronous":
        text = config_file.read_text().replace("publish:", "max_staleness: 1, publish:")
        config_file.write_text(f"{text}resources: {{mode: asynchronous, executor: threads}}\n")
    expected = whole(train(load_run(config_file)).directory)
    assert killed_at(config_file, "killed", phase) == -signal.SIGKILL
    done = resume(tmp_path / "killed")
    assert done.rounds == 6
    assert whole(tmp_path / "killed") == expected


@pytest.mark.long
def test_a_torch_run_killed_while_optimizing_and_resumed_equals_the_uninterrupted_one(
    config_file: Path, tmp_path: Path
) -> None:
    """Weights, Adam's moments and the generators: all that a checkpoint of a real model holds."""
    text = config_file.read_text().replace("learner: tabular", "learner: tiny").replace('alphabet: "0123456789", ', "")
    config_file.write_text(text.replace('      alphabet: "0123456789"\n', ""))
    expected = whole(train(load_run(config_file)).directory)
    assert killed_at(config_file, "killed", "updating a model") == -signal.SIGKILL
    resume(tmp_path / "killed")
    assert whole(tmp_path / "killed") == expected


def test_a_finished_run_is_resumed_to_itself(config_file: Path) -> None:
    result = train(load_run(config_file))
    before = whole(result.directory)
    assert resume(result.directory).rounds == 6
    assert whole(result.directory) == before


def test_a_damaged_checkpoint_is_named_and_the_one_before_gives_the_same_end(config_file: Path) -> None:
    result = train(load_run(config_file))
    before = whole(result.directory)
    victim = next((result.directory / "checkpoints" / "round_00000006" / "ada").iterdir())
    victim.write_bytes(victim.read_bytes()[:-1])
    again = resume(result.directory)
    assert len(again.refused) == 1
    assert str(victim) in again.refused[0]
    assert whole(result.directory) == before


def test_a_pickle_is_never_opened_on_the_way_back(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = train(load_run(config_file))

    def opened(*args: object, **kwargs: object) -> None:
        raise AssertionError("a pickle was opened")

    import pickle

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, opened)
    (result.directory / "checkpoints" / "round_00000006" / "ada" / "weights.pkl").write_bytes(b"\x80\x04.")
    again = resume(result.directory)
    assert "weights.pkl is not in the manifest" in again.refused[0]


def test_a_checkpoint_of_other_policies_is_refused(config_file: Path) -> None:
    result = train(load_run(config_file))
    text = result.directory.joinpath("config.yaml").read_text().replace("\n  ada:", "\n  eve:")
    result.directory.joinpath("config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"policies\.ada\.learner: 'tabular', now '\(nothing\)'"):
        resume(result.directory)
    with pytest.raises(StorageError, match="holds no part 'eve'"):
        resume(result.directory, accept_changes=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """What a run in a process of its own has written, and how many seconds that has lived."""
    directory = tmp_path_factory.mktemp("undisturbed")
    (directory / "run.yaml").write_text(f"{CONFIG}output: {directory}\n")
    began = time.monotonic()
    subprocess.run(training(directory / "run.yaml", "timed"), timeout=280, check=True)
    return whole(directory / "timed"), time.monotonic() - began


def training(config_file: Path, name: str) -> list[str]:
    return [sys.executable, "-m", "learners.cli", "train", str(config_file), f"name={name}", "--quiet"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(50))
def test_a_run_killed_at_a_random_moment_and_resumed_equals_the_uninterrupted_one(
    config_file: Path, tmp_path: Path, undisturbed: tuple[dict[str, bytes], float], moment: int
) -> None:
    """`make soak`: moments over the whole life of a process, from its imports to its last line. Checkpoints are written
    in the background, as they are by default."""
    expected, lifetime = undisturbed
    process = subprocess.Popen(training(config_file, "killed"))
    time.sleep(lifetime * float(generator("kill", moment).uniform(0.3, 1.0)))
    process.kill()
    process.wait(timeout=60)
    if RunDirectory(tmp_path / "killed").info.is_file():
        resume(tmp_path / "killed")
    else:  # killed before there was a run: nothing to resume, and nothing in the way of starting it
        config = load_run(config_file)
        config.name = "killed"
        train(config)
    assert whole(tmp_path / "killed") == expected
