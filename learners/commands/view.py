"""Look at a run's rounds in the terminal: prompts, groups side by side, verdicts, who taught whom.

`mutual-env view runs/x`
`mutual-env view runs/x --round 20 --plain`
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from learners.report.shown import Palette, prompts_of, shown
from learners.run.recorded import Recorded
from mutual_env.catalogue import load
from mutual_env.errors import ConfigError, InvalidInputError, MissingExtraError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", type=Path, metavar="RUN", help="a run's directory, also of one that goes on")
    parser.add_argument("--round", type=int, help="begin at this round (default: the last)")
    parser.add_argument("--plain", action="store_true", help="print the round, tokens of lessons included, and end")
    parser.add_argument("--json", action="store_true", help="print the round as JSON, and end")


def run(args: argparse.Namespace) -> int:
    recorded = Recorded(args.run_directory)
    if not recorded.numbers:
        raise InvalidInputError(f"{args.run_directory} has recorded no round yet")
    if args.round is not None and args.round not in recorded.numbers:
        first, last = recorded.numbers[0], recorded.numbers[-1]
        raise ConfigError(f"--round {args.round}: {args.run_directory} has recorded rounds {first} to {last}")
    number = recorded.numbers[-1] if args.round is None else args.round
    if args.json:
        print(json.dumps(asdict(recorded.round(number)), indent=1))
        return 0
    if args.plain:
        return _print(recorded, number)
    try:
        viewer = load("the viewer", "learners.report.viewer:Viewer")
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("the viewer (without it: --plain)", "view") from error
    viewer(args.run_directory, args.round).run()
    return 0


def _print(recorded: Recorded, number: int) -> int:
    console = Console()
    console.print(f"round {number}", style="bold")
    for prompt in prompts_of(recorded.round(number)):
        console.print(shown(prompt, Palette(recorded.policies), tokens=True))
    return 0
