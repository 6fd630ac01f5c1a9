"""What must be true of an exchange's file before it is read or written, and who holds a lock on it.

Anybody who may write the file may have written anything into it, so it is opened as SQLite advises for a database that
one did not make (sqlite.org/security.html), and holds our one table and nothing else that could run or mislead.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mutual_env.errors import StorageError

FILE_VERSION: Final = 2
"""Of the file: 1 had no column types that bind. The records in it have a version of their own."""

MAX_BODY: Final = 64 * 2**20
"""Bytes of the largest record that is stored or read."""

_APPLICATION_ID: Final = 0x4D555458  # "MUTX" in the file's header tells an exchange from any other database
_HEADER_BYTES: Final = 100
_CHECKED_WHOLE: Final = 256 * 2**20  # larger files are not read through when they are opened
_OLDEST_SQLITE: Final = (3, 37, 0)  # the first with STRICT tables
_COLUMNS: Final = (
    "(id INTEGER PRIMARY KEY, task_id TEXT NOT NULL, kind INTEGER NOT NULL, author TEXT NOT NULL,"
    " round INTEGER NOT NULL, idx INTEGER NOT NULL, body BLOB NOT NULL)"
)
_INDEX: Final = "CREATE UNIQUE INDEX record_key ON record (task_id, kind, author, round, idx)"
_SCHEMA: Final = {
    1: (f"CREATE TABLE record {_COLUMNS}", _INDEX),
    2: (f"CREATE TABLE record {_COLUMNS} STRICT", _INDEX),
}
_FITS: Final = (
    "typeof(id) = 'integer' AND typeof(task_id) = 'text' AND typeof(kind) = 'integer' AND typeof(author) = 'text'"
    " AND typeof(round) = 'integer' AND typeof(idx) = 'integer' AND typeof(body) = 'blob'"
)


def check_before_opening(path: Path) -> bool:
    """Look at the file before SQLite may touch it. Returns whether there is anything in it."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StorageError(f"{path}: Python's SQLite is {sqlite3.sqlite_version}, an exchange needs 3.37 or newer")
    for beside in ("-journal", "-wal", "-shm"):
        _check_beside(path.with_name(path.name + beside))
    if not path.is_file() or path.stat().st_size == 0:
        if path.exists() and not path.is_file():
            raise StorageError(f"{path} is not a file")
        return False
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header.startswith(b"SQLite format 3\0"):
        raise StorageError(f"{path} is no exchange: it starts with {header[:16]!r}; choose another path")
    if size_of(path, "-journal"):
        return True  # its creation was interrupted: SQLite rolls that back first
    if len(header) < _HEADER_BYTES:
        raise StorageError(f"{path} is torn: it ends inside its header; restore it from a copy")
    _check_mark(path, int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big"))
    page = int.from_bytes(header[16:18], "big")
    expected = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    if path.stat().st_size < expected and not size_of(path, "-wal"):
        raise StorageError(
            f"{path} is torn: {path.stat().st_size} bytes of {expected}; restore it from a copy, nothing was changed"
        )
    return True


def _check_beside(path: Path) -> None:
    """SQLite opens what lies under these names too, and of a pipe it would wait for a writer for ever."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # nothing lies there
        return
    if not stat.S_ISREG(mode):
        raise StorageError(f"{path} is not a file: SQLite keeps one there; remove it")


def harden(connection: sqlite3.Connection) -> None:
    """Whatever the file says, it runs nothing and maps nothing into memory."""
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        connection.execute(f"PRAGMA {pragma}")
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)


def check_opened(connection: sqlite3.Connection, path: Path) -> int:
    """Whose file it is, that it is whole, and that it holds our table and nothing else. Returns its version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    _check_mark(path, application, version)
    if path.stat().st_size <= _CHECKED_WHOLE:
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if said not in ("ok", b"ok"):
            raise StorageError(f"{path} is torn ({_text(said)}): restore it from a copy; nothing was changed")
    check_schema(connection, path, version)
    return int(version)


def check_schema(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Refuse a trigger, a view, another table, other columns: what runs or misleads when a row is read or written."""
    found = {_text(sql) for (sql,) in connection.execute("SELECT coalesce(sql, name) FROM sqlite_schema")}
    strange = sorted(found - set(_SCHEMA[version]))
    if strange or found != set(_SCHEMA[version]):
        what = f"it holds {strange[0][:80]!r}" if strange else "its table or its index is missing"
        raise StorageError(f"{path} was changed by somebody else ({what}): export what you trust to another exchange")


def is_blank(connection: sqlite3.Connection) -> bool:
    """Whether nobody has made anything of the file yet. One that bears our mark and no table was emptied."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    return not tables and not application


def create(connection: sqlite3.Connection) -> None:
    """The table of an empty file, inside a transaction."""
    for statement in _SCHEMA[FILE_VERSION]:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FILE_VERSION}")


def migrate(connection: sqlite3.Connection) -> int:
    """From version 1, inside a transaction. Rows of other types than the columns' are left out; how many."""
    (before,) = connection.execute("SELECT count(*) FROM record").fetchone()
    for statement in (
        "DROP INDEX record_key",
        "ALTER TABLE record RENAME TO old_record",
        _SCHEMA[FILE_VERSION][0],
        f"INSERT INTO record SELECT * FROM old_record WHERE {_FITS} ORDER BY id",
        "DROP TABLE old_record",
        _INDEX,
        f"PRAGMA user_version = {FILE_VERSION}",
    ):
        connection.execute(statement)
    (after,) = connection.execute("SELECT count(*) FROM record").fetchone()
    return int(before - after)


def size_of(path: Path, suffix: str) -> int:
    """Bytes of a file of SQLite's beside this one; 0 where there is none."""
    beside = path.with_name(path.name + suffix)
    return beside.stat().st_size if beside.exists() else 0


def holders(path: Path) -> str:
    """Which other processes hold a lock on the exchange, for a sentence; "" where that cannot be known."""
    files = [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))]
    wanted = {found.stat().st_ino for found in files if found.exists()}
    named = sorted({pid for pid, inode in _locks() if inode in wanted and pid not in (os.getpid(), -1)})
    return ", ".join(f"process {pid} ({_command(pid)})" for pid in named)


def _locks() -> Iterator[tuple[int, int]]:
    """(process, inode) of every file lock on this machine, as Linux tells."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.replace("->", "").split()
        if len(fields) >= 6 and fields[5].count(":") == 2:
            yield int(fields[4]), int(fields[5].rpartition(":")[2])


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "already gone"
    return b" ".join(words[:3]).decode("utf-8", "replace").strip()[:80]


def _check_mark(path: Path, application: int, version: int) -> None:
    if application != _APPLICATION_ID:
        raise StorageError(f"{path} is another program's database, no exchange; choose another path")
    if version > FILE_VERSION:
        raise StorageError(
            f"{path} has schema {version}, newer than this code's {FILE_VERSION}: use the release that wrote it"
        )
    if version not in _SCHEMA:
        raise StorageError(f"{path} has schema {version}, which no release wrote: restore it from a copy")


def _text(said: object) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
