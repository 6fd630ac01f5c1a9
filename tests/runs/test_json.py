"""`--json`: what a program reads instead of what a person does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from learners.cli import main

RUN = """
name: r
rounds: 2
env: {id: mutual/arithmetic-v0, group_size: 2, prompts_per_round: 2, options: {digits: 1}}
policies: {ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+="}}}}
evaluation: {every: 1, prompts: 4}
"""
SUITE = "name: s\nseeds: [0]\narms: {one: {}}\nbase:\n" + "".join(f"  {line}\n" for line in RUN.splitlines()[2:])


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    found = {}
    for name, text in (("run", RUN), ("suite", SUITE)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text + f"output: {tmp_path}\n")
        found[name] = str(path)
    return found


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_says_where_it_is_and_how_well_its_policies_did(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(["train", files["run"], "--dry-run"], capsys)["rounds"] == 2
    done = said(["train", files["run"]], capsys)
    assert (done["directory"], done["rounds"], done["refused"]) == (str(tmp_path / "r"), 2, [])
    assert 0.0 <= done["evaluations"]["ada"]["accuracy"] <= 1.0
    assert Path(done["report"]).is_file()
    assert said(["train", "--resume", done["directory"], "rounds=3"], capsys)["rounds"] == 3


def test_a_suite_says_its_comparison(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    done = said(["suite", files["suite"]], capsys)
    assert (done["seeds"], done["failures"]) == ([0], [])
    assert [row["policy"] for row in done["rows"]] == ["ada"]


def test_a_plan_says_its_leases(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    plan = said(["plan", files["run"], "--devices", "1x0@4"], capsys)
    assert plan["fits"]
    assert plan["makespan"] >= plan["bound"] > 0
    assert {lease["policy"] for lease in plan["leases"]} == {"ada"}
