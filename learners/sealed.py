"""A folder that is either whole or not there.

It is written aside, gets a manifest of every file's size and SHA-256 as its last file, is flushed to the disk, and is
then renamed, which is the only moment that counts. Opening one checks every hash before anything reads a file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from mutual_env.errors import StorageError
from mutual_env.types import JSON


def seal(directory: Path, manifest: str, facts: Mapping[str, JSON] | None = None) -> None:
    """Write the manifest, with what else it is to say of the folder, and flush files and directories."""
    files = {
        str(path.relative_to(directory)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(_files(directory, manifest))
    }
    (directory / manifest).write_text(json.dumps({**(facts or {}), "files": files}, indent=1), encoding="utf-8")
    for path in [*directory.rglob("*"), directory]:
        fsync(path)


def give_name(aside: Path, final: Path) -> None:
    """From now on the folder is there, also after a power failure."""
    aside.rename(final)
    fsync(final.parent)


def check(directory: Path, manifest: str, *, alone: bool = True) -> dict[str, Any]:
    """What the manifest says, once every file is found as it was written; StorageError names the first that is not.

    `alone`: a file that the manifest does not list is refused too.
    """
    content = read_json(directory / manifest)
    files = content.get("files")
    if not isinstance(files, dict):
        raise StorageError(f"{directory / manifest} lists no files: it is not the manifest of a sealed folder")
    present = {str(path.relative_to(directory)) for path in _files(directory, manifest)}
    unlisted = sorted(present - set(files))
    if alone and unlisted:
        raise StorageError(f"{directory / unlisted[0]} is not in the manifest: it was put there by something else")
    for name, entry in files.items():
        _check_file(directory, name, entry)
    return content


def write_whole(path: Path, text: str) -> None:
    """A file that is either as it was or as it is to be. A link that lies at `path` is replaced, not followed; half a
    character, which no encoding has, is written out."""
    aside = path.with_name(f".{path.name}.writing")
    try:
        aside.unlink(missing_ok=True)  # of a writer that was killed
        with open(
            os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "w", -1, "utf-8", "backslashreplace"
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}; free space or choose another place") from error


def read_json(path: Path) -> dict[str, Any]:
    """A file of the folder that holds a JSON object."""
    try:
        content = json.loads(read_file(path))
    except FileNotFoundError as error:
        raise StorageError(f"{path} is missing: the folder was never finished, or a file was removed") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise StorageError(f"{path} must hold a JSON object")
    return content


def read_file(path: Path) -> bytes:
    """All of a file, and OSError where something else lies there."""
    with open(path, "rb", opener=file_opener) as file:
        return file.read()


def file_opener(path: str, flags: int) -> int:
    """For `open`: a pipe in the place of a file would be waited for without an end, and a device read without one."""
    handle = os.open(path, flags | os.O_NONBLOCK, 0o666)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is no file", path)


def sha256(path: Path) -> str:
    with open(path, "rb", opener=file_opener) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(directory: Path, manifest: str) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if not path.is_dir() and path != directory / manifest)


def _check_file(directory: Path, name: str, entry: object) -> None:
    path = _inside(directory, name)
    if not isinstance(entry, dict) or not isinstance(entry.get("bytes"), int) or "sha256" not in entry:
        raise StorageError(f"the manifest of {directory} says neither size nor SHA-256 of {name!r}: it was damaged")
    if not path.is_file():
        raise StorageError(f"{path} is missing from the sealed folder")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise StorageError(f"{path} is torn: {size} bytes, the manifest says {entry['bytes']}")
    if sha256(path) != entry["sha256"]:
        raise StorageError(f"{path} was changed after it was written: its SHA-256 is not the manifest's")


def _inside(directory: Path, name: str) -> Path:
    """A name leads to a file in the folder, and not by a link out of it."""
    parts = PurePosixPath(name)
    path = directory / name
    if parts.is_absolute() or ".." in parts.parts or "\0" in name:
        raise StorageError(f"the manifest of {directory} names {name!r}, which is not in it: it was damaged")
    if any((directory / Path(*parts.parts[:end])).is_symlink() for end in range(1, len(parts.parts) + 1)):
        raise StorageError(f"{path} is a link: a sealed folder holds its files itself")
    return path
