"""The exchange in a file: durable when `publish` returns, readable by other processes while the run goes on."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from mutual_env.errors import DeadlineExceededError, StorageError
from sharing.codec import decode, encode
from sharing.exchange.protocol import Reading
from sharing.records import KINDS, SCHEMA_VERSION, Kind, Record, Stored

_APPLICATION_ID: Final = 0x4D555458  # "MUTX" in the file's header tells an exchange from any other database
_HEADER_BYTES: Final = 100
_CHECKED_WHOLE: Final = 256 * 2**20  # larger files are not read through when they are opened
_SCHEMA: Final = (
    "CREATE TABLE record (id INTEGER PRIMARY KEY, task_id TEXT NOT NULL, kind INTEGER NOT NULL, author TEXT NOT NULL,"
    " round INTEGER NOT NULL, idx INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE UNIQUE INDEX record_key ON record (task_id, kind, author, round, idx)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_INSERT: Final = (
    "INSERT OR REPLACE INTO record (id, task_id, kind, author, round, idx, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
# Each author's nearest accepted rounds on a task, both NULL where none is accepted, as `nearest_round` has it.
_ROUNDS: Final = """
SELECT task_id, kind, author,
       max(CASE WHEN round BETWEEN :oldest AND :at THEN round END),
       min(CASE WHEN round > :at AND :any THEN round END)
FROM record
WHERE task_id IN (SELECT value FROM json_each(:tasks)) AND kind IN (SELECT value FROM json_each(:kinds))
  AND author != :reader {authors}
