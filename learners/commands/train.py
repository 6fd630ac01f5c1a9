"""Run a configuration, or go on with a run that was stopped.

`mutual-env train configs/x.yaml rounds=50 policies.policy_0.options.learning_rate=1e-3`
`mutual-env train --resume runs/x`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from learners.numerics import begin_again, environment
from learners.report import write_run_report
from learners.report.progress import RunProgress
from learners.run.check import check
from learners.run.config import RunConfig, arm_config, as_mapping, changed, is_suite, load_run, load_suite, to_yaml
from learners.run.directory import RunDirectory
from learners.run.ending import end_with
from learners.run.longer import MAY_GROW
from learners.run.results import read_run
from learners.run.shipped import config_file
from learners.run.trackers import TrackedRun
from learners.run.training import Result, resume, train
from mutual_env.errors import ConfigError
from mutual_env.types import JSON, Metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", type=config_file, help="a YAML file; a suite's file needs --arm")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted overrides of the file")
    parser.add_argument(
        "--resume", type=Path, metavar="RUN", help="go on with the run in this directory; rounds=N may be raised"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print the resolved configuration, stop"
    )
    parser.add_argument("--replace", action="store_true", help="remove an earlier run of the same name first")
    parser.add_argument(
        "--continue", dest="go_on", action="store_true", help="go on with the run if it was begun before"
    )
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="go on with a run although its configuration, versions or exchange changed",
    )
    parser.add_argument("--arm", help="of a suite: the arm to run")
    parser.add_argument("--seed", type=int, help="of a suite: the seed to run it with")
    parser.add_argument("--quiet", action="store_true", help="print nothing on the way")
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON, and nothing on the way")
    parser.set_defaults(goes_on="a run goes on from its last checkpoint with `mutual-env train --resume RUN`")
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # of a suite: end with this process


def run(args: argparse.Namespace) -> int:
    if args.parent is not None:
        end_with(args.parent)
    if args.resume is not None:
        config = _resumed(args)
        _settle(args, config)
        return _finish(_resume(args.resume, args, config), args)
    config = _config(args)
    _settle(args, config)
    check(config)
    if args.dry_run:
        print(json.dumps(as_mapping(config), indent=1) if args.json else to_yaml(config).rstrip())
        return 0
    path = Path(config.output) / config.name
    directory = RunDirectory(path)
    if args.go_on and directory.info.exists() and directory.did_something():  # else it begins anew, maybe corrected
        return _finish(_resume(path, args, config), args)
    with RunProgress(config, quiet=args.quiet or args.json) as progress:
        result = train(config, replace=args.replace, listeners=[progress, _Begun(args)])
    return _finish(result, args)


def _resumed(args: argparse.Namespace) -> RunConfig:
    """The run's own configuration, which may have more rounds now."""
    words = [str(word) for word in (args.config, *args.overrides) if word is not None]
    for word in words:
        if word.partition("=")[0] not in MAY_GROW or "=" not in word:
            raise ConfigError(
                f"--resume {args.resume} goes on with that run's own configuration: leave out {word} (only "
                f"{' and '.join(MAY_GROW)} may be raised)"
            )
    return changed(load_run(RunDirectory.open(args.resume).config), words)


def _settle(args: argparse.Namespace, config: RunConfig) -> None:
    """A program can begin again in the environment that its run needs; a function that was called cannot."""
    if args.is_program:
        begin_again(environment(config.resources.instructions, config.resources.threads))


def _config(args: argparse.Namespace) -> RunConfig:
    if args.config is None:
        raise ConfigError("name a configuration file, or --resume RUN")
    if not args.config.is_file() or not is_suite(args.config):
        if args.arm is not None or args.seed is not None:
            raise ConfigError(
                f"--arm and --seed choose from a suite, and {args.config} has no arms: set seed=... instead"
            )
        return load_run(args.config, args.overrides)
    suite = load_suite(args.config, args.overrides)
    if args.arm not in suite.arms:
        raise ConfigError(
            f"{args.config} is a suite: run all of it with `mutual-env suite`, or --arm {'|'.join(suite.arms)}"
        )
    return arm_config(suite, args.arm, suite.seeds[0] if args.seed is None else args.seed)


def _resume(path: Path, args: argparse.Namespace, config: RunConfig) -> Result:
    """`config`: what the run is asked to be."""
    with RunProgress(config, quiet=args.quiet or args.json) as progress:
        return resume(path, config, accept_changes=args.accept_changes, listeners=[progress, _Begun(args)])


class _Begun:
    """Tells the exit code that what goes wrong from now on is no mistake of the command line, and which run goes on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args

    def started(self, run: TrackedRun) -> None:
        self._args.running = True
        self._args.goes_on = f"it goes on from its last checkpoint with `mutual-env train --resume {run.directory}`"

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        pass

    def finished(self, status: str) -> None:
        pass


def _finish(result: Result, args: argparse.Namespace) -> int:
    report = write_run_report(result.directory)
    if args.json:
        print(json.dumps(_as_json(result, report), indent=1))
        return 0
    for refused in result.refused:
        print(f"note: an earlier checkpoint was used: {refused}")
    if not args.quiet:
        print(f"{result.rounds} rounds in {result.directory}; report: {report}")
    return 0


def _as_json(result: Result, report: Path) -> dict[str, JSON]:
    """`evaluations`: the last of each policy and measure."""
    run = read_run(result.directory)
    last = {policy: {key: curve[-1][1] for key, curve in of.items()} for policy, of in run.evaluations.items()}
    return {
        "directory": str(result.directory),
        "rounds": result.rounds,
        "seconds": run.seconds,
        "report": str(report),
        "refused": list(result.refused),
        "evaluations": last,
    }
