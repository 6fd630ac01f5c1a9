"""Runs whose policies compile their layers: killed and resumed to the same bytes, and with no process left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from learners.run.config import load_run
from learners.run.training import resume, train
from tests.runs.test_beside import OF_TORCH
from tests.runs.test_run import in_a_process, whole
from tests.tiers import long

pytestmark = pytest.mark.torch

COMPILED = [
    *("rounds=4", "checkpoint.every=2", "evaluation.every=0"),
    *(
        f"policies.{name}.options.{option}"
        for name, options in (
            ("ada", ("kl_coefficient=0.1",)),
            ("bob", ("lora_rank=2", "architecture=gpt_neox")),
        )
        for option in (*options, "learning_rate=0.01", "width=16", "layers=1", "compile=true")
    ),
]
KILLED = """
import os, signal
from pathlib import Path
from learners.run.config import load_run
from learners.run.saving import Saver
from learners.run.training import train
real = Saver.save
def dies(self, round, *asked):
    if round == 4:
        self.settled()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, round, *asked)
Saver.save = dies
train(load_run(Path({path!r}), {overrides!r}))
"""


def left() -> list[str]:
    """What this process's children were started with, but for what multiprocessing keeps as long as a process lives."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    found = [Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ") for child in children]
    return [words for words in found if "multiprocessing.resource_tracker" not in words]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("executor", [long("threads"), long("processes")])
def test_a_run_that_compiles_is_resumed_to_the_same_bytes_and_leaves_no_process(tmp_path: Path, executor: str) -> None:
    path = tmp_path / "torch.yaml"
    path.write_text(f"{OF_TORCH}output: {tmp_path}\n")
    overrides = [*COMPILED, f"resources.executor={executor}"]
    code = KILLED.format(path=str(path), overrides=[*overrides, "name=killed"])
    assert in_a_process(code, timeout=600) == -signal.SIGKILL
    plain = train(load_run(path, [*overrides, "name=plain"])).directory
    assert whole(resume(tmp_path / "killed").directory) == whole(plain)
    assert left() == []
