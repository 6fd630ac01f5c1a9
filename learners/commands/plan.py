"""Lay out a configuration on machines without running anything: placement, timeline, utilisation, what would not fit.

`mutual-env plan configs/x.yaml --devices 2x8:80`
`mutual-env plan configs/x.yaml --like runs/x`
"""

from __future__ import annotations

import argparse
from pathlib import Path

from learners.build import check
from learners.config import arm_config, is_suite, load_run, load_suite
from learners.executors import as_measured, demands, staleness, supply, unsaid
from learners.resources import plan
from learners.results import read_spans


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="a YAML file; of a suite, its first arm is laid out")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted overrides of the file")
    parser.add_argument("--like", type=Path, metavar="RUN", help="take each phase's seconds from this run's directory")
    plan.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.config.is_file() and is_suite(args.config):
        suite = load_suite(args.config, args.overrides)
        config = arm_config(suite, next(iter(suite.arms)), suite.seeds[0])
    else:
        config = load_run(args.config, args.overrides)
    check(config)
    spans = read_spans(args.like) if args.like is not None else []
    args.devices = args.devices or supply(config)
    planned = as_measured(demands(config), spans)
    return plan.run(args, planned, staleness(config), unsaid(config, planned, spans))
