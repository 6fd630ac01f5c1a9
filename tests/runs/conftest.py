"""A run directory written by hand, for tests of what reads one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from learners.run.directory import RunDirectory
from learners.run.lines import JsonLines

WriteRun = Callable[..., RunDirectory]
Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A distribution of one module on the path, as pip leaves it."""

    def installed(name: str, entry_points: str, module: str) -> None:
        site = tmp_path / "site"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        (site / f"{name}.py").write_text(module)
        monkeypatch.syspath_prepend(site)

    return installed


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory as people have one: safetensors, tokenizer, and a licence."""
    from tests.learners.tiny_policies import write_model

    path = tmp_path_factory.mktemp("models") / "mine"
    write_model(path)
    (path / "LICENSE").write_text("Apache-2.0")
    return path


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
