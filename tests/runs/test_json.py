"""`--json`: what a program reads instead of what a person does."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from learners.cli import main, whole_parser

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
    return json.loads(capsys.readouterr().out, parse_constant=no_json)


def no_json(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


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


WRONG = {  # of every command, words that it refuses
    "train": ["nowhere.yaml"],
    "suite": ["quickstart", "base.rounds=-1"],
    "plan": ["quickstart", "--devices", "x"],
    "report": ["nowhere"],
    "eval": ["nowhere", "--k", "one"],
    "compare": ["nowhere"],
    "view": ["nowhere"],
    "export": ["nowhere", "ada", "out"],
    "doctor": ["--outputs", "runs"],
    "new": ["task", "Odd One"],
    "list": ["envs", "no-such-env"],
    "bridge": ["gpt2", "gpt2", "nowhere.txt"],
    "models list": ["smollm2"],
    "models fetch": ["smolm2"],
    "models convert": ["no.gguf", "out"],
}
WITHOUT = {"completion": "a shell reads the script that it prints"}


def commands(parser: argparse.ArgumentParser, before: tuple[str, ...] = ()) -> dict[str, argparse.ArgumentParser]:
    """Each that can be given, `models list` among them."""
    below = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        return {" ".join(before): parser}
    return {name: at for word, inner in below[0].items() for name, at in commands(inner, (*before, word)).items()}


def test_every_command_has_a_form_for_programs() -> None:
    found = commands(whole_parser())
    assert found.keys() == WRONG.keys() | WITHOUT.keys()
    assert [name for name, parser in found.items() if "--json" not in parser._option_string_actions] == [*WITHOUT]


@pytest.mark.parametrize("name", WRONG)
def test_what_goes_wrong_is_said_to_programs_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([*name.split(), *WRONG[name], "--json"])
    except SystemExit as end:  # argparse
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2
    assert json.loads(out)["error"] in err


def test_what_reads_and_what_writes_says_so_in_json(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", files["run"], "--quiet"]) == 0
    run = str(tmp_path / "r")
    assert Path(said(["report", run], capsys)["report"]).is_file()
    shown = said(["view", run, "--round", "1"], capsys)
    assert (shown["number"], len(shown["groups"]["ada"])) == (1, 2)
    assert said(["suite", files["suite"], "--dry-run"], capsys)["base"]["rounds"] == 2
    (measures,) = said(["eval", run, "--out", f"{tmp_path}/e"], capsys).values()
    assert measures[0]["policy"] == "ada"
    begun = said(["new", "task", "odd-one", "--directory", str(tmp_path)], capsys)
    assert all(Path(file).is_file() for file in begun["files"])
    assert {"name", "title", "licence"} == said(["models", "list"], capsys)[0].keys()


@pytest.mark.torch
def test_two_tokenizers_are_compared_in_figures(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, back = said(["bridge", str(model), str(model)], capsys)["directions"]
    assert there["tokens"] == back["tokens"] > 100
    assert (there["exact"], there["verdicts"]) == (1.0, {"exact": 9})


def test_a_reader_that_has_read_enough_ends_a_command_without_a_word() -> None:
    command = [sys.executable, "-m", "learners.cli", "list", "envs"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141  # as a shell says of one that SIGPIPE ended
