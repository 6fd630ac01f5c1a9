"""Evaluate the policies of a run, of one of its checkpoints, or a model directory, on held-out tasks.

`mutual-env eval runs/x --samples 16 --temperature 0.6 --top-p 0.95`
`mutual-env eval runs/x --round 20 --policy ada --greedy`
`mutual-env eval models/smollm2 env.id=math/jsonl-v0 env.options.path=gsm8k.jsonl evaluation.options.split=train`
"""

from __future__ import annotations

import argparse
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from learners.evaluation import outcomes
from learners.evaluation.agreement import agreements
from learners.evaluation.measures import measure, require_statistics
from learners.evaluation.sampling import Watch, sample
from learners.numerics import begin_again, environment
from learners.report.evaluation_sheets import agreed, measured
from learners.report.sheets import FORMS, show
from learners.run.check import check_place
from learners.run.shipped import config_file
from learners.run.subject import Subject, find
from mutual_env.errors import ConfigError

_SAMPLING = ("temperature", "top_p", "top_k", "max_new_tokens")
_SIZES = ("evaluation.prompts=", "evaluation.samples=")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", type=Path, help="a run, a checkpoint of one, or a directory with a model")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="dotted overrides, e.g. env.options.path=FILE"
    )
    parser.add_argument(
        "--like", type=config_file, metavar="CONFIG", help="of a model: ask it the tasks of this configuration or run"
    )
    parser.add_argument("--round", type=int, help="of a run: the checkpoint after so many rounds (default: the last)")
    parser.add_argument("--policy", action="append", default=[], help="only this one (may be repeated)")
    parser.add_argument("--prompts", type=int, help="how many tasks")
    parser.add_argument("--samples", type=int, help="how many samples of each task")
    parser.add_argument("--greedy", action="store_true", help="always the most likely token")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument(
        "--k", type=_numbers, default=[], help="of pass@k and maj@k, e.g. 1,4,16 (default: powers of 2)"
    )
    parser.add_argument("--out", type=Path, help="where samples are kept (default: in the run, under evaluations/)")
    parser.add_argument("--format", choices=("rich", *FORMS), default="rich")
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")


def run(args: argparse.Namespace) -> int:
    subject, settings = _subject(args)
    directory = args.out or subject.home / _label(subject, settings, args)
    check_place(directory, "--out")
    require_statistics()
    if args.is_program:  # as the run was, so that its figures come again
        begin_again(environment(subject.config.resources.instructions, subject.config.resources.threads))
    show_progress = Console(stderr=True)
    with show_progress.status("building") as status:
        answered = list(sample(subject, _progress(show_progress, status)))
    measures = measure(answered, args.k, seed=subject.config.seed)
    outcomes.write(directory, answered, {**_about(subject, settings, args), "measures": [asdict(m) for m in measures]})
    sheets = [measured(f"{subject.title}, after {subject.round} rounds", measures)]
    by_policy = {name: [a for a in answered if a.policy == name] for name in subject.config.policies}
    pairs = agreements(by_policy)
    show([*sheets, agreed(pairs)] if pairs else sheets, args.format)
    show_progress.print(f"samples: {directory / outcomes.SAMPLES}", highlight=False)
    return 0


def _subject(args: argparse.Namespace) -> tuple[Subject, dict[str, Any]]:
    sizes = [
        f"evaluation.{key}={getattr(args, key)}" for key in ("prompts", "samples") if getattr(args, key) is not None
    ]
    settings = {key: getattr(args, key) for key in _SAMPLING if getattr(args, key) is not None}
    if args.greedy and settings.keys() & {"temperature", "top_p", "top_k"}:
        raise ConfigError("--greedy already says how tokens are chosen: leave out --temperature, --top-p and --top-k")
    subject = find(args.subject, [*sizes, *args.overrides], round=args.round, like=args.like)
    if args.greedy and subject.config.evaluation.samples > 1:
        raise ConfigError("--greedy gives the same sample every time: add --samples 1")
    return subject.only(args.policy).sampled_with(settings, greedy=args.greedy), settings


def _label(subject: Subject, settings: dict[str, Any], args: argparse.Namespace) -> str:
    """The name of an evaluation's folder: the same evaluation replaces what it gave before, and no other."""
    evaluation = subject.config.evaluation
    words = [f"round_{subject.round:08d}", f"{evaluation.prompts}x{evaluation.samples}"]
    words += ["greedy"] if args.greedy else []
    words += [f"{key}_{value:g}" for key, value in settings.items()]
    words += sorted({*args.policy})
    others = [args.like.resolve().as_posix()] if args.like else []
    others += [override for override in args.overrides if not override.startswith(_SIZES)]
    words += [f"{zlib.crc32(' '.join(others).encode()):08x}"] if others else []
    return "-".join(words)


def _about(subject: Subject, settings: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    config = subject.config
    return {
        "subject": subject.title,
        "round": subject.round,
        "policies": list(config.policies),
        "env": config.env.id,
        "seed": config.seed,
        "prompts": config.evaluation.prompts,
        "samples": config.evaluation.samples,
        "settings": {**settings, **({"greedy": True} if args.greedy else {})},
        "overrides": list(args.overrides),
    }


def _progress(console: Console, status: Any) -> Watch:
    def watch(policy: str, done: int, of: int) -> None:
        status.update(f"{policy}: {done} of {of} prompts")
        if not console.is_terminal and done == of:
            console.print(f"{policy}: {of} prompts answered", highlight=False)

    return watch


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers with commas, e.g. 1,4,16") from error
