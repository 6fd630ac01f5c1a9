"""The coordinates of the plane, and the command that writes them down and draws them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bandit.__main__ import main
from benchmarks.bandit.figures import LOOKS
from benchmarks.bandit.labels import place_labels
from sharing.analysis.bandit import contexts
from sharing.analysis.closed_form import Options, independent
from sharing.analysis.outcomes import Moments
from sharing.analysis.plane import Point, alignment, analyse, place, starved, sweep

OPTIONS = Options()


def test_the_true_gradient_itself_is_perfectly_stable_and_supports_nothing() -> None:
    where = contexts(1.0, 0.0)
    starving = starved(where, 8, OPTIONS)
    exact = [Moments(c.gradient_K, np.zeros(5), 1.0) for c in where]
    placed = place(where, exact, starving)
    assert starving == ("rescue", "faint rescue", "beyond both", "mastered")
    assert placed.stability == pytest.approx(1.0)
    assert placed.support < 0.01
    assert placed.bias == pytest.approx(0.0)


def test_alignment_is_the_cosine_times_what_noise_leaves() -> None:
    # E u = (3, 0), variance 16: sqrt(9 / 25) = 3/5 is left; the direction (1, 1) has cosine 1/sqrt(2).
    moments = [Moments(np.array([3.0, 0.0]), np.array([10.0, 6.0]), 9.0)]
    assert alignment(moments, np.array([2.0, 2.0])) == pytest.approx(0.6 / np.sqrt(2.0))


def test_every_strategy_lies_inside_the_unit_circle_and_grpo_stays_where_it_is() -> None:
    points = tuple(point for point in sweep(steps=2))
    placed = analyse(points, 8, OPTIONS)
    grpo = {(round(p["independent"].stability, 12), round(p["independent"].support, 12)) for p in placed.values()}
    assert len(grpo) == 1
    for strategies in placed.values():
        for name, found in strategies.items():
            # The two directions are orthogonal to within 1e-3.
            assert found.stability**2 + found.support**2 < 1.002, name


def test_starvation_ends_with_larger_groups() -> None:
    rescue = contexts(0.0, 0.0)[4]
    assert np.linalg.norm(independent(rescue, 8, OPTIONS).mean_K) < 0.02
    assert np.linalg.norm(independent(rescue, 128, OPTIONS).mean_K) > 0.02


def test_without_disagreement_and_residual_the_peers_are_copies() -> None:
    for context in Point(0.0, 0.0, 1).contexts():
        np.testing.assert_array_equal(context.policies_AK[0], context.policies_AK[1])


@pytest.mark.long
def test_the_command_writes_the_data_and_every_figure_from_them(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--draws", "4", "--group-size", "3", "--steps", "1"]) == 0
    data = json.loads((tmp_path / "data" / "bandit.json").read_text())
    assert data["group_size"] == 3
    assert [row["disagreement"] for row in data["sweep"]] == [0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    assert data["agreement"]["worst"] <= 1.0
    drawn = {name: (tmp_path / f"bandit-{name}.svg").read_text() for name in ("plane", "contexts", "claims", "lengths")}
    for name, look in LOOKS.items():
        for figure in ("plane", "lengths"):
            assert look.colour in drawn[figure], (figure, name)
    assert drawn["contexts"].count("<image") >= 2  # one heat map for each response length
    for probe in ("prp", "xgrpo", "sgt"):
        assert LOOKS[probe].colour in drawn["claims"]


def test_labels_that_would_collide_are_kept_apart() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="figures need the report extra")
    figure, axis = pyplot.subplots()
    names = {str(i): f"strategy {i}" for i in range(6)}
    offsets = place_labels(axis, names, dict.fromkeys(names, (0.5, 0.5)), [np.array([[0.4, 0.4], [0.5, 0.5]])])
    pyplot.close(figure)
    places = np.array(list(offsets.values()))
    for i in range(6):
        for j in range(i):
            same_side = np.sign(places[i][0]) == np.sign(places[j][0])
            assert not same_side or abs(places[i][1] - places[j][1]) >= 10.0 or abs(places[i][0] - places[j][0]) > 50.0


def test_importing_the_analysis_loads_no_plotting() -> None:
    code = "import sys, benchmarks.bandit.figures, sharing.analysis.plane; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
