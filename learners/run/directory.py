"""What a run leaves on disk, and the one place that knows the names of the files.

config.yaml      the resolved configuration
run.json         name, seed, versions, platform, status
metrics.jsonl    one line a round and policy, one line an evaluation and policy: the same for the same seed, bit for bit
timings.jsonl    seconds of each round and of each lease: never the same twice, so kept apart
samples.jsonl    a few completions of each round, for reading
exchange.sqlite  the records that the policies exchanged
checkpoints/     the last few whole checkpoints
report.html      written at the end, and by `mutual-env report`
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

from learners.run.checkpoint import Checkpoints
from mutual_env.errors import ConfigError, StorageError
from mutual_env.types import JSON

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
        if run.info.exists():
            raise ConfigError(
                f"{path} already holds a run: go on with it (--resume {path}), replace it (--replace), "
                "or give this one another `name`"
            )
        path.mkdir(parents=True, exist_ok=True)
        run.config.write_text(config_yaml)
        run.write_info({**info, "versions": versions(), "status": "running"})
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        run = cls(path)
        for needed in (run.info, run.config):
            if not needed.is_file():
                raise StorageError(f"{path} is not a run directory: it has no {needed.name}")
        return run

    def read_info(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.info.read_text())
        return content

    def write_info(self, info: Mapping[str, JSON]) -> None:
        aside = self.info.with_suffix(".tmp")
        aside.write_text(json.dumps(info, indent=1) + "\n")
        aside.replace(self.info)

    def set_status(self, status: str) -> None:
        self.write_info({**self.read_info(), "status": status})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process writes to a run at a time; the lock dies with the process that holds it."""
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(
                    f"{self.path} is being written by another process: wait for it, or stop it"
                ) from error
            yield


class JsonLines:
    """A file of JSON lines that can be cut back to where a checkpoint saw it."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("ab")

    def append(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(_finite(record), allow_nan=False).encode() + b"\n")
        self._file.flush()

    def position(self) -> int:
        """How long the file is, once that much of it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, position: int) -> None:
        """Forget what was written after `position`: a resumed run writes it again."""
        if self._file.seek(0, os.SEEK_END) < position:
            raise StorageError(f"{self._file.name} is shorter than its checkpoint says ({position} bytes): it was cut")
        self._file.truncate(position)
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of a file that may still be growing."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


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


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null, which no reader takes for a zero."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
