"""A short form of the fuzzer of run directories; and that every command reads a run that is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from learners.evaluation import outcomes
from learners.run import lines
from mutual_env.errors import StorageError
from tests.hostile.fuzz_config import told
from tests.hostile.fuzz_runs import KINDS, sound, words
from tests.tiers import rest_long

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_damaged_runs_are_read_or_refused_in_a_sentence() -> None:
    command = [sys.executable, "-m", "tests.hostile.fuzz_runs", "--cases", "12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refused" in done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("home")
    sound(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_reads_what_is_whole(kind: str, home: Path) -> None:
    command, _ = words(kind)
    with contextlib.chdir(home):
        code, said = told(command)
    assert code == (2 if kind == "export" else 0), said  # a table has no model directory


SPOILT = {
    "a byte that is no UTF-8": lambda data: data[:9] + b"\xef" + data[9:],
    "a control character": lambda data: data.replace(b'"a', b'"\x01a').replace(b'"b', b'"\x01b'),
    "deeply nested": lambda data: b"[" * 5000 + b"\n" + data,
    "another type": lambda data: b"[]\n" + data,
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("how", rest_long(["gone", *SPOILT, "a folder"], quick=3))
@pytest.mark.parametrize("kind", rest_long(["view", "report", "compare", "compare evaluated", "suite report"], quick=1))
def test_each_file_of_a_run_is_spoilt_in_each_way(kind: str, how: str, home: Path, tmp_path: Path) -> None:
    """What a fuzzer meets by chance is tried of each text that a command may read."""
    command, folder = words(kind)
    ended = {}
    for file in sorted(p for p in (home / folder).rglob("*") if p.suffix in (".yaml", ".json", ".jsonl")):
        copied = tmp_path / "home"
        shutil.copytree(home, copied)
        at = copied / file.relative_to(home)
        data = at.read_bytes()
        at.unlink()
        if how == "a folder":
            at.mkdir()
        elif how != "gone":
            at.write_bytes(SPOILT[how](data))
        with contextlib.chdir(copied):
            ended[str(file.relative_to(home))] = told(command)
        shutil.rmtree(copied)
    assert {name: said for name, (code, said) in ended.items() if code and "error: " not in said} == {}


SPAN = {
    **{"type": "span", "policy": "ada", "phase": "act", "devices": ["cpu"]},
    **{"requested": 0.0, "began": 0.0, "ended": 1.0},
}


@pytest.mark.parametrize("wrong", [{"share": [1]}, {"share": {}}, {"outcome": 3}, {"outcome": "so"}, {"devices": 1}])
def test_a_field_of_a_lease_that_need_not_be_there_has_its_type_where_it_is(
    wrong: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "timings.jsonl"
    path.write_text(json.dumps(SPAN) + "\n" + json.dumps({**SPAN, **wrong}) + "\n")
    with pytest.raises(StorageError, match=f"line 2 was damaged, '{next(iter(wrong))}' must be"):
        list(lines.read_lines(path, lines.timings))


def test_half_a_character_in_an_evaluation_is_named(tmp_path: Path) -> None:
    (tmp_path / outcomes.SUMMARY).write_text("{}")
    row = {"policy": "ada", "task": "t\ud800", "prompt": "", "answer": "", "part": "", "samples": []}
    (tmp_path / outcomes.SAMPLES).write_text(json.dumps(row) + "\n")
    with pytest.raises(StorageError, match=r"is no evaluated task \('utf-8' codec can't encode"):
        outcomes.read(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(kind: str, home: Path, tmp_path: Path) -> None:
    command, folder = words(kind)
    ended = {}
    kept = [p for p in (home / folder).rglob("*") if p.is_file() and p.name not in (".lock", "report.html")]
    for file in sorted(p for p in kept if not {"seed_1", "sgt"} & set(p.parts)):
        copied = tmp_path / "home"
        shutil.copytree(home, copied)
        at = copied / file.relative_to(home)
        at.unlink()
        os.mkfifo(at)
        with contextlib.chdir(copied):
            ended[str(file.relative_to(home))] = told(command)  # which takes two minutes at most
        shutil.rmtree(copied)
    assert {name: said for name, (code, said) in ended.items() if code and "error: " not in said} == {}


def test_the_first_damaged_line_is_named(home: Path) -> None:
    metrics = home / "begun" / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    try:
        metrics.write_bytes(b"".join([*lines[:3], b'{"round": 1, "policy": "ada", "metrics": {"loss": "low"}}\n']))
        with contextlib.chdir(home):
            code, said = told(["report", "begun"])
    finally:
        metrics.write_bytes(b"".join(lines))
    assert code == 1
    assert "begun/metrics.jsonl, line 4 was damaged, 'metrics' must be a mapping to a finite number or null" in said


CUT = {
    "gone": (lambda data: b"", "after round 0 of "),
    "half": (lambda data: data[: len(data) // 2], "after round 2 of "),
    "the last line": (lambda data: data[:-20], "in the midst of a line"),
    "evaluations": (
        lambda data: b"".join(line for line in data.splitlines(keepends=True) if b'"evaluation"' not in line),
        "without the evaluations that it had",
    ),
}


@pytest.mark.parametrize("how", CUT)
def test_a_finished_run_of_which_some_is_missing_says_so(how: str, home: Path) -> None:
    """The rest would pass for the run: compared at an earlier round, or said to hold no evaluation."""
    cut, says = CUT[how]
    metrics = home / "begun" / "metrics.jsonl"
    data = metrics.read_bytes()
    try:
        metrics.write_bytes(cut(data))
        with contextlib.chdir(home):
            code, said = told(["compare", "begun", "begun"])
    finally:
        metrics.write_bytes(data)
    assert code == 1
    assert f"begun/metrics.jsonl was damaged, it ends {says}" in said
