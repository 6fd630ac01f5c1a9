"""The JSON lines of a run: written so that a checkpoint can cut them back, read so that a damaged one is named."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from learners.resources import Span
from learners.sealed import file_opener
from mutual_env.errors import StorageError
from mutual_env.options import options_of, problem

Shape: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Which types the keys of a line must have, by what the line says of itself."""

_WHERE = {"round": int, "policy": str}
_LATEST = 2**53  # what a float can count to
_NUMBERS = Mapping[str, float | None]
_TIMED: Mapping[str, Mapping[str, Any]] = {
    "round": {"round": int, "seconds": float},
    "pace": {**_WHERE, "lead": float, "waited": float},
    "span": {option.name: option.hint for option in options_of(Span)[0].values() if option.required},
}
_MAY_BE_TIMED: Mapping[str, Mapping[str, Any]] = {
    "round": {"processor": float},
    "span": {option.name: option.hint for option in options_of(Span)[0].values() if not option.required},
}


def metrics(line: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**_WHERE, "evaluation" if "evaluation" in line else "metrics": _NUMBERS}


def timings(line: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = str(line.get("type"))
    others = {name: hint for name, hint in _MAY_BE_TIMED.get(kind, {}).items() if name in line}
    return {"type": str, **_TIMED.get(kind, {}), **others}


def samples(line: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**_WHERE, **({"right": Sequence[int]} if "right" in line else {})}


def lessons(line: Mapping[str, Any]) -> Mapping[str, Any]:
    flow = {"flow": Mapping[str, tuple[float, float, float]], "dropped": Mapping[str, int]}
    return {**_WHERE, **(flow if "flow" in line else {})}


def evaluations(line: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**_WHERE, "tasks": Mapping[str, tuple[str, str, Sequence[str | None]]]}


def read_lines(path: Path, shape: Shape | None = None) -> Iterator[dict[str, Any]]:
    """Every whole line of a file that may still be growing. StorageError names the first that no run wrote."""
    try:
        if not path.is_file():
            if path.is_dir() or path.is_symlink():
                raise StorageError(f"{path} is no file: a run keeps its lines there; put it back")
            return
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):
                    yield read_line(line, f"{path}, line {number}", shape)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error


def ends_whole(path: Path) -> bool:
    """The last line was written to its end, if there is one."""
    if not path.is_file():
        return True
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def read_line(line: bytes, where: str, shape: Shape | None = None) -> dict[str, Any]:
    """One line as an object; `where` is said of one that is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{where} was damaged, it is not JSON ({error}): {REMEDY}") from error
    if not isinstance(content, dict):
        raise StorageError(f"{where} was damaged, it holds no JSON object: {REMEDY}")
    if shape is not None:
        check_fields(content, shape(content), where)
    return content


def check_fields(content: Mapping[str, Any], shape: Mapping[str, Any], where: str) -> None:
    """Raise where a field is missing or of another type."""
    for key, hint in shape.items():
        wrong = problem(content[key], hint) if key in content else "there"
        if key == "round" and not wrong and not 0 <= content[key] < _LATEST:
            wrong = f"a round, got {content[key]}"
        if wrong:
            raise StorageError(f"{where} was damaged, {key!r} must be {wrong}: {REMEDY}")


_encoded = json.JSONEncoder(allow_nan=False, check_circular=False).encode
"""As `json.dumps` has it. What a run writes holds no circles, and looking for them took half of the time."""


class JsonLines:
    """A file of JSON lines that can be cut back to where a checkpoint saw it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: BinaryIO = open(path, "ab", opener=file_opener)  # noqa: SIM115
        except OSError as error:
            raise _unwritable(str(path), error) from error

    def append(self, record: Mapping[str, Any]) -> None:
        try:
            self._file.write(_encoded(_finite(record)).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._file.name, error) from error

    def append_finite(self, record: Mapping[str, Any]) -> None:
        """A record that is known to hold no NaN and no infinity: long ones are not gone through to look."""
        try:
            self._file.write(_encoded(record).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._file.name, error) from error

    def position(self) -> int:
        """How long the file is."""
        return self._file.tell()

    def sync(self) -> None:
        """All that was appended is on the disk when this returns."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self._file.name, error) from error

    def cut(self, position: int) -> None:
        """Forget what was written after `position`: a resumed run writes it again."""
        if self._file.seek(0, os.SEEK_END) < position:
            raise StorageError(f"{self._file.name} is shorter than its checkpoint says ({position} bytes): it was cut")
        self._file.truncate(position)
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        with suppress(OSError):  # what could not be written was said when it was tried
            self._file.close()


REMEDY = "take the file from a copy, or begin a new run"


def _unwritable(path: str, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be written: {error.strerror}; free space, and go on with --resume")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null, which no reader takes for a zero."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
