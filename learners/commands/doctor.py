"""Look at this machine: versions, processor, GPU, extras, verifier pool, isolation, disk; with a remedy for each.

`mutual-env doctor`
`mutual-env doctor --json`
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from learners.health.checks import Finding, findings

_MARKS = {"good": ("✓", "green"), "note": ("·", "yellow"), "bad": ("✗", "red")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("runs"), help="where runs will be written (default: runs)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    found: list[Finding] = []
    console = Console()
    for finding in findings(args.output):
        found.append(finding)
        if not args.json:
            _print(console, finding)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    return 1 if any(finding.state == "bad" for finding in found) else 0


def _print(console: Console, finding: Finding) -> None:
    mark, style = _MARKS[finding.state]
    line = (
        Text(f"{mark} ", style=style).append(f"{finding.check}: ", style="bold").append(finding.says, style="default")
    )
    if finding.remedy:
        line.append(f"\n    → {finding.remedy}", style="dim")
    console.print(line, highlight=False, soft_wrap=True)
