"""`python -m sharing.analysis --out docs/figures`: compute, compare, write the data and draw the figures from it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sharing.analysis.claims import baselines, headline, pooled_authors, rescues
from sharing.analysis.closed_form import Options
from sharing.analysis.figures import draw_all
from sharing.analysis.plane import agree, analyse, as_json, lengths_sweep, sweep

READERS = tuple(10.0**exponent for exponent in (-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.7, -0.5, -0.3, -0.2, -0.1))
PEERS = (0.1, 0.5, 0.9)


def compute(size: int, draws: int, steps: int, options: Options) -> dict[str, object]:
    """Everything that the page and the figures show."""
    points, by_length = sweep(steps), lengths_sweep()
    agreement = agree(tuple(dict.fromkeys((*points, *by_length))), size, draws, options)
    return {
        "group_size": size,
        "options": asdict(options),
        "agreement": asdict(agreement),
        "sweep": as_json(analyse(points, size, options), size, options),
        "lengths": as_json(analyse(by_length, size, options), size, options),
        "claims": {
            "headline": headline(size, options),
            "authors": [asdict(a) for a in pooled_authors(200, size, options)],
            "baselines": [asdict(b) for b in baselines(READERS, PEERS, size, options)],
            "rescues": [asdict(r) for r in rescues(READERS, PEERS, size, options)],
        },
    }


def rounded(value: Any) -> Any:
    """The same with six significant digits: what a reader of the file can use."""
    match value:
        case float():
            return float(f"{value:.6g}")
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sharing.analysis", description="The stability-support analysis.")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/figures"), help="folder of the figures; data go to its data/"
    )
    parser.add_argument("--draws", type=int, default=20_000, help="simulated prompts at each point and context")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="into how many steps each sweep is cut")
    parser.add_argument("--formats", nargs="+", default=["svg"], choices=["svg", "png", "pdf"])
    given = parser.parse_args(arguments)
    (given.out / "data").mkdir(parents=True, exist_ok=True)
    target = given.out / "data" / "bandit.json"
    computed = compute(given.group_size, given.draws, given.steps, Options())
    target.write_text(json.dumps(rounded(computed), indent=1) + "\n")
    data = json.loads(target.read_text())
    written = [target, *draw_all(data, given.out, given.formats)]
    found = data["agreement"]
    print(f"{found['comparisons']} comparisons, worst at {found['worst']:.2f} of its limit;", *written, sep="\n  ")
    return 0 if found["worst"] <= 1.0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
