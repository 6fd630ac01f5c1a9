"""The numbers of the README's first screen are those of the result files."""

from __future__ import annotations

import json
import re
from inspect import signature
from pathlib import Path

from benchmarks.evidence.page import in_readme, quickstart_says, read_families
from learners.run.config import load_suite
from learners.run.results import Spread
from sharing.strategies.sgt import SuccessGatedTransfer

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "docs" / "figures" / "data" / "quickstart.json").read_text())


def readme() -> str:
    return " ".join((ROOT / "README.md").read_text().replace("*", "").split())


def test_the_readmes_table_is_the_one_that_was_measured() -> None:
    for row in RESULTS["rows"]:
        if row["measure"] != "accuracy":
            cells = [str(Spread.of(values)) for values in (row["before"], *row["after"].values())]
            assert f"| {' | '.join(cells)} |" in readme(), (row["policy"], row["measure"])


def test_the_readme_says_how_sure_the_quickstart_is() -> None:
    assert "; ".join(quickstart_says(RESULTS)) in readme()


def test_the_readmes_headline_is_that_of_the_evidence() -> None:
    for sentence in in_readme(read_families()):
        assert sentence[1:] in readme(), sentence


def test_the_readmes_weights_are_those_of_the_runs() -> None:
    suite = load_suite(ROOT / "configs" / "quickstart.yaml")
    ours = suite.arms["sgt"]["sharing.options"]["weight"]
    published = signature(SuccessGatedTransfer).parameters["weight"].default
    assert f"λ is {ours} here, where the paper has {published}" in readme()


def test_the_readme_has_no_other_figure() -> None:
    """Whatever looks like a measured number is one of those above."""
    left = readme().split("## Ten lines")[0]
    made = [*in_readme(read_families()), "; ".join(quickstart_says(RESULTS))]
    made += [str(Spread.of(values)) for row in RESULTS["rows"] for values in (row["before"], *row["after"].values())]
    for sentence in sorted(made, key=len, reverse=True):
        left = left.replace(sentence[1:], "")
    for known in ("2605.07244", "Python 3.11"):
        left = left.replace(known, "")
    assert re.findall(r"\d*\.\d\d+", left) == []
