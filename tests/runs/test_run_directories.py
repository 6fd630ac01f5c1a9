"""A run's directory belongs to one process, keeps what it holds inside, and is not in the way of the next run."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from learners.cli import main
from learners.run.check import check
from learners.run.config import load_run, load_suite
from learners.run.directory import RunDirectory
from learners.run.training import resume, train
from mutual_env.errors import ConfigError, InvalidInputError, StorageError, UnknownNameError

CONFIG = """
name: r
rounds: 4
env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 3, options: {digits: 1}}
policies:
  ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+="}}}
checkpoint: {every: 2}
"""
WAIT_SECONDS = 60.0


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + f"output: {tmp_path}\n")
    return path


@contextlib.contextmanager
def going_on(config_file: Path, *overrides: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run that goes on in another process, and has written something."""
    command = [sys.executable, "-m", "learners.cli", "train", str(config_file), "rounds=1000000", "--quiet"]
    process = subprocess.Popen([*command, *overrides])
    metrics = config_file.parent / "r" / "metrics.jsonl"
    try:
        wait_until(lambda: metrics.is_file() and metrics.stat().st_size > 0)
        yield process
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(timeout=WAIT_SECONDS)


def wait_until(true) -> None:
    ends = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_run_that_goes_on_is_not_replaced(config_file: Path) -> None:
    directory = config_file.parent / "r"
    with going_on(config_file):
        seed = json.loads((directory / "run.json").read_text())["seed"]
        with pytest.raises(StorageError, match="being written by another process"):
            train(load_run(config_file, ["seed=5"]), replace=True)
        assert json.loads((directory / "run.json").read_text())["seed"] == seed
        size = (directory / "metrics.jsonl").stat().st_size
        wait_until(lambda: (directory / "metrics.jsonl").stat().st_size > size)
    # killed, so the lock is free: now it is replaced, and the status of what was there had been true
    assert RunDirectory(directory).status() == "killed"
    train(load_run(config_file, ["seed=5"]), replace=True)
    assert json.loads((directory / "run.json").read_text())["seed"] == 5


def test_of_two_runs_that_begin_at_once_the_second_writes_nothing(config_file: Path) -> None:
    directory = RunDirectory(config_file.parent / "r")
    with directory.locked(make=True), pytest.raises(StorageError, match="being written by another process"):
        train(load_run(config_file))
    assert not directory.path.exists()


def test_a_run_whose_directory_is_taken_from_under_it_does_not_write_into_the_next(config_file: Path) -> None:
    class TakesItAway:
        def started(self, run: object) -> None:
            pass

        def measured(self, done: int, metrics: object) -> None:
            if done == 1:
                (config_file.parent / "r").rename(config_file.parent / "elsewhere")
                train(load_run(config_file, ["seed=5"]))

        def finished(self, status: str) -> None:
            pass

    with pytest.raises(StorageError, match="was removed or replaced"):
        train(load_run(config_file), listeners=[TakesItAway()])
    info = RunDirectory(config_file.parent / "r").read_info()
    assert (info["seed"], info["status"]) == (5, "finished")


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "exchange.sqlite", "run.json", "checkpoints"])
def test_no_link_in_a_run_is_followed(config_file: Path, name: str) -> None:
    directory = train(load_run(config_file)).directory
    outside = config_file.parent / "outside"
    if name == "checkpoints":
        outside.mkdir()
    else:
        outside.write_text("precious")
    (directory / name).rename(directory / "moved")
    (directory / name).symlink_to(outside)
    with pytest.raises(StorageError, match=f"{name} is a link"):
        resume(directory)
    assert list(outside.iterdir()) == [] if outside.is_dir() else outside.read_text() == "precious"


