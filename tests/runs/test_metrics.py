"""Every metric that a run writes has a sentence, and the documentation holds the same sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learners.run.config import load_run
from learners.run.training import train
from mutual_env.metrics import HELD_OUT, METRICS, describe, page

CONFIG = """
name: r
rounds: 2
env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 2, options: {digits: 1, modulus: 10}}
policies:
  ada: {learner: LEARNER, options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, max_new_tokens: 2}}
  bob:
    learner: LEARNER
    options: {tokenizer: {kind: pair, alphabet: "0123456789+=()%", merges: ["%1", "01"]}, max_new_tokens: 2}
evaluation: {every: 1, prompts: 4, part: operation}
"""
EVE = 'teachers.eve={learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}}}'
TEACHER = ["sharing.options={teacher: eve}", EVE]
CASES = {
    "independent": [],
    "prp": ["sharing.options={max_staleness: 1}", "resources.mode=asynchronous"],
    "xgrpo": [],
    "sgt": [],
    "graft": [],
    "hacpo": [],
    "ftis": [],
    "luffy": [],
    "sapo": [],
    "trrd": TEACHER,
    "kdrl": TEACHER,
    "topd": TEACHER,
    "offline": ["sharing.options={teacher: bob, publish: [rollout]}"],
    "memory": [],
    "auto": [],
    "corl": [],
    "placebo": [],
    "frozen": ["sharing.options={agents: [bob]}"],
}


def written(tmp_path: Path, learner: str, overrides: list[str]) -> set[str]:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.replace("LEARNER", learner) + f"output: {tmp_path}\n")
    lines = (train(load_run(path, overrides)).directory / "metrics.jsonl").read_text().splitlines()
    names: set[str] = set()
    for line in map(json.loads, lines):
        names |= {f"{HELD_OUT}{key}" for key in line["evaluation"]} if "evaluation" in line else set(line["metrics"])
    return names


@pytest.mark.parametrize("strategy", CASES)
def test_every_metric_of_a_strategy_is_described(tmp_path: Path, strategy: str) -> None:
    names = written(tmp_path, "tabular", [f"sharing.strategy={strategy}", *CASES[strategy]])
    assert {name for name in names if not describe(name)} == set()
    assert len(names) > 20


def test_every_metric_of_the_torch_learner_is_described(tmp_path: Path) -> None:
    names = written(tmp_path, "tiny", ["sharing.strategy=prp"])
    assert {name for name in names if not describe(name)} == set()
    assert "learning_rate" in names


def test_a_part_of_a_name_stands_for_any_text_and_an_unknown_name_has_no_sentence() -> None:
    assert describe("verify/timeout") == describe("verify/{status}") != describe("verify/unscored")
    assert describe("eval/accuracy/two\nlines") == "The same over the tasks of this part."
    assert describe("share/of_somebody_else") == ""
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_documentation_is_what_the_code_says() -> None:
    assert (Path(__file__).parents[2] / "docs" / "metrics.md").read_text() == page()
