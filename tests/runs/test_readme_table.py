"""The table of the README is the quickstart's own result."""

from __future__ import annotations

import json
from pathlib import Path

from learners.run.results import Spread

ROOT = Path(__file__).parents[2]


def test_the_readmes_table_is_the_one_that_was_measured() -> None:
    results = json.loads((ROOT / "docs" / "figures" / "data" / "quickstart.json").read_text())
    readme = (ROOT / "README.md").read_text().replace("*", "")
    for row in results["rows"]:
        if row["measure"] != "accuracy":
            cells = [str(Spread.of(values)) for values in (row["before"], *row["after"].values())]
            assert f"| {' | '.join(cells)} |" in readme, (row["policy"], row["measure"])
