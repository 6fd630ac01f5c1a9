"""Compare arms: of suites, of runs (or folders of runs of several seeds), or of evaluations that were kept.

`mutual-env compare runs/quickstart`
`mutual-env compare runs/a runs/b --baseline a --format latex`
`mutual-env compare runs/a/evaluations/X runs/b/evaluations/X`
"""

from __future__ import annotations

import argparse
from pathlib import Path

from learners.evaluation import outcomes
from learners.evaluation.agreement import Agreement, agreements
from learners.evaluation.comparison import compare
from learners.evaluation.scores import gather
from learners.report.evaluation_sheets import agreed, differences
from learners.report.sheets import FORMS, Sheet, show
from mutual_env.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="suites, runs, folders of runs, evaluations"
    )
    parser.add_argument("--baseline", default="", help="the arm that others are compared with (default: the first)")
    parser.add_argument("--measure", action="append", default=[], help="e.g. accuracy (default: all; may be repeated)")
    parser.add_argument("--at", type=int, metavar="ROUNDS", help="after how many rounds (default: where all have been)")
    parser.add_argument("--test", choices=("t", "permutation"), help="default: t over seeds, permutation over tasks")
    parser.add_argument("--format", choices=("rich", *FORMS), default="rich")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")


def run(args: argparse.Namespace) -> int:
    scores = gather(args.paths, at=args.at)
    sheets = _pairs(args.paths)
    if len(scores.arms) > 1:
        baseline = args.baseline or scores.arms[0]
        found = compare(scores, baseline, args.measure, args.test)
        if not found:
            held = "; ".join(map(scores.held, scores.arms))
            raise ConfigError(f"no two arms have a policy and a {scores.unit} in common: {held}")
        sheets.insert(0, differences(found, scores, baseline))
    elif not sheets:
        raise ConfigError(f"there is one arm alone, {scores.arms[0]}: name a second one to compare it with")
    show(sheets, args.format)
    return 0


def _pairs(paths: list[Path]) -> list[Sheet]:
    """The pairs of policies in each evaluation and, of runs and suites, in each run's last."""
    found: dict[str, list[Agreement]] = {}
    for path in paths:
        if outcomes.is_kept(path):
            found[str(path)] = agreements(outcomes.read(path))
        else:
            for file in sorted(path.rglob("evaluations.jsonl")):
                found[str(file.parent)] = agreements(outcomes.last_of_run(file))
    return [agreed(pairs, f"Pairs of policies in {where}") for where, pairs in found.items() if pairs]
