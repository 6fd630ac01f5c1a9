"""Rewards outside [0, 1] in asynchronous rounds, where every peer is a stranger: bounds follow the env's verifier."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from learners.run.config import load_run
from learners.run.results import RunResults, read_run
from learners.run.training import train

CONFIG = """
name: scaled
rounds: 6
env:
  id: mutual/arithmetic-v0
  group_size: 4
  prompts_per_round: 3
  options: {digits: 1, modulus: 8, verifier: {name: "tests.runs.scaled_verifier:Scaled"}}
sharing: {strategy: xgrpo, options: {}}
policies:
  ada: &table
    learner: tabular
    options: {tokenizer: {kind: char, alphabet: "0123456789+=()%"}, alphabet: "01234567", max_new_tokens: 1}
  bob: *table
  eve: *table
checkpoint: {every: 0}
"""


def run(path: Path, *overrides: str) -> RunResults:
    path.mkdir()
    (path / "run.yaml").write_text(CONFIG + f"output: {path}\n")
    return read_run(train(load_run(path / "run.yaml", overrides)).directory)


APART = ["resources.mode=asynchronous", "sharing.options={max_staleness: 1}"]


@pytest.mark.parametrize(
    ("strategy", "metric"),
    [("xgrpo", "baseline_shift"), ("prp", "pooled"), ("auto", "auto/rescue"), ("sgt", "rescued")],
)
def test_nothing_is_turned_away_where_the_verifier_says_what_it_gives(
    strategy: str, metric: str, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(records away|learns nothing)")
        apart = run(tmp_path / "apart", f"sharing.strategy={strategy}", *APART)
    for name in ("ada", "bob", "eve"):
        mine = apart.metrics[name]
        assert [count for _, count in mine["share/refused"]] == [0.0] * 6
        assert sum(count for _, count in mine[f"share/{metric}"]) > 0.0
        assert {value for _, value in mine["reward/mean"]} > {-1.0}  # some groups have nothing but the least reward


def test_what_a_silent_verifier_has_not_given_yet_is_turned_away_and_said(tmp_path: Path) -> None:
    # A reader whose group has only -1 so far cannot know that the other's mean of 1.75 is possible.
    silent = "env.options.verifier.kwargs={says: false}"
    with pytest.warns(UserWarning, match=r"records away because of rewards outside \[0, 1\].*reward_range"):
        apart = run(tmp_path / "apart", silent, *APART)
    assert sum(n for name in apart.metrics for _, n in apart.metrics[name].get("share/refused/out_of_range", ())) > 0
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(records away|learns nothing)")
        limits = "sharing.options={max_staleness: 1, limits: {reward_range: [-1, 10]}}"
        told = run(tmp_path / "told", silent, APART[0], limits)
    assert all(n == 0.0 for name in told.metrics for _, n in told.metrics[name]["share/refused"])


def test_limits_that_name_one_thing_leave_the_groups_of_the_run_plausible(tmp_path: Path) -> None:
    large = ["env.group_size=80", "env.prompts_per_round=1", "rounds=2", "sharing.strategy=prp", APART[0]]
    limits = "sharing.options={max_staleness: 1, limits: {reward_range: [-1, 10]}}"
    apart = run(tmp_path / "apart", *large, limits)
    for name in ("ada", "bob", "eve"):
        assert [n for _, n in apart.metrics[name]["share/pooled"]] == [160.0, 160.0]
