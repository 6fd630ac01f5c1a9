"""Rows of a stored data set, each with the place it came from: JSON lines, CSV, Parquet, Hugging Face data sets.

Whatever is wrong with a file is said in a sentence that names it: the libraries beneath raise dozens of kinds of errors
over torn and foreign files, and `read_rows` is where those end.
"""

from __future__ import annotations

import csv
import difflib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mutual_env.errors import (
    DatasetRowError,
    InvalidInputError,
    MissingExtraError,
    MutualEnvError,
    UnknownNameError,
    WrongPathError,
)

Place: TypeAlias = str
Row: TypeAlias = tuple[Place, Mapping[str, Any]]
Paths: TypeAlias = str | Path | Sequence[str | Path]

MAX_LINE_BYTES = 64 * 2**20
MAX_DEPTH = 64
"""How deep the values of a row may be nested: what goes on with them later recurses."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (".jsonl", ".ndjson", ".parquet", *_DELIMITERS)
_PARTS = {"train", "validation", "test"}
_BATCH_ROWS = 1024


def read_rows(path: Paths, part: str | None = None) -> Iterator[Row]:
    """Each row with its place, "file:line" for lines of text and "file: row n" (from 1) for the others.

    A folder is a Hugging Face data set written by `save_to_disk` (`part` names one of a `DatasetDict`), or holds files,
    which are read in the order of their names (`part` names what those begin with). Several paths are read in turn.
    """
    for each in [path] if isinstance(path, (str, Path)) else path:
        yield from _in_sentences(Path(each), _read(Path(each), part))


def read_hub(name: str, config: str | None, part: str | None) -> Iterator[Row]:
    """The rows of a data set of the Hugging Face Hub, or of a folder in its form. Nothing it holds is run as code."""
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError.of(f"reading {name} from the Hub", "data")
    yield from _in_sentences(name, _read_hub(name, config, part))


def _in_sentences(path: str | Path, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows; an error of the libraries that read them as a `WrongPathError`."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except MutualEnvError:
            raise
        except Exception as error:  # a boundary: what a damaged file makes a library raise has no end of kinds
            raise WrongPathError(f"path {str(path)!r} cannot be read: {_said(error)}") from error
        if _depth(row[1]) > MAX_DEPTH:
            raise DatasetRowError(f"{row[0]} is nested more than {MAX_DEPTH} deep: store flatter columns")
        yield row


def _said(error: Exception) -> str:
    """A library's error in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300] or 'no reason given'}"


def _depth(value: object) -> int:
    """How deep lists and mappings are nested, at most one more than is allowed."""
    layer, depth = [value], 0
    while layer and depth <= MAX_DEPTH:
        inner = [v for v in layer if isinstance(v, (Mapping, list))]
        layer = [x for v in inner for x in (v.values() if isinstance(v, Mapping) else v)]
        depth += bool(inner)
    return depth


def _read(path: Path, part: str | None) -> Iterator[Row]:
    if not path.exists():
        kinds = ", ".join(_SUFFIXES)
        there = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, there, n=1)
        meant = f"did you mean {str(path.parent / near[0])!r}?" if near else f"give a {kinds} file or a folder of them"
        raise WrongPathError(f"path {str(path)!r} does not exist: {meant}")
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


def _read_file(file: Path) -> Iterator[Row]:
    if file.suffix == ".parquet":
        yield from _read_parquet(file)
    elif file.suffix in _DELIMITERS:
        yield from _read_delimited(file, _DELIMITERS[file.suffix])
    elif file.suffix in _SUFFIXES:
        yield from _read_json_lines(file)
    else:
        raise InvalidInputError(f"path {str(file)!r}: its name must end in {', '.join(_SUFFIXES)}, got {file.suffix!r}")


def _read_json_lines(file: Path) -> Iterator[Row]:
    with file.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = f"{file}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise DatasetRowError(f"{place} has more than {MAX_LINE_BYTES:,} bytes: write one object a line")
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except ValueError as e:
                raise DatasetRowError(f"{place} is not a JSON object in UTF-8: {e}") from e
            except RecursionError as e:
                raise DatasetRowError(f"{place} is nested more than {MAX_DEPTH} deep: store flatter columns") from e
            if not isinstance(row, dict):
                raise DatasetRowError(f"{place} is a JSON {type(row).__name__}, not an object: write one object a line")
            yield place, row


def _read_delimited(file: Path, delimiter: str) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            if not header or len(set(header)) != len(header):
                raise DatasetRowError(f"{file}:1 must name each column once, got {header!r:.200}")
            for row in reader:
                if row and len(row) != len(header):
                    counts = f"has {len(row)} fields, and the first line names {len(header)} columns"
                    raise DatasetRowError(f"{file}:{reader.line_num} {counts}: quote what holds a {delimiter!r}")
                if row:
                    yield f"{file}:{reader.line_num}", dict(zip(header, row, strict=True))
        except csv.Error as e:
            raise DatasetRowError(
                f"{file}:{reader.line_num} is not a row of {file.suffix[1:].upper()}: {e}; JSON lines hold any text"
            ) from e


def _read_parquet(file: Path) -> Iterator[Row]:
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError.of(f"reading {file}", "data")
    import pyarrow
    import pyarrow.parquet

    try:
        yield from _numbered(str(file), pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS))
    except pyarrow.ArrowInvalid as e:
        raise WrongPathError(f"path {str(file)!r} is not a whole Parquet file: {e}") from e


def _read_hugging_face(folder: Path, part: str | None) -> Iterator[Row]:
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError.of(f"reading {folder}", "data")
    import datasets

    yield from _rows_of(datasets.load_from_disk(str(folder)), str(folder), part)


def _read_hub(name: str, config: str | None, part: str | None) -> Iterator[Row]:
    import datasets

    try:
        stored = datasets.load_dataset(name, config)
    except (ConnectionError, FileNotFoundError) as error:
        raise WrongPathError(
            f"path {name!r} is no file here, and the Hub did not give it: {_said(error)}; correct the name, or run "
            f"`hf download {name} --repo-type dataset --local-dir DIR` where there is a network and name that folder"
        ) from error
    yield from _rows_of(stored, name, part)


def _rows_of(stored: Any, name: str, part: str | None) -> Iterator[Row]:
    if isinstance(stored, dict):  # a DatasetDict is one
        stored = stored[_the_part(name, part, sorted(stored))]
    for table in (stored.data.table, *([] if stored._indices is None else [stored._indices.table])):
        table.validate(full=True)
    yield from _numbered(name, stored.with_format("arrow").iter(batch_size=_BATCH_ROWS))


def _the_part(name: str, part: str | None, parts: Sequence[str]) -> str:
    if part is None and len(parts) != 1:
        raise InvalidInputError(f"path {name!r} holds the parts {', '.join(parts)}: name one, part='train'")
    if part is not None and part not in parts:
        raise UnknownNameError.of(f"part of {name}", part, parts)
    return part or parts[0]


def _numbered(name: str, batches: Iterable[Any]) -> Iterator[Row]:
    """The rows of Arrow batches as plain values; nothing is decoded that a feature may ask to be (images, sounds).

    Each batch is validated first: over a damaged buffer, reading a value can end the process.
    """
    number = 0
    for batch in batches:
        batch.validate(full=True)
        for row in batch.to_pylist():
            number += 1
            yield f"{name}: row {number}", row