@pytest.mark.parametrize("name", [".run.json.writing", ".report.html.writing", "run.tmp"])
def test_a_link_in_the_place_of_a_temporary_file_is_not_written_through(config_file: Path, name: str) -> None:
    directory = RunDirectory.create(config_file.parent / "r", "", {"name": "r"})
    outside = config_file.parent / "outside"
    outside.write_text("precious")
    (directory.path / name).symlink_to(outside)
    directory.set_status("finished")
    assert outside.read_text() == "precious"


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/abs",
        "a/b",
        "a\\b",
        "..",
        ".",
        "",
        ".hidden",
        "state.json",
        "manifest.json",
        "x" * 300,
        "a\nb",
        "a\0",
    ],
)
def test_a_policy_whose_name_is_no_directory_of_its_own_is_refused(config_file: Path, name: str) -> None:
    text = config_file.read_text().replace("  ada:", f"  {json.dumps(name)}:")
    config_file.write_text(text)
    with pytest.raises(ConfigError, match="the policy"):
        load_run(config_file)


@pytest.mark.parametrize("name", ["../evil", "/abs", "a/../../b", ".", "", "a//b", "x" * 300, "a\0b"])
def test_a_run_or_suite_whose_name_leads_out_of_the_output_is_refused(config_file: Path, name: str) -> None:
    config_file.write_text(config_file.read_text().replace("name: r", f"name: {json.dumps(name)}"))
    with pytest.raises(ConfigError, match="name"):
        load_run(config_file)
    suite = config_file.with_name("suite.yaml")
    suite.write_text(f"name: {json.dumps(name)}\nbase: {{policies: {{a: {{}}}}}}\narms: {{x: {{}}}}\n")
    with pytest.raises(ConfigError, match="name"):
        load_suite(suite)


def test_an_arm_that_leads_out_of_the_suite_and_a_seed_given_twice_are_refused(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text("base: {policies: {a: {}}}\narms: {'../x': {}}\n")
    with pytest.raises(ConfigError, match=r"the arm '\.\./x'"):
        load_suite(suite)
    suite.write_text("base: {policies: {a: {}}}\narms: {x: {}}\nseeds: [1, 2, 1]\n")
    with pytest.raises(ConfigError, match="seed 1 stands twice"):
        load_suite(suite)


def test_a_run_that_cannot_start_leaves_nothing_and_the_corrected_one_runs(config_file: Path) -> None:
    wrong = load_run(config_file, ["policies.ada.options.tokenizer.kind=chart"])
    with pytest.raises(UnknownNameError, match="tokenizer kind"):
        train(wrong)
    assert not (config_file.parent / "r").exists()
    assert train(load_run(config_file)).rounds == 4


def test_a_run_that_fails_before_its_first_round_is_not_in_the_way_of_the_corrected_one(config_file: Path) -> None:
    wrong = load_run(config_file, ["policies.ada.options.tokenizer.alphabet=xy"])
    check(wrong)
    with pytest.raises(InvalidInputError, match="outside the alphabet"):
        train(wrong)
    assert RunDirectory(config_file.parent / "r").status() == "stopped after 0 rounds"
    assert train(load_run(config_file)).rounds == 4


def test_a_run_with_rounds_is_never_lost_unasked(config_file: Path) -> None:
    class Stops:
        def started(self, run: object) -> None:
            pass

        def measured(self, done: int, metrics: object) -> None:
            raise RuntimeError("enough")

        def finished(self, status: str) -> None:
            pass

    with pytest.raises(RuntimeError, match="enough"):
        train(load_run(config_file), listeners=[Stops()])
    with pytest.raises(ConfigError, match="already holds a run: go on with it"):
        train(load_run(config_file))


def test_other_peoples_files_are_neither_overwritten_nor_removed(config_file: Path) -> None:
    directory = config_file.parent / "r"
    directory.mkdir()
    (directory / "config.yaml").write_text("mine")
    (directory / "notes.txt").write_text("mine too")
    with pytest.raises(ConfigError, match=r"holds no run, but a config\.yaml"):
        train(load_run(config_file), replace=True)
    assert sorted(path.name for path in directory.iterdir()) == [".lock", "config.yaml", "notes.txt"]


@pytest.mark.parametrize("case", ["a file", "below a file", "read-only", "too long"])
def test_an_output_that_cannot_be_written_is_said_in_a_sentence(
    config_file: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (config_file.parent / "file").write_text("")
    output = {"a file": "file", "below a file": "file/deep", "read-only": "/proc/self", "too long": "x" * 300}[case]
    assert main(["train", str(config_file), f"output={config_file.parent / output}", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert os.path.basename(output)[:40] in error
