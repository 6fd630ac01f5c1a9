"""`mutual-env`: the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata

from learners.commands import bridge, compare, eval, listing, models, plan, report, suite, train
from mutual_env.errors import MutualEnvError

_COMMANDS = {
    "train": (train, "run a configuration, or go on with a run"),
    "suite": (suite, "run several arms over several seeds and compare them"),
    "plan": (plan, "lay out a configuration on machines without running it"),
    "report": (report, "write the report of a run or a suite as one HTML file"),
    "eval": (eval, "evaluate a run, a checkpoint or a model: mean@k, pass@k, maj@k with intervals"),
    "compare": (compare, "arms of suites, runs or evaluations: paired differences, effect sizes, Holm"),
    "list": (listing, "list env ids, strategies, learners and verifiers"),
    "bridge": (bridge, "what is lost between two tokenizers"),
    "models": (models, "convert the small real models that come as packages"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 an error with a remedy, 2 unusable arguments, 130 interrupted."""
    args = _parse(_parser(), arguments)
    try:
        code: int = args.run(args)
    except MutualEnvError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted: a run goes on from its last checkpoint with `mutual-env train --resume RUN`", file=sys.stderr
        )
        return 130
    return code


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Overrides may stand after options too, where argparse alone would not take them."""
    args, rest = parser.parse_known_args(arguments)
    strange = [word for word in rest if word.startswith("-") or "=" not in word or not hasattr(args, "overrides")]
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mutual-env", description=__doc__)
    parser.add_argument("--version", action="version", version=metadata.version("mutual-env"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
