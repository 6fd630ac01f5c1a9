"""`python -m benchmarks.evidence collect letters`, `... page`; `mutual-env suite configs/evidence/letters.yaml` runs.

collect  the runs of a family into its result file in docs/figures/data, `collect letters output=FOLDER`; `--as NAME`:
         into another one, for runs on a processor of another maker
page     docs/evidence.md and its figures, from the result files
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.evidence.page import write_page
from benchmarks.evidence.results import collect, family_file
from learners.run.config import load_suite


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("collect", "page"))
    parser.add_argument("family", nargs="?", default="letters")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--as", dest="name", default="")
    args = parser.parse_intermixed_args()
    if args.what == "collect":
        config = load_suite(family_file(args.family), args.overrides)
        print(collect(Path(config.output) / config.name, args.family, args.name))
        return 0
    print(*write_page(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
