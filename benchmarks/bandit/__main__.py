"""`python -m benchmarks.bandit --out docs/figures`: compute, compare, write the data and draw the figures from it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bandit.data import compute, write
from benchmarks.bandit.figures import draw_all
from sharing.analysis.closed_form import Options


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bandit", description="The stability-support analysis.")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/figures"), help="folder of the figures; data go to its data/"
    )
    parser.add_argument("--draws", type=int, default=500, help="rounds of each shipped strategy on each prompt")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="into how many steps each sweep is cut")
    parser.add_argument("--formats", nargs="+", default=["svg"], choices=["svg", "png", "pdf"])
    given = parser.parse_args(arguments)
    (given.out / "data").mkdir(parents=True, exist_ok=True)
    target = given.out / "data" / "bandit.json"
    write(compute(given.group_size, given.draws, given.steps, Options()), target)
    data = json.loads(target.read_text())
    written = [target, *draw_all(data, given.out, given.formats)]
    found = data["agreement"]
    print(f"{found['comparisons']} comparisons, worst at {found['worst']:.2f} of its limit;", *written, sep="\n  ")
    return 0 if found["worst"] <= 1.0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
