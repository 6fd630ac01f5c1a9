"""The examples run as they stand, and show what they say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def output_of(*words: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_there_is_a_test_for_each() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.is_file()) == [
        "first_steps.ipynb",
        "gold.py",
        "loop.py",
        "rlad_knights.py",
        "strategies.py",
    ]


@pytest.mark.long
def test_the_loop_learns_in_thirty_lines(tmp_path: Path) -> None:
    code = [line for line in (EXAMPLES / "loop.py").read_text().splitlines() if line and not line.startswith("#")]
    assert len(code) <= 30
    printed = output_of(str(EXAMPLES / "loop.py"), cwd=tmp_path)
    last = [float(value) for value in re.findall(r"\d\.\d\d", printed.splitlines()[-1])]
    assert len(last) == 2
    assert min(last) > 0.5


@pytest.mark.long
def test_all_strategies_are_compared(tmp_path: Path) -> None:
    printed = output_of(str(EXAMPLES / "strategies.py"), "--rounds", "6", "--seeds", "1", cwd=tmp_path)
    for name in ("independent", "prp", "xgrpo", "sgt", "graft", "hacpo", "ftis", "luffy", "corl", "memory"):
        assert name in printed


@pytest.mark.long
def test_a_student_is_trained_beside_a_teacher_in_three_ways(tmp_path: Path) -> None:
    printed = output_of(str(EXAMPLES / "rlad_knights.py"), cwd=tmp_path)
    found = {who: float(value) for who, value in re.findall(r"student, (\w+): (\d\.\d+)", printed)}
    assert found.keys() == {"independent", "kdrl", "trrd"}
    assert found["kdrl"] > found["independent"] > 0.5  # three in four answers are wrong by chance


@pytest.mark.long
def test_golds_trainer_learns_from_a_teacher_that_it_cannot_align_itself(tmp_path: Path) -> None:
    printed = output_of(str(EXAMPLES / "gold.py"), cwd=tmp_path)
    assert "GOLD alone: NotImplementedError" in printed
    losses = [float(value) for value in re.findall(r"\d+\.\d+", printed.splitlines()[-1])]
    assert len(losses) == 2
    assert min(losses) > 0


@pytest.mark.long
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    cells = json.loads((EXAMPLES / "first_steps.ipynb").read_text())["cells"]
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    assert "borrowed:" in output_of(str(script), cwd=tmp_path)
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("name", ["strategies.py", "rlad_knights.py", pytest.param("gold.py", marks=pytest.mark.long)])
def test_an_example_explains_itself(name: str, tmp_path: Path) -> None:
    assert "usage:" in output_of(str(EXAMPLES / name), "--help", cwd=tmp_path)
