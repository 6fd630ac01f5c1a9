"""What a run leaves on disk, and the one place that knows the names of the files.

config.yaml      the resolved configuration
run.json         name, seed, versions, platform, isolation of the verifiers, status
metrics.jsonl    one line a round and policy, one line an evaluation and policy: the same for the same seed, bit for bit
timings.jsonl    seconds of each round and of each lease: never the same twice, so kept apart
samples.jsonl    what everybody wrote, as far as the allowance goes: see recording.py
lessons.jsonl    who taught whom: every lesson counted, the borrowed ones one by one
evaluations.jsonl  of each held-out task, which samples were right and what they voted for
exchange.sqlite  the records that the policies exchanged
checkpoints/     the last few whole checkpoints
report.html      written at the end, and by `mutual-env report`
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from learners.run import lock
from learners.run.checkpoint import Checkpoints
from learners.run.lines import read_lines
from learners.run.lock import Lock
from learners.sealed import read_json, write_whole
from mutual_env.errors import ConfigError, StorageError, WrongPathError
from mutual_env.types import JSON

FILES = (
    "config.yaml",
    "run.json",
    "metrics.jsonl",
    "timings.jsonl",
    "samples.jsonl",
    "exchange.sqlite",
    "checkpoints",
)
WARM_STARTS = "MUTUAL_ENV_WARM_STARTS"
"""The variable that tells runs of a suite in which folder the weights are that those of one seed start from."""
_PACKAGES = (
    "mutual-env",
    "numpy",
    "gymnasium",
    "pettingzoo",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "ray",
    "vllm",
)


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def info(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def timings(self) -> Path:
        return self.path / "timings.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def lessons(self) -> Path:
        return self.path / "lessons.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    @property
    def exchange(self) -> Path:
        return self.path / "exchange.sqlite"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def checkpoints(self, keep: int) -> Checkpoints:
        return Checkpoints(self.path / "checkpoints", keep)

    @classmethod
    def create(cls, path: Path, config_yaml: str, info: Mapping[str, JSON]) -> RunDirectory:
        """A new directory; one that already holds a run is refused, because nothing of it may be lost."""
        run = cls(path)
        with run.locked(make=True):
            run.begin(config_yaml, info)
            run.set_status("running")
        return run

    def begin(self, config_yaml: str, info: Mapping[str, JSON], *, replace: bool = False) -> None:
        """Under the lock: make place for a new run. What a run left here that did not come to a single round is
        removed; one that did, only by `replace`."""
        if self.info.exists() or self.info.is_symlink():
            if not replace and self.did_something():
                raise ConfigError(
                    f"{self.path} already holds a run: go on with it (--resume {self.path}), replace it (--replace), "
                    "or give this one another `name`"
                )
            self.clear()
        strange = sorted(name for name in FILES if (self.path / name).exists() or (self.path / name).is_symlink())
        if strange:
            raise ConfigError(f"{self.path} holds no run, but a {strange[0]}: give this run another `name`")
        write_whole(self.info, _as_text({**info, "versions": versions(), "status": "starting"}))
        write_whole(self.config, config_yaml)

    def clear(self) -> None:
        """Under the lock: remove all that the directory holds."""
        for path in sorted(self.path.iterdir(), key=lambda path: path == self.info):  # run.json last: it says whose
            if path.name != lock.NAME:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def did_something(self) -> bool:
        """Of a directory that holds a run: whether there is a round, or an end, that nobody may lose unasked."""
        try:
            status = self.read_info().get("status")
        except StorageError:
            return True
        rounds = any("metrics" in line for line in read_lines(self.metrics))
        return rounds or status == "finished" or any((self.path / "checkpoints").glob("round_*"))

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        run = cls(path)
        for needed in (run.info, run.config):
            if not needed.is_file():
                raise WrongPathError(f"{path} is not a run directory: it has no {needed.name}{nearest(path)}")
        return run

    def read_info(self) -> dict[str, Any]:
        return read_json(self.info)

    def set_status(self, status: str, **more: JSON) -> None:
        """`more`: other things that run.json says from now on."""
        write_whole(self.info, _as_text({**self.read_info(), **more, "status": status}))

    def note_process(self, rounds: int, about: Mapping[str, JSON]) -> None:
        """One more process writes this run, from so many rounds on."""
        before = self.read_info()
        processes = [*before.get("processes", []), {"after_rounds": rounds, **about}]
        write_whole(self.info, _as_text({**before, "processes": processes}))

    def note_changes(
        self, rounds: int, changed: Mapping[str, JSON], config_yaml: str, info: Mapping[str, JSON]
    ) -> None:
        """The run goes on after so many rounds under another configuration, or other versions."""
        before = self.read_info()
        noted = [*before.get("resumed", []), {"after_rounds": rounds, "changed": changed}]
        write_whole(self.info, _as_text({**before, **info, "versions": versions(), "resumed": noted}))
        write_whole(self.config, config_yaml)

    def status(self) -> str:
        """What run.json says, unless its process could not say how it ended."""
        said = str(self.read_info().get("status", "unknown"))
        return "killed" if said in ("starting", "running") and not lock.is_locked(self.path) else said

    @contextmanager
    def locked(self, *, make: bool = False) -> Iterator[Lock]:
        """One process writes to a run at a time, and to nothing outside of it."""
        with lock.locked(self.path, make=make) as held:
            for name in FILES:
                if (self.path / name).is_symlink():
                    raise StorageError(f"{self.path / name} is a link: a run keeps its files itself; put it back")
            yield held


def versions() -> dict[str, JSON]:
    found: dict[str, JSON] = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def nearest(path: Path) -> str:
    """The run that was meant, perhaps."""
    with suppress(OSError, ValueError):
        if path.is_dir() and (inside := sorted(p.parent.name for p in path.glob("*/run.json"))):
            return f"; it holds {', '.join(inside[:5])}{', ...' if inside[5:] else ''}: name one"
        if not path.parent.is_dir() or path.exists():
            return ""
        near = difflib.get_close_matches(path.name, [p.parent.name for p in path.parent.glob("*/run.json")], n=1)
        return f"; did you mean {path.parent / near[0]}?" if near else ""
    return ""


def _as_text(info: Mapping[str, JSON]) -> str:
    return json.dumps(info, indent=1) + "\n"
