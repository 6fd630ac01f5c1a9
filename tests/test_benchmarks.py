"""What the page of figures says of a bar is what the figures say."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math

import pytest

from benchmarks import page, retries, sensitivity
from benchmarks.bars import AREAS, Area, Bar
from benchmarks.figures import DATA
from benchmarks.tables import figures, is_current

FIGURES = {"pool": {"1": {"share": 0.97}, "2": {"share": 0.79}}, "name": "x", "machine": {"cores": 2}}


def test_a_bar_holds_only_if_the_worst_of_its_figures_does() -> None:
    bar = Bar("share", "pool/*/share", least=0.8)
    assert bar.measured(FIGURES) == [0.79, 0.97]
    assert not bar.holds(bar.measured(FIGURES))
    assert Bar("share", "pool/1/share", least=0.8).holds([0.97])
    assert Bar("share", "pool/*/share", most=0.97).holds([0.79, 0.97])


def test_what_was_not_measured_does_not_hold() -> None:
    bar = Bar("seconds", "pool/*/seconds", most=math.inf)
    assert bar.measured(FIGURES) == []
    assert not bar.holds([])


@pytest.mark.parametrize("area", AREAS, ids=lambda area: area.name)
def test_every_bar_leads_to_figures_that_a_module_writes(area: Area) -> None:
    assert importlib.util.find_spec(f"benchmarks.{area.name}") is not None
    path = DATA / f"{area.name}.json"
    if path.is_file():  # no figures of a machine that was never there
        found = json.loads(path.read_text())
        assert all(bar.measured(found) for bar in area.bars)


def test_the_page_of_figures_is_what_the_files_say() -> None:
    assert page.PAGE.read_text() == page.text(), "python -m benchmarks --page"


def test_the_table_of_sgt_over_retries_is_what_its_file_says() -> None:
    if (DATA / "retries.json").is_file():
        assert is_current(retries.PAGE, retries.NAME, retries.retries_table(figures("retries")))


def test_the_table_of_half_and_twice_is_what_its_file_says_and_that_what_a_plan_says() -> None:
    found = figures("sensitivity")
    assert is_current(sensitivity.PAGE, sensitivity.NAME, sensitivity.text(found))
    with sensitivity.taken("step", 2.0):
        assert round(sensitivity.FIRST.bound(), sensitivity.DIGITS) == found["2 ms a step: first row"]["twice"]
    assert round(sensitivity.FIRST.bound(), sensitivity.DIGITS) == found["2 ms a step: first row"]["as taken"]


@pytest.mark.long
def test_every_cell_of_half_and_twice_is_what_a_plan_says() -> None:
    assert sensitivity.measure() == figures("sensitivity")


def test_the_table_of_what_turns_cost_is_what_its_file_says() -> None:
    pytest.importorskip("torch")
    conversations = importlib.import_module("benchmarks.conversations")
    found = figures("conversations")
    assert is_current(conversations.PAGE, conversations.NAME, conversations.cost_table(found))


@pytest.mark.long
def test_what_turns_cost_can_be_measured() -> None:
    pytest.importorskip("torch")
    conversations = importlib.import_module("benchmarks.conversations")
    learner = conversations.to_the_limit(conversations.tiny())
    assert len(conversations.in_turns(learner, ["1+1="])) == conversations.TURNS
    assert min(measure(learner, ["1+1="]) for measure in (conversations.in_one, conversations.by_place)) > 0.0


def test_a_table_of_two_arms_has_means_spreads_and_paired_differences() -> None:
    row = {"policy": "ann", "measure": "all", "before": [0.5, 0.5], "after": {"grpo": [0.5, 0.7], "sgt": [0.6, 0.7]}}
    last = retries.retries_table({"rows": [row]}).splitlines()[-1]
    assert last == "| ann, all | 0.500 ± 0.000 | 0.600 ± 0.141 | 0.650 ± 0.071 | 0.050 ± 0.071 | 1/2 |"
