"""SGT over retries against GRPO over retries, on the quickstart's pair: ten seeds of configs/retries.yaml.

    python -m benchmarks.retries [--seeds 0 1 2 ...] [--output runs] [--table]

runs what is not finished of these seeds (default: all), and where all are, writes docs/figures/data/retries.json and
the table in docs/turns.md. `--table` only writes the table again from the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, write
from benchmarks.tables import figures, put, table
from learners.run.config import load_suite
from learners.run.suite import Chosen, run_suite

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "retries.yaml"
PAGE, NAME = "turns.md", "sgt over retries"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retries", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--output", default="runs")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if not args.table:
        config = load_suite(CONFIG, [f"output={args.output}", "processes=1"])
        results = run_suite(config, only=Chosen(seeds=args.seeds))
        runs = [run for arm in results.runs.values() for run in arm]
        if len(runs) < len(config.arms) * len(config.seeds) or not all(run.finished for run in runs):
            print("not all seeds are finished yet: run the others, then this again")
            return
        found = json.loads(results.as_json())
        write("retries", {"rows": found["rows"], "seeds": found["seeds"], "machine": machine()})
    put(PAGE, NAME, retries_table(figures("retries")))


def retries_table(measured: Mapping[str, Any]) -> str:
    """Mean and standard deviation over the seeds, and the difference of the arms, seed by seed."""
    rows = []
    for row in measured["rows"]:
        grpo, sgt = row["after"]["grpo"], row["after"]["sgt"]
        gains = [s - g for g, s in zip(grpo, sgt, strict=True)]
        won = sum(gain > 0 for gain in gains)
        rows.append(
            [
                f"{row['policy']}, {row['measure']}",
                *map(_spread, (row["before"], grpo, sgt, gains)),
                f"{won}/{len(gains)}",
            ]
        )
    return table(["held out, after both tries", "before", "GRPO", "SGT", "SGT - GRPO", "seeds won"], rows)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    main()
