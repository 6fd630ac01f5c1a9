"""Rows of a stored data set, each with the place it came from: JSON lines, Parquet, Hugging Face data sets on disk."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from mutual_env.errors import DatasetRowError, InvalidInputError, MissingExtraError, StorageError, UnknownNameError

Place: TypeAlias = str
_SUFFIXES = (".jsonl", ".ndjson", ".parquet")
_PARTS = {"train", "validation", "test"}
_BATCH = 1024


def read_rows(path: str | Path, part: str | None = None) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Each row with its place, "file:line" for JSON lines and "file: row n" (from 1) for the others.

    A folder is a Hugging Face data set written by `save_to_disk` (`part` names one of a `DatasetDict`), or holds .jsonl
    and .parquet files, which are read in the order of their names (`part` names what those begin with).
    """
    path = Path(path)
    if not path.exists():
        raise StorageError(f"path {str(path)!r} does not exist: give a {', '.join(_SUFFIXES)} file or a folder of them")
    if path.is_file():
        yield from _read_file(path)
    elif (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        yield from _read_hugging_face(path, part)
    else:
        for file in _files_of(path, part):
            yield from _read_file(file)


def _files_of(folder: Path, part: str | None) -> list[Path]:
    """The files of the part: "train-00000-of-00001.parquet" and "train.jsonl" are of the part "train"."""
    files = sorted(f for f in folder.iterdir() if f.suffix in _SUFFIXES)
    if not files:
        raise InvalidInputError(
            f"path {str(folder)!r} holds neither {', '.join(_SUFFIXES)} files nor a stored data set"
        )
    parts = {re.split(r"[-.]", file.name)[0] for file in files}
    if part is not None and part not in parts:
        raise UnknownNameError.of(f"part of {folder}", part, parts)
    if part is None and len(parts & _PARTS) > 1:
        raise InvalidInputError(
            f"path {str(folder)!r} holds the parts {', '.join(sorted(parts))}: name one, part='train'"
        )
    return [file for file in files if part in (None, re.split(r"[-.]", file.name)[0])]


def _read_file(file: Path) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    if file.suffix == ".parquet":
        yield from _read_parquet(file)
    elif file.suffix in _SUFFIXES:
        yield from _read_json_lines(file)
    else:
        raise InvalidInputError(f"path {str(file)!r}: its name must end in {', '.join(_SUFFIXES)}, got {file.suffix!r}")


def _read_json_lines(file: Path) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{file}:{number}"
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except ValueError as e:
                raise DatasetRowError(f"{place} is not a JSON object in UTF-8: {e}") from e
            if not isinstance(row, dict):
                raise DatasetRowError(f"{place} is a JSON {type(row).__name__}, not an object: write one object a line")
            yield place, row


def _read_parquet(file: Path) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError.of(f"reading {file}", "data")
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}: row {number}", row
    except pyarrow.ArrowInvalid as e:
        raise StorageError(f"path {str(file)!r} is not a whole Parquet file: {e}") from e


def _read_hugging_face(folder: Path, part: str | None) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError.of(f"reading {folder}", "data")
    import datasets

    stored = datasets.load_from_disk(str(folder))
    if isinstance(stored, datasets.DatasetDict):
        if part not in stored:
            raise UnknownNameError.of(f"part of {folder}", part, stored)
        stored = stored[part]
    for number, row in enumerate(stored, 1):
        yield f"{folder}: row {number}", row
