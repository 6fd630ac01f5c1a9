"""Lay out a configuration on machines without running anything: placement, timeline, utilisation, what would not fit.

`mutual-env plan configs/x.yaml --devices 2x8:80`
`mutual-env plan configs/x.yaml --like runs/x`
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from learners.report.plan_report import as_json, as_picture, as_report, bound_share, some
from learners.resources import Needs, Rounds, Supply
from learners.resources.estimate import Estimate
from learners.resources.plan import Plan, make_plan, parse_devices
from learners.run.check import check
from learners.run.config import arm_config, is_suite, load_run, load_suite
from learners.run.results import read_spans
from learners.run.shipped import config_file
from mutual_env.errors import InvalidInputError, UnknownNameError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=config_file, help="a YAML file; of a suite, its first arm is laid out")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted overrides of the file")
    parser.add_argument("--like", type=Path, metavar="RUN", help="take each phase's seconds from this run's directory")
    parser.add_argument("--devices", type=_devices, default=None, help="e.g. 2x8:80 (default: the configuration's)")
    parser.add_argument("--rounds", type=int, default=2, help="how many rounds to lay out (default: 2)")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON, leases included")
    parser.add_argument("--picture", type=Path, default=None, help="write the timeline to this SVG file")


def run(args: argparse.Namespace) -> int:
    if args.config.is_file() and is_suite(args.config):
        suite = load_suite(args.config, args.overrides)
        config = arm_config(suite, next(iter(suite.arms)), suite.seeds[0])
    else:
        config = load_run(args.config, args.overrides)
    places = check(config, here=False, supply=args.devices)
    places = places.as_measured(read_spans(args.like) if args.like is not None else [])
    plan = make_plan(places.demands, places.supply, Rounds(args.rounds, places.staleness))
    plan = dataclasses.replace(plan, misfits=(*plan.misfits, *places.misfits()))
    if args.json:
        print(json.dumps(as_json(plan, places.untimed()), indent=1))
        return 0 if plan.fits else 1
    return show(plan, places.untimed(), args.picture, places.estimates)


def _devices(text: str) -> Supply:
    try:
        return parse_devices(text)
    except (InvalidInputError, UnknownNameError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def show(
    plan: Plan,
    assumed: Sequence[str] = (),
    picture: Path | None = None,
    estimates: Mapping[str, Estimate] | None = None,
) -> int:
    """Print the plan; 0 where everything fits, 1 where something does not. `assumed`: phases of unknown duration."""
    if assumed:
        print(
            f"assumed    {Needs().seconds:g} s for each of {some(assumed)}: times below are in proportion only. Say "
            "`seconds` in resources.demands, or take them from a run: --like RUN (what a model takes on a GPU is "
            "estimated where its directory has a config.json, or its name is known)"
        )
    if estimates:
        print(
            f"estimated  seconds and memory of {some(estimates)} from model and GPU, taken for "
            f"{next(iter(estimates.values())).gpu.name} (see learners/resources/estimate.py), unless the configuration "
            "says otherwise: never measured"
        )
    print(as_report(plan))
    if estimates and plan.simulation is not None:
        share = bound_share(plan.simulation, plan.supply, estimates)
        print(
            f"bound      {share:.0%} of the GPUs' time is bound by products or memory; in the rest they wait for a host"
        )
    if picture is not None:
        picture.write_text(as_picture(plan), encoding="utf-8")
        print(f"picture    {picture}")
    return 0 if plan.fits else 1
