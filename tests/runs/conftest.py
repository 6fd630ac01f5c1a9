"""A run directory written by hand, for tests of what reads one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from learners.run.directory import JsonLines, RunDirectory

WriteRun = Callable[..., RunDirectory]


@pytest.fixture
def write_run() -> WriteRun:
    def write(path: Path, accuracies: list[float], *, part: str = "<b>&sort", status: str = "finished") -> RunDirectory:
        run = RunDirectory.create(path, "rounds: 1\n", {"name": path.name, "seed": 0})
        metrics, timings, samples = (JsonLines(p) for p in (run.metrics, run.timings, run.samples))
        for round_, accuracy in enumerate(accuracies):
            for policy in ("ada", "bob"):
                evaluation = {"accuracy": accuracy / 2, f"accuracy/{part}": accuracy}
                metrics.append({"round": round_, "policy": policy, "evaluation": evaluation})
                metrics.append(
                    {"round": round_, "policy": policy, "metrics": {"reward": accuracy, "share/rescued": 2.0}}
                )
                group = {
                    "prompt": f"<script>{round_}",
                    "answer": "ab",
                    "completions": [["ab", 1.0, "ok"], ["", None, "timeout"]],
                }
                samples.append({"round": round_, "policy": policy, "groups": [group]})
            timings.append({"type": "round", "round": round_, "seconds": 0.5})
        for file in (metrics, timings, samples):
            file.close()
        run.set_status(status)
        return run

    return write
