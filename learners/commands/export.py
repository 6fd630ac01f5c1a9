"""Write a policy of a run as a model directory: weights, tokenizer, and a card that says how it came about.

`mutual-env export runs/x llama exported/llama`
`mutual-env export runs/x llama exported/llama-lora --adapter`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from learners.report.card import model_card
from learners.run.export import export
from learners.run.results import read_run
from learners.run.subject import find


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", type=Path, metavar="RUN", help="a run's directory")
    parser.add_argument("policy", help="the policy's name in the run")
    parser.add_argument("directory", type=Path, help="where to write it: a directory that is not there, or empty")
    parser.add_argument("--round", type=int, help="the checkpoint after so many rounds (default: the last)")
    parser.add_argument("--adapter", action="store_true", help="of LoRA: the adapter alone, not merged into the model")
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON")


def run(args: argparse.Namespace) -> int:
    subject = find(args.run_directory, round=args.round)
    subject.only([args.policy])
    card = model_card(subject, args.policy, read_run(args.run_directory), adapter=args.adapter)
    done = export(subject, args.policy, args.directory, card, adapter=args.adapter)
    if args.json:
        about = {"directory": str(done.directory), "policy": args.policy, "rounds": subject.round}
        print(json.dumps({**about, "difference": done.difference}, indent=1))
        return 0
    print(f"{done.directory}: {args.policy} after {subject.round} rounds")
    print(f"loaded again by transformers: log-probabilities within {done.difference:.2g}")
    return 0
