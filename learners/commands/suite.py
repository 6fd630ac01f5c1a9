"""Run every arm of a suite over every seed, and compare them.

`mutual-env suite configs/quickstart.yaml`
`mutual-env suite configs/quickstart.yaml --arm sgt --seed 0`
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from rich.console import Console

from learners.report import write_suite_report
from learners.report.progress import SuiteProgress
from learners.report.tables import comparison, curves
from learners.run.check import check
from learners.run.config import arm_config, as_mapping, load_suite, to_yaml
from learners.run.shipped import config_file
from learners.run.suite import Chosen, run_suite
from mutual_env.display import said_shortly


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=config_file, help="a YAML file with `base`, `arms` and `seeds`")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted overrides, e.g. base.rounds=20")
    parser.add_argument(
        "--dry-run", action="store_true", help="check every arm, print the resolved configuration, stop"
    )
    parser.add_argument("--arm", action="append", default=[], help="only this arm now (may be repeated)")
    parser.add_argument("--seed", action="append", default=[], type=int, help="only this seed now (may be repeated)")
    parser.add_argument("--replace", action="store_true", help="remove an earlier suite of the same name first")
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on with runs although versions or exchanges changed"
    )
    parser.set_defaults(goes_on="the same command goes on where it stopped (without --replace)")
    parser.add_argument("--quiet", action="store_true", help="print the comparison alone")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON, and nothing on the way")


def run(args: argparse.Namespace) -> int:
    config = load_suite(args.config, args.overrides)
    for arm in config.arms:
        check(arm_config(config, arm, config.seeds[0]))
    if args.dry_run:
        print(json.dumps(as_mapping(config), indent=1) if args.json else to_yaml(config).rstrip())
        return 0
    began = time.monotonic()
    with SuiteProgress(config, quiet=args.quiet or args.json) as progress:
        only = Chosen(args.arm, args.seed)
        results = run_suite(config, replace=args.replace, accept_changes=args.accept_changes, watch=progress, only=only)
    report = write_suite_report(results)
    if args.json:
        print(
            json.dumps({**json.loads(results.as_json()), "failures": results.failures, "report": str(report)}, indent=1)
        )
    else:
        console = Console()
        console.print(comparison(results))
        console.print(curves(results))
        console.print(f"{time.monotonic() - began:.0f} s in all; report: {report}", highlight=False)
    for failure in results.failures:
        print(said_shortly(f"error: {failure}"), file=sys.stderr)
    return 1 if results.failures else 0
