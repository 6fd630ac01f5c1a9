"""The plan: what it says, of what fits and of what does not."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path

import pytest

from learners.commands.plan import show
from learners.report.gantt import as_text
from learners.report.plan_report import as_picture, as_report, compare
from learners.resources import plan
from learners.resources.demand import GIB, Demand, Needs, Node, Rounds, Supply
from learners.resources.record import Span, UsageRecord
from mutual_env.errors import InvalidInputError

SMALL = Demand("small", {"act": Needs(seconds=1), "update": Needs(seconds=1)})
LARGE = Demand("large", {"act": Needs(seconds=3), "update": Needs(seconds=3)})
TWO_CORES = Supply((Node("local", 2.0),))


def test_a_plan_says_how_long_how_full_and_against_what() -> None:
    text = as_report(plan.make_plan([SMALL, LARGE], TWO_CORES, Rounds(2)))
    # two rounds of act 3 and update 3 beside the small one's; one at a time 2 x (2 + 6) = 16; busy 16 of 2 x 12
    assert "makespan   12 s; no schedule takes less than 12 s" in text
    assert "serial     16 s one policy at a time: 1.33 times as long" in text
    assert "used       67% of the CPUs" in text
    assert "large |aaa" in text


def test_a_plan_names_what_does_not_fit_and_what_would_and_plans_the_rest() -> None:
    huge = Demand("huge", {"act": Needs(gpus=1, memory=200 * GIB)})
    made = plan.make_plan([SMALL, huge], plan.parse_devices("1x2:80"), Rounds(1))
    assert not made.fits
    assert "memory=80 GiB instead of 200 GiB" in made.misfits[0]
    assert made.simulation is not None
    assert set(made.simulation.completed) == {"small"}


def test_the_command_prints_the_plan_and_writes_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "plan.svg"
    assert show(plan.make_plan([SMALL, LARGE], plan.parse_devices("1x0@2"), Rounds(1)), picture=picture) == 0
    assert "makespan   6 s" in capsys.readouterr().out
    bars = [e for e in xml.etree.ElementTree.parse(picture).iter() if e.tag.endswith("title")]
    assert len(bars) == 4  # two policies, two phases
    wide = Demand("wide", {"act": Needs(cpus=3)})
    assert show(plan.make_plan([wide], plan.parse_devices("1x0@2"))) == 1
    assert "cpus=2 instead of 3" in capsys.readouterr().out


def test_devices_in_short_are_read_and_refused_with_the_form() -> None:
    supply = plan.parse_devices("2x8:80, 1x0@16")
    assert (supply.gpus, supply.cpus, len(supply.nodes)) == (16, 2 * 128.0 + 16.0, 3)
    assert supply.nodes[0].gpu_memory == 80 * GIB
    with pytest.raises(InvalidInputError, match=r"NODESxGPUS\[:GIB\]"):
        plan.parse_devices("8 gpus")


def test_predicted_and_actual_stand_side_by_side() -> None:
    made = plan.make_plan([SMALL], TWO_CORES, Rounds(1))
    assert made.simulation is not None
    actual = UsageRecord({str(device): size for device, size in TWO_CORES.devices.items()})
    actual.add(Span("small", "act", ("local/cpu",), 0.0, 0.5, 2.5))
    text = compare(made.simulation, actual)
    assert "small/act: 1, 2; 0.5 in all" in text
    assert "predicted" in as_picture(made, [Span("small", "act", ("local/cpu",), 0.0, 0.5, 2.5)])


def test_measured_seconds_make_the_next_plan() -> None:
    better = SMALL.with_seconds({("small", "act"): 5.0})
    assert better.chain == 6.0


def test_waiting_is_drawn_before_the_phase() -> None:
    drawn = as_text([Span("a", "act", ("d",), 0.0, 5.0, 10.0)], width=10)
    assert "a |.....aaaaa|" in drawn
