"""What the page of figures says of a bar is what the figures say."""

from __future__ import annotations

import importlib.util
import json
import math

import pytest

from benchmarks.bars import AREAS, Area, Bar
from benchmarks.figures import DATA

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
        figures = json.loads(path.read_text())
        assert all(bar.measured(figures) for bar in area.bars)
