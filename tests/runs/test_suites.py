"""A suite grows without being run again, shares GPUs out, and minds nothing that lies in the working directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from learners.cli import main
from learners.resources import Supply
from learners.resources.demand import Node
from learners.run.config import arm_config, load_suite
from learners.run.directory import RunDirectory
from learners.run.processes import spawned, starting
from learners.run.slots import Slots
from learners.run.suite import Member, in_turn
from mutual_env.errors import ConfigError
from tests.tiers import rest_long

ROOT = Path(__file__).parents[2]
SUITE = """
name: s
seeds: [0]
base:
  rounds: 3
  env: {id: mutual/arithmetic-v0, group_size: 2, prompts_per_round: 2, options: {digits: 1}}
  policies: {ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+="}}}}
  evaluation: {every: 2, prompts: 4}
arms: {alone: {}}
"""


def suite_file(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    (path / "suite.yaml").write_text(SUITE + f"output: {path}\n")
    return path / "suite.yaml"


def metrics(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("metrics.jsonl"))}


@pytest.mark.long
def test_seeds_arms_and_rounds_are_added_to_a_finished_suite_and_only_what_is_missing_is_run(tmp_path: Path) -> None:
    file = str(suite_file(tmp_path / "grown"))
    assert main(["suite", file, "--quiet"]) == 0
    finished = tmp_path / "grown" / "s" / "alone" / "seed_0" / "metrics.jsonl"
    before = finished.stat().st_mtime_ns
    more = ["seeds=[0,7]", "arms.sgt={sharing.strategy: sgt}"]
    assert main(["suite", file, *more, "--quiet"]) == 0
    assert finished.stat().st_mtime_ns == before
    assert main(["suite", file, *more, "base.rounds=5", "--quiet"]) == 0
    whole = str(suite_file(tmp_path / "whole"))
    assert main(["suite", whole, *more, "base.rounds=5", "--quiet"]) == 0
    assert metrics(tmp_path / "grown") == metrics(tmp_path / "whole")
    assert len(metrics(tmp_path / "whole")) == 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    rest_long(
        [
            (["base.env.group_size=3"], "base.env.group_size: 2, now 3"),
            (["seeds=[1]"], "without seed 0"),
            (["base.rounds=2"], "base.rounds: 3, now 2"),
            (["arms.alone={rounds: 2}"], "arms.alone.rounds: '(nothing)', now 2"),
            (["base.rounds=400000"], "Raise record.megabytes with the rounds"),
        ],
        quick=2,
    ),
)
def test_a_suite_whose_runs_would_be_others_is_refused_with_what_is_different(
    tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = suite_file(tmp_path)
    assert main(["suite", str(file), "--quiet"]) == 0
    kept = (tmp_path / "s" / "suite.yaml").read_bytes()
    capsys.readouterr()
    assert main(["suite", str(file), *words, "--quiet"]) == 2
    assert sentence in capsys.readouterr().err
    assert (tmp_path / "s" / "suite.yaml").read_bytes() == kept


def test_an_arm_that_failed_before_its_first_round_can_be_corrected_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(suite_file(tmp_path))
    wrong, right = ["arms.bad={policies.ada.options.tokenizer.alphabet: xy}"], ["arms.bad={sharing.strategy: sgt}"]
    assert main(["suite", file, *wrong, "--quiet"]) == 1
    assert "characters outside the alphabet" in capsys.readouterr().err
    before = metrics(tmp_path / "s" / "alone")
    assert main(["suite", file, *right, "arms.alone={sharing.strategy: sgt}", "--quiet"]) == 2
    assert main(["suite", file, *right, "--quiet"]) == 0
    assert metrics(tmp_path / "s" / "alone") == before
    assert len(metrics(tmp_path / "s")) == 2


def test_a_run_that_was_seen_to_be_finished_is_not_read_again(tmp_path: Path) -> None:
    file = suite_file(tmp_path)
    assert main(["suite", str(file), "--quiet"]) == 0
    config = load_suite(file)
    member = Member.of(config, "alone", 0, arm_config(config, "alone", 0))
    assert member.progress().state == "finished"
    RunDirectory(member.path).info.unlink()
    assert member.progress().state == "finished"


def machine(gpus: int) -> Supply:
    return Supply((Node("here", 8.0, gpus),))


def test_runs_go_on_at_once_on_gpus_of_their_own() -> None:
    slots = Slots(["a", "b", "c"], 8, 1.0, machine(2))
    assert dict(slots.next()) == {"a": (0,), "b": (1,)}
    assert slots.next() == []
    slots.give_back("a")
    assert slots.next() == [("c", (0,))]


def test_several_share_a_gpu_where_they_take_a_fraction_and_one_takes_several_whole() -> None:
    assert sorted(gpus for _, gpus in Slots("abcde", 8, 0.5, machine(2)).next()) == [(0,), (0,), (1,), (1,)]
    assert dict(Slots("ab", 8, 2.0, machine(4)).next()) == {"a": (0, 1), "b": (2, 3)}
    with pytest.raises(ConfigError, match="gpus=3"):
        Slots("ab", 8, 3.0, machine(2))


def test_without_gpus_or_where_none_is_asked_for_processes_are_what_counts() -> None:
    for slots in (Slots("abc", 2, 1.0, machine(0)), Slots("abc", 2, 0.0, machine(2))):
        assert slots.next() == [("a", None), ("b", None)]
        slots.give_back("b")
        assert slots.next() == [("c", None)]


def test_a_folder_of_our_name_in_the_working_directory_breaks_nothing(tmp_path: Path) -> None:
    for name in ("learners", "sharing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not ours')")
    command = [sys.executable, "-P", "-m", "learners.cli", "suite", str(suite_file(tmp_path)), "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_a_forked_run_is_the_one_that_would_have_been_started_by_itself(tmp_path: Path) -> None:
    # Two runs are forked from one process, and one alone is not: the same bytes, and the command to be typed again.
    file = str(suite_file(tmp_path / "forked"))
    assert main(["suite", file, "seeds=[0,7]", "--quiet"]) == 0
    file = str(suite_file(tmp_path / "spawned"))
    for seed in ("0", "7"):
        assert main(["suite", file, "seeds=[0,7]", f"--seed={seed}", "--quiet"]) == 0
    assert len(metrics(tmp_path / "forked")) == 2
    assert metrics(tmp_path / "forked") == metrics(tmp_path / "spawned")
    infos: list[Any] = [RunDirectory(tmp_path / how / "s/alone/seed_7").read_info() for how in ("forked", "spawned")]
    commands = [info["processes"][0]["command"].split(" --parent=")[0] for info in infos]
    assert commands[0].replace(str(tmp_path / "forked"), str(tmp_path / "spawned")) == commands[1]


def test_a_process_with_threads_of_its_own_is_not_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busy.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=[60]).start()\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with starting(["busy"], environment, forks=True) as start:
        assert start is spawned


def test_seeds_wait_in_blocks_so_that_what_they_have_in_common_is_made_once(tmp_path: Path) -> None:
    members = [Member(arm, seed, tmp_path, 1) for seed in (5, 3, 9) for arm in ("alone", "sgt")]
    turns = [(member.arm, member.seed) for member in in_turn(members, 2)]
    assert turns == [("alone", 5), ("alone", 3), ("sgt", 5), ("sgt", 3), ("alone", 9), ("sgt", 9)]
