"""Checkpoints that are either whole or not there.

A checkpoint is a sealed folder of safetensors and JSON files. A broken one is refused by the name of the file that is
wrong, and the last whole one is used in its place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learners import sealed
from mutual_env.errors import StorageError
from mutual_env.types import JSON

MANIFEST = "manifest.json"
STATE = "state.json"
EXCHANGE = ".exchange"  # the part of what the policies exchanged; no policy is called so
SCHEMA = 1
_PREFIX = "round_"
_ASIDE = ".writing-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint: `round` rounds were done when it was written."""

    directory: Path
    round: int
    state: Mapping[str, Any]

    def part(self, name: str) -> Path:
        path = self.directory / name
        if not path.is_dir():
            raise StorageError(f"{self.directory} holds no part {name!r}: was it written by a run with other policies?")
        return path


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The last `keep` checkpoints of a run."""

    directory: Path
    keep: int = 2

    def save(self, round: int, state: Mapping[str, JSON], parts: Mapping[str, Callable[[Path], None]]) -> Path:
        """`parts` maps a name to the function that writes that part into an empty directory."""
        self.begin(round, parts)
        return self.finish(round, state)

    def begin(self, round: int, parts: Mapping[str, Callable[[Path], None]]) -> None:
        """Write the parts into a folder aside."""
        aside = self._aside(round)
        with self._gone_if_not_whole(round):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            aside.mkdir()
            for name, write in parts.items():
                (aside / name).mkdir(parents=True)
                write(aside / name)

    def finish(self, round: int, state: Mapping[str, JSON], last: Sequence[Callable[[], object]] = ()) -> Path:
        """Make what was begun a checkpoint, once `last` has done what was still to do. From any thread."""
        final, aside = self.directory / f"{_PREFIX}{round:08d}", self._aside(round)
        with self._gone_if_not_whole(round):
            for step in last:
                step()
            (aside / STATE).write_text(json.dumps({"schema": SCHEMA, "round": round, "state": state}))
            sealed.seal(aside, MANIFEST)
            if final.exists():  # only a refused one can be in the way: a run goes on from the last whole checkpoint
                shutil.rmtree(final)
            sealed.give_name(aside, final)
        self._prune()
        return final

    @contextmanager
    def _gone_if_not_whole(self, round: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            shutil.rmtree(self._aside(round), ignore_errors=True)
            raise StorageError(
                f"checkpoint {self.directory / f'{_PREFIX}{round:08d}'} could not be written ({error}): free space or "
                "change `output`; earlier checkpoints are intact"
            ) from error

    def _aside(self, round: int) -> Path:
        return self.directory / f"{_ASIDE}{_PREFIX}{round:08d}"

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The last whole checkpoint, and a sentence for each later one that was refused. All refused is an error."""
        refused: list[str] = []
        for path in sorted(self._saved(), reverse=True):
            try:
                return load(path), refused
            except StorageError as error:
                refused.append(str(error))
        if refused:
            raise StorageError("no whole checkpoint is left: " + "; ".join(refused))
        return None, refused

    def _saved(self) -> list[Path]:
        return [p for p in self.directory.glob(f"{_PREFIX}*") if p.is_dir()]

    def _remove_leftovers(self) -> None:
        for leftover in self.directory.glob(f"{_ASIDE}*"):
            shutil.rmtree(leftover)

    def _prune(self) -> None:
        for old in sorted(self._saved())[: -self.keep]:
            shutil.rmtree(old)


def load(directory: Path) -> Checkpoint:
    """A checkpoint whose every file is as it was written; StorageError names the first that is not."""
    sealed.check(directory, MANIFEST)
    content = sealed.read_json(directory / STATE)
    if content.get("schema") != SCHEMA:
        raise StorageError(
            f"{directory / STATE} has schema {content.get('schema')!r}, this version reads {SCHEMA}: "
            "resume with the version that wrote it"
        )
    return Checkpoint(directory, int(content["round"]), content["state"])
