"""Checkpoints that are either whole or not there.

A checkpoint is a directory of safetensors and JSON files, written aside under a temporary name, with a manifest of
every file's size and SHA-256 written last, everything flushed to the disk, and then renamed. Loading checks every hash
before anything reads a file; a broken checkpoint is refused by the name of the file that is wrong, and the last whole
one is used in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutual_env.errors import StorageError
from mutual_env.types import JSON

MANIFEST = "manifest.json"
STATE = "state.json"
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
        final = self.directory / f"{_PREFIX}{round:08d}"
        aside = self.directory / f"{_ASIDE}{final.name}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            aside.mkdir()
            for name, write in parts.items():
                (aside / name).mkdir(parents=True)
                write(aside / name)
            (aside / STATE).write_text(json.dumps({"schema": SCHEMA, "round": round, "state": state}))
            _seal(aside)
            _replace(aside, final)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise StorageError(
                f"checkpoint {final} could not be written ({error}): free space or change `output`; "
                "earlier checkpoints are intact"
            ) from error
        self._prune()
        return final

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
    manifest = _read_json(directory / MANIFEST)
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise StorageError(f"{directory / MANIFEST} lists no files: it is not a checkpoint manifest")
    present = {str(p.relative_to(directory)) for p in _files(directory)}
    unlisted = sorted(present - set(files))
    if unlisted:
        raise StorageError(f"{directory / unlisted[0]} is not in the manifest: it was put there by something else")
    for name, entry in files.items():
        _check_file(directory / name, entry)
    content = _read_json(directory / STATE)
    if content.get("schema") != SCHEMA:
        raise StorageError(
            f"{directory / STATE} has schema {content.get('schema')!r}, this version reads {SCHEMA}: "
            "resume with the version that wrote it"
        )
    return Checkpoint(directory, int(content["round"]), content["state"])


def _check_file(path: Path, entry: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise StorageError(f"{path} is missing from the checkpoint")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise StorageError(f"{path} is torn: {size} bytes, the manifest says {entry['bytes']}")
    if _sha256(path) != entry["sha256"]:
        raise StorageError(f"{path} was changed after it was written: its SHA-256 is not the manifest's")


def _seal(directory: Path) -> None:
    """Write the manifest last, and flush files and directories, so that the rename is the only moment that counts."""
    files = {
        str(path.relative_to(directory)): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(_files(directory))
    }
    (directory / MANIFEST).write_text(json.dumps({"files": files}, indent=1))
    for path in [*directory.rglob("*"), directory]:
        _fsync(path)


def _replace(aside: Path, final: Path) -> None:
    if final.exists():  # only a refused one can be in the way: a run goes on from the last whole checkpoint
        shutil.rmtree(final)
    aside.rename(final)
    _fsync(final.parent)


def _files(directory: Path) -> Iterator[Path]:
    return (p for p in directory.rglob("*") if p.is_file() and p != directory / MANIFEST)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise StorageError(f"{path} is missing: the checkpoint was never finished, or a file was removed") from error
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise StorageError(f"{path} must hold a JSON object")
    return content
