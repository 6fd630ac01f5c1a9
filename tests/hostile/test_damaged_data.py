"""A short form of the fuzzer of data sets: in a process of its own, because a damaged buffer may end the process."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.fuzz_data import FAMILIES, KINDS, damaged, sound

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_damaged_data_sets_are_read_or_refused_in_a_sentence() -> None:
    command = [sys.executable, "-m", "tests.hostile.fuzz_data", "--cases", "120"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = {line.strip().partition(" ")[2] for line in done.stdout.splitlines()}
    assert outcomes == {f"{kind}: {outcome}" for kind in KINDS for outcome in ("read", "refused")}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_damaged_could_be_read_before(kind: str, tmp_path: Path) -> None:
    path = sound(kind, random.Random(0), tmp_path)
    for family in FAMILIES:
        family(path)
    files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
    assert all(damaged(f.read_bytes(), random.Random(1)) != f.read_bytes() for f in files)
