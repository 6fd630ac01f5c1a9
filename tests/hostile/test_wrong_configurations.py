"""A short form of the fuzzer of configurations; and that what it changes was accepted before."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.fuzz_config import KINDS, RUN, SUITE, told

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_wrong_configurations_are_accepted_or_refused_in_a_sentence_and_leave_nothing() -> None:
    command = [sys.executable, "-m", "tests.hostile.fuzz_config", "--cases", "40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = {line.strip().partition(" ")[2] for line in done.stdout.splitlines()}
    assert {f"{kind}: refused" for kind in KINDS} <= outcomes


@pytest.mark.parametrize(("command", "text"), [("train", RUN), ("suite", SUITE), ("plan", RUN)])
def test_what_is_changed_was_accepted_before(command: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with contextlib.chdir(tmp_path):
        code, said = told([command, "c.yaml", *(["--dry-run"] if command != "plan" else [])])
    assert (code, said != "") == (0, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]
