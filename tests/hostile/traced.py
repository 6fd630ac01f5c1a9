"""A run of the command line whose verifier tries to look into the process that trains.

`python -m tests.hostile.traced CONFIG OVERRIDES...` trains as `mutual-env train` does; what succeeded stands in the
samples, as the detail of a verdict.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import mutual_env
from learners.cli import main
from mutual_env import Task, Verdict, VerifierSpec
from mutual_env.verifiers.pool import kernel
from tests.hostile.canaries import Canaries, succeeding
from tests.hostile.escapes import memory_of_others


class Numbers:
    """Tasks that name the process which draws them: the trainer."""

    verifier = VerifierSpec("tests.hostile.traced:Tracer")

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        return [Task(f"{round}-{i}", f"{i}=", str(i), {"trainer": os.getpid()}) for i in range(n)]


@dataclass(frozen=True)
class Tracer:
    id: str = "tracer"
    inline: bool = False

    def verify(self, task: Task, text: str) -> Verdict:
        trainer = int(str(task.metadata["trainer"]))
        attempts = memory_of_others(Canaries(trainer, "", "", ""))
        for name in ("cmdline", "status", "stat"):  # the kernel tells them to everybody, of any process
            del attempts[name]
        del attempts["process_vm_readv"]  # of no bytes, it asks for no right; `memory` reads some
        del attempts["ptrace"]  # would stop the run where it succeeds; `seize` needs the same right
        attempts["memory"] = lambda: _memory_of(trainer)
        of_hosts = [f"host's {name}" for name in ("environ", "maps") for host in _hosts(trainer) if _opens(host, name)]
        succeeded = [*succeeding(attempts), *of_hosts]
        return Verdict.scored(0.0, correct=False, detail="succeeded: " + ", ".join(succeeded))


def _hosts(trainer: int) -> list[int]:
    """The processes that hold policies for it: they found groups of their own, which its other children do not."""
    return [pid for pid in kernel.children(trainer) if os.getpgid(pid) == pid and pid != os.getppid()]


def _opens(process: int, name: str) -> bool:
    return bool(kernel.of_process(process, name))


def _memory_of(process: int) -> bytes:
    """The first bytes that are mapped there."""
    start = int(Path(f"/proc/{process}/maps").read_text().partition("-")[0], 16)
    with open(f"/proc/{process}/mem", "rb", buffering=0) as file:
        file.seek(start)
        return file.read(16)


if __name__ == "__main__":
    mutual_env.register("test/traced-v0", "tests.hostile.traced:Numbers")
    sys.exit(main(["train", *sys.argv[1:], "--quiet"]))
