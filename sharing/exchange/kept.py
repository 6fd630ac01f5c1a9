"""Records in one file, in the order of publishing: what a checkpoint keeps of an exchange that keeps nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mutual_env.errors import StorageError
from sharing.codec import decode, encode
from sharing.records import Record

_LENGTH_BYTES = 8


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Each record's bytes after their number."""
    with path.open("wb") as file:
        for record in records:
            body = encode(record)
            file.write(len(body).to_bytes(_LENGTH_BYTES, "big"))
            file.write(body)


def read_records(path: Path) -> Iterator[Record]:
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    at = 0
    while at < len(content):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(content[at:start], "big")
        if at > len(content):
            raise StorageError(f"{path} is torn: it ends inside a record")
        yield decode(bytes(content[start:at]))