GROUP BY task_id, kind, author
HAVING :any OR min(round) <= :at
"""
_BY_AUTHOR: Final = "AND author IN (SELECT value FROM json_each(:authors))"
_BODIES: Final = "SELECT id, body FROM record WHERE task_id = ? AND kind = ? AND author = ? AND round = ? ORDER BY idx"


class SQLiteExchange:
    """One file in write-ahead mode: each `publish` is one transaction, on the disk when it returns.

    Any number of processes may read while others write; writers take turns, and wait at most `timeout` seconds for
    theirs. `readonly` opens a stored exchange without changing it. A file that is torn, somebody else's or newer than
    this code is refused by name and left as it is.
    """

    def __init__(self, path: str | Path, *, readonly: bool = False, timeout: float = 30.0) -> None:
        self.path = Path(path)
        self._timeout = timeout
        self._lock = Lock()
        if not _check_file(self.path) and readonly:
            raise StorageError(f"{self.path}: there is no exchange to read")
        mode = "ro" if readonly else "rwc"
        with self._errors_named():
            self._connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=timeout,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            with self._guard():
                self._open(readonly)
        except BaseException:
            self._connection.close()
            raise

    def publish(self, records: Sequence[Record]) -> tuple[int, ...]:
        rows = [
            (r.origin.task_id, KINDS.index(r.kind), r.origin.author, r.origin.round, r.index, encode(r))
            for r in records
        ]
        with self._guard(), self._transaction():
            (last,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM record").fetchone()
            ids = range(last + 1, last + 1 + len(rows))
            self._connection.executemany(_INSERT, ((i, *row) for i, row in zip(ids, rows, strict=True)))
        return tuple(ids)

    def read(
        self,
        reader: str,
        task_ids: Sequence[str],
        kinds: Sequence[Kind],
        *,
        round: int,
        max_staleness: int | None = 0,
        authors: Sequence[str] | None = None,
    ) -> Reading:
        codes = [KINDS.index(kind) for kind in kinds]
        question = {
            "tasks": json.dumps(list(task_ids)),
            "kinds": json.dumps(codes),
            "authors": json.dumps(None if authors is None else list(authors)),
            "reader": reader,
            "at": round,
            "oldest": -(2**63) if max_staleness is None else round - max_staleness,
            "any": max_staleness is None,
        }
        found: dict[tuple[str, int], list[tuple[str, int]]] = {}
        outside = 0
        bodies: list[tuple[int, bytes]] = []
        with self._guard():
            query = _ROUNDS.format(authors="" if authors is None else _BY_AUTHOR)
            for task_id, kind, author, past, later in self._connection.execute(query, question):
                chosen = later if past is None else past
                if chosen is None:
                    outside += 1
                else:
                    found.setdefault((task_id, kind), []).append((author, chosen))
            for key in itertools.product(task_ids, codes):
                for author_round in sorted(found.get(key, ())):
                    bodies.extend(self._connection.execute(_BODIES, (*key, *author_round)))
        records, unreadable = _decoded(bodies)
        return Reading(records, outside, unreadable)

    def scan(self) -> Iterator[Record]:
        last = 0
        while True:
            with self._guard():
                rows = self._connection.execute(
                    "SELECT id, body FROM record WHERE id > ? ORDER BY id LIMIT 1000", (last,)
                ).fetchall()
            if not rows:
                return
            for last, body in rows:  # noqa: B007  # `last` is where the next page starts
                yield decode(body)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _open(self, readonly: bool) -> None:
        """Make the tables where the file is empty, else see that they are ours; then write ahead."""
        execute = self._connection.execute
        if not readonly:
            execute("PRAGMA synchronous = FULL")
            execute("PRAGMA cache_size = -65536")
            # Created in rollback mode, so that the mark of an exchange is in the file itself before anything else is.
            if not execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                with self._transaction():
                    if not execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                        for statement in _SCHEMA:
                            execute(statement)
        _check_mark(
            self.path,
            execute("PRAGMA application_id").fetchone()[0],
            execute("PRAGMA user_version").fetchone()[0],
        )
        if self.path.stat().st_size <= _CHECKED_WHOLE:
            (said,) = execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise StorageError(f"{self.path} is torn ({said}): restore it from a copy; nothing was changed")
        if not readonly:
            execute("PRAGMA journal_mode = WAL")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """One thread at a time on the connection, and SQLite's errors in this project's words."""
        with self._lock, self._errors_named():
            yield

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise StorageError(f"{self.path}: {error}") from error
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise DeadlineExceededError(
                    f"{self.path}: another process has been writing for {self._timeout} s; is one hanging?"
                ) from error
            raise StorageError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StorageError(f"{self.path} is torn ({error}): restore it from a copy") from error


def _check_file(path: Path) -> bool:
    """Look at the file before SQLite may touch it. Returns whether there is anything in it."""
    if not path.is_file() or path.stat().st_size == 0:
        if path.exists() and not path.is_file():
            raise StorageError(f"{path} is not a file")
        return False
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header.startswith(b"SQLite format 3\0"):
        raise StorageError(f"{path} is no exchange: it starts with {header[:16]!r}; choose another path")
    if _sibling(path, "-journal"):
        return True  # its creation was interrupted: SQLite rolls that back first
    if len(header) < _HEADER_BYTES:
        raise StorageError(f"{path} is torn: it ends inside its header; restore it from a copy")
    _check_mark(path, int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big"))
    page = int.from_bytes(header[16:18], "big")
    expected = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    if path.stat().st_size < expected and not _sibling(path, "-wal"):
        raise StorageError(
            f"{path} is torn: {path.stat().st_size} bytes of {expected}; restore it from a copy, nothing was changed"
        )
    return True


def _sibling(path: Path, suffix: str) -> bool:
    sibling = path.with_name(path.name + suffix)
    return sibling.exists() and sibling.stat().st_size > 0


def _check_mark(path: Path, application: int, version: int) -> None:
    if application != _APPLICATION_ID:
        raise StorageError(f"{path} is another program's database, no exchange; choose another path")
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{path} has schema {version}, newer than this code's {SCHEMA_VERSION}: use the release that wrote it"
        )


def _decoded(bodies: Iterable[tuple[int, bytes]]) -> tuple[tuple[Stored, ...], int]:
    """The records, and how many bodies are none: a stranger's garbage must not stop a reader."""
    records: list[Stored] = []
    unreadable = 0
    for id_, body in bodies:
        try:
            records.append(Stored(id_, decode(body)))
        except StorageError:
            unreadable += 1
    return tuple(records), unreadable
