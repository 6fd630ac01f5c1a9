"""What the fuzzers share: the loop over seeds and kinds, the command line, the exit code."""

from __future__ import annotations

import argparse
import gc
import math
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

MEMORY_DISK = Path("/dev/shm")
"""Where files of a case are made: to make and remove a run's directories on a disk takes longer than to read them."""

Case: TypeAlias = Callable[[str, int], tuple[str, str]]
"""What became of the case of this kind and seed, and what there is to say about it."""


def run(
    case: Case,
    kinds: Sequence[str],
    good: Collection[str],
    cases: int,
    first: int = 0,
    seconds: float = math.inf,
    log: Any = None,
) -> Counter[str]:
    """Counts of what became of each case; stops early when the time is up."""
    found: Counter[str] = Counter()
    until = time.monotonic() + seconds
    for seed in range(first, first + cases):
        for kind in kinds:
            if time.monotonic() > until:
                return found
            if log is not None:
                print(f"{kind} {seed}", file=log, flush=True)
            try:
                outcome, said = case(kind, seed)
            except KeyboardInterrupt:
                print(f"interrupted at --kinds {kind!r} --first {seed}", file=sys.stderr)
                raise
            found[f"{kind}: {outcome}"] += 1
            if outcome not in good:
                print(f"{outcome} at --kinds {kind!r} --first {seed}: {said}", file=sys.stderr)
    return found


def main(
    prog: str,
    description: str | None,
    prepared: Callable[[Sequence[str]], AbstractContextManager[Case]],
    kinds: Sequence[str],
    good: Collection[str],
    memory_bytes: int,
) -> int:
    """The command line of a fuzzer. `prepared`: what its cases of these kinds need, for as long as they run."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--cases", type=int, default=10_000, help="of each kind")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=list(kinds))
    parser.add_argument("--log", type=argparse.FileType("w"), help="each case before it is tried")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    os.environ["COLUMNS"] = "120"
    if MEMORY_DISK.is_dir() and "TMPDIR" not in os.environ:
        tempfile.tempdir = str(MEMORY_DISK)
    gc.freeze()  # what was imported is not looked through again after every case
    with prepared(given.kinds) as case:
        found = run(case, given.kinds, good, given.cases, given.first, given.seconds, given.log)
    print("\n".join(f"{count:7,} {outcome}" for outcome, count in sorted(found.items())))
    return int(any(outcome.partition(": ")[2] not in good for outcome in found))
