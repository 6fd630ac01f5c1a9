"""Whether a pool stays as large as it was: memory, descriptors, threads, processes, files.

`python -m tests.hostile.soak_pool --seconds 180` gives it honest items, misdeeds and confined calls, over and over, and
prints what it takes after each of the parts. The first fifth is for warming up.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mutual_env.types import Task
from mutual_env.verifiers import VerifierPool
from mutual_env.verifiers.pool import kernel

HERE = Path(__file__).parent
MISDEEDS = ("exit_at_once", "raise", "segfault", "recurse", "leave_files", "forge", "allocate", "sleep", "stop", "spin")
MOST_GROWTH_MB = 16.0
PARTS = 10


@dataclass(frozen=True, slots=True)
class Size:
    """Of this process, but for `processes` (its own and all below) and `files` (in the temporary directory)."""

    megabytes: float
    descriptors: int
    threads: int
    processes: int
    files: int


def size(directory: Path) -> Size:
    pages = int(kernel.of_process("self", "statm").split()[1])
    return Size(
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        len(list(kernel.descendants(os.getpid()))),
        sum(len(files) + len(folders) for _, folders, files in os.walk(directory)),
    )


def soak(directory: Path, seconds: float, parts: int = PARTS) -> Iterator[Size]:
    """The size after each part: a pool that has nothing to do, and after the last one has been closed."""
    task = Task("t", "", "7")
    count = 0
    with VerifierPool(2, deadline=0.3, memory_mb=256, remember=500) as pool:
        for _ in range(parts):
            until = time.monotonic() + seconds / parts
            while True:
                numbers = [(task, f"number:{count + i}") for i in range(200)]
                deeds = [(task, f"{deed}:" if deed in ("sleep", "stop") else deed) for deed in MISDEEDS]
                verdicts = pool.verify("hostile:Hostile", [*numbers[:100], *deeds, *numbers[100:]])
                honest = [*verdicts[:100], *verdicts[-100:]]
                assert [v.reward for v in honest] == list(range(count, count + 200))
                assert [o.status for o in pool.call("gullible:returned", ["1 + 1", "exit()"])] == ["ok", "error"]
                count += 200
                if time.monotonic() > until:
                    break
            yield size(directory)
    yield size(directory)


def faults(sizes: list[Size]) -> list[str]:
    """What grew between the end of the warming up and the end of the last part, and what a closed pool left."""
    *busy, closed = sizes
    before, after = busy[len(busy) // 5], busy[-1]
    found = []
    if after.megabytes > before.megabytes + MOST_GROWTH_MB:
        found.append(f"memory grew from {before.megabytes:.0f} to {after.megabytes:.0f} MB")
    for what, most in (("descriptors", 8), ("threads", 0), ("processes", 4), ("files", 8)):
        first, last = getattr(before, what), getattr(after, what)
        if last > first + most:  # a worker more or less is a matter of chance
            found.append(f"{what} grew from {first} to {last}")
    if closed.processes > 1 or closed.files or closed.threads > 1:
        found.append(f"the closed pool left {closed}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    sys.path[:0] = [str(HERE), str(HERE.parent / "mutual_env" / "verifiers")]
    sizes = []
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        tempfile.tempdir = directory
        for found in soak(Path(directory), parser.parse_args().seconds):
            print(found, flush=True)
            sizes.append(found)
    if wrong := faults(sizes):
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
