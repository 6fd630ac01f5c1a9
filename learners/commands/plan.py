"""Lay out a configuration on machines without running anything: placement, timeline, utilisation, what would not fit.

`mutual-env plan configs/x.yaml --devices 2x8:80`
`mutual-env plan configs/x.yaml --like runs/x`
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from learners.report.plan_report import as_picture, as_report, some
from learners.resources import Needs, Rounds
from learners.resources.plan import Plan, make_plan, parse_devices
from learners.run.check import check
from learners.run.config import arm_config, is_suite, load_run, load_suite
from learners.run.results import read_spans
from learners.run.shipped import config_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=config_file, help="a YAML file; of a suite, its first arm is laid out")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted overrides of the file")
    parser.add_argument("--like", type=Path, metavar="RUN", help="take each phase's seconds from this run's directory")
    parser.add_argument(
        "--devices", type=parse_devices, default=None, help="e.g. 2x8:80 (default: the configuration's)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="how many rounds to lay out (default: 2)")
    parser.add_argument("--picture", type=Path, default=None, help="write the timeline to this SVG file")


def run(args: argparse.Namespace) -> int:
    if args.config.is_file() and is_suite(args.config):
        suite = load_suite(args.config, args.overrides)
        config = arm_config(suite, next(iter(suite.arms)), suite.seeds[0])
    else:
        config = load_run(args.config, args.overrides)
    places = check(config, here=False).as_measured(read_spans(args.like) if args.like is not None else [])
    plan = make_plan(places.demands, args.devices or places.supply, Rounds(args.rounds, places.staleness))
    return show(plan, places.untimed(), args.picture)


def show(plan: Plan, assumed: Sequence[str] = (), picture: Path | None = None) -> int:
    """Print the plan; 0 where everything fits, 1 where something does not. `assumed`: phases of unknown duration."""
    if assumed:
        print(
            f"assumed    {Needs().seconds:g} s for each of {some(assumed)}: times below are in proportion only. Say "
            "`seconds` in resources.demands, or take them from a run: --like RUN"
        )
    print(as_report(plan))
    if picture is not None:
        picture.write_text(as_picture(plan), encoding="utf-8")
        print(f"picture    {picture}")
    return 0 if plan.fits else 1
