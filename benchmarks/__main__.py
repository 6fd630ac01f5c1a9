"""`make bench`: every benchmark in a process of its own, one after the other, then the page of figures.

`python -m benchmarks env exchange` runs some of them; `python -m benchmarks --page` only rewrites the page.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.bars import AREAS
from benchmarks.page import write_page

LONGEST_SECONDS = 3600.0
ELSEWHERE = {"vllm_sampler": "needs the vLLM environment", "gpu": "needs a GPU: make bench-gpu"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [area.name for area in AREAS if area.name not in ELSEWHERE]
    parser.add_argument("areas", nargs="*", choices=[[], *names], help="default: all")
    parser.add_argument("--page", action="store_true", help="only rewrite docs/performance.md")
    args = parser.parse_args()
    failed = []
    for name in [] if args.page else args.areas or names:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], timeout=LONGEST_SECONDS, check=False)
        failed += [name] if done.returncode else []
    print(write_page())
    for name in failed:
        print(f"benchmark {name} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
