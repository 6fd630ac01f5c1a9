"""SGT over retries against GRPO over retries, on the quickstart's pair: ten seeds of configs/retries.yaml.

    python -m benchmarks.retries [--seeds 0 1 2 ...] [--output runs] [--finished] [--table]

runs what is not finished of these seeds (default: all), and where all are, writes docs/figures/data/retries.json and
the table in docs/turns.md. `--finished` runs nothing and writes what both arms have finished. `--table` only writes the
table again from the file.
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
from learners.run.config import SuiteConfig, load_suite
from learners.run.directory import RunDirectory
from learners.run.results import read_run, read_suite, run_path
from learners.run.suite import Chosen, run_suite

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "retries.yaml"
PAGE, NAME = "turns.md", "sgt over retries"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retries", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--output", default="runs")
    parser.add_argument("--finished", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if not args.table and not measured([f"output={args.output}", "processes=1"], args.seeds, run=not args.finished):
        print("not all seeds are finished yet: run the others, then this again")
        return
    put(PAGE, NAME, retries_table(figures("retries")))


def measured(overrides: Sequence[str], seeds: Sequence[int], *, run: bool) -> bool:
    """Whether the file of figures was written: all seeds are finished, or those that are were asked for."""
    config = load_suite(CONFIG, overrides)
    if run:
        results = run_suite(config, only=Chosen(seeds=seeds))
    else:
        done = [seed for seed in config.seeds if all(_finished(config, arm, seed) for arm in config.arms)]
        config = load_suite(CONFIG, [*overrides, f"seeds={done}"])
        results = read_suite(config)
    runs = [each for arm in results.runs.values() for each in arm]
    if len(runs) < len(config.arms) * len(config.seeds) or not all(each.finished for each in runs):
        return False
    found = json.loads(results.as_json())
    write("retries", {"rows": found["rows"], "seeds": found["seeds"], "machine": machine()})
    return True


def _finished(config: SuiteConfig, arm: str, seed: int) -> bool:
    path = run_path(config, arm, seed)
    return RunDirectory(path).info.is_file() and read_run(path).finished


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
