"""Write the report of a run or of a suite as one HTML file.

`mutual-env report runs/quickstart`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from learners.report import write_run_report, write_suite_report
from learners.run.config import load_suite
from learners.run.results import read_suite


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="a run's or a suite's directory")
    parser.add_argument("--json", action="store_true", help="print where it is as JSON")


def run(args: argparse.Namespace) -> int:
    suite = args.directory / "suite.yaml"
    of_suite = suite.is_file()
    report = write_suite_report(read_suite(load_suite(suite))) if of_suite else write_run_report(args.directory)
    print(json.dumps({"report": str(report)}, indent=1) if args.json else report)
    return 0
