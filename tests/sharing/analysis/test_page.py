"""docs/bandit.md says what the data file says, and the data file what the code computes."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bandit.figures import LOOKS
from sharing.analysis.closed_form import Options
from sharing.analysis.plane import Point, analyse

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "bandit.md").read_text()
DATA: dict[str, Any] = json.loads((DOCS / "figures" / "data" / "bandit.json").read_text())


def row_at(tokens: int) -> dict[str, Any]:
    where = {"disagreement": 1.0, "residual": 0.0, "tokens": tokens}
    return next(row for row in DATA["sweep"] if all(row[key] == value for key, value in where.items()))


@pytest.mark.parametrize("strategy", LOOKS)
def test_the_table_holds_the_data(strategy: str) -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {LOOKS[strategy].label} | "))
    written = [float(cell) for cell in line.strip("|").split("|")[1:]]
    placed = [row_at(tokens)["strategies"][strategy] for tokens in (1, 64)]
    found = [p[key] for p in placed for key in ("stability", "support", "cosine", "bias", "variance")]
    digits = [3, 3, 3, 2, 2] * 2
    for there, here, places in zip(written, found, digits, strict=True):
        assert there == pytest.approx(here, abs=0.501 * 10**-places)


def test_the_data_are_what_the_code_computes() -> None:
    point = Point(1.0, 0.0, 1)
    for name, placed in analyse([point], 8, Options())[point].items():
        kept = row_at(1)["strategies"][name]
        assert placed.stability == pytest.approx(kept["stability"], rel=1e-5)
        assert placed.variance == pytest.approx(kept["variance"], rel=1e-5)


def test_the_page_states_the_agreement_that_was_found() -> None:
    found = DATA["agreement"]
    assert found["worst"] <= 1.0
    assert f"{found['comparisons']:,} comparisons, {found['draws']:,} draws each: worst {found['worst']:.2f}" in PAGE
    assert f"{100 * found['within_two_errors']:.1f} % within two standard errors" in PAGE


def test_the_code_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/bandit.md", "exec"), {})
    assert np.all(np.isfinite([float(x) for x in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", capsys.readouterr().out)]))


def test_every_figure_of_the_page_is_there() -> None:
    for target in re.findall(r"\]\((figures/[^)]+)\)", PAGE):
        assert (DOCS / target).is_file(), target
