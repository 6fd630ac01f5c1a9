"""A command."""

from __future__ import annotations

import argparse


class Greet:
    """Say hello from another package."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("whom")

    def run(self, args: argparse.Namespace) -> int:
        print(f"acme greets {args.whom}")
        return 0
