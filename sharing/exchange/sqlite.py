"""The exchange in a file: durable when `publish` returns, readable by other processes while the run goes on."""

from __future__ import annotations

import itertools
import json
import sqlite3
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

from mutual_env.errors import ConfigError, DeadlineExceededError, InvalidInputError, StorageError
from sharing.codec import decode, encode
from sharing.exchange.protocol import Reading
from sharing.exchange.sqlite_file import (
    FILE_VERSION,
    MAX_BODY,
    check_before_opening,
    check_opened,
    check_schema,
    create,
    harden,
    holders,
    is_blank,
    migrate,
    size_of,
)
from sharing.records import KINDS, Kind, Record, Stored

_INSERT: Final = "INSERT OR REPLACE INTO record (task_id, kind, author, round, idx, body) VALUES (?, ?, ?, ?, ?, ?)"
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
# The length of a body is known without reading it, so a huge one costs nothing.
_BODY: Final = f"CASE WHEN length(body) <= {MAX_BODY} THEN body END"
_ROWS: Final = f"""
SELECT id, idx, {_BODY} FROM record WHERE task_id = ? AND kind = ? AND author = ? AND round = ? ORDER BY idx
"""
_PAGE: Final = f"""
SELECT id, task_id, kind, author, round, idx, {_BODY} FROM record WHERE id > ? ORDER BY id LIMIT 1000
"""

_SMALLEST: Final = -(2**63)
_MARK: Final = "exchange.json"


class SQLiteExchange:
    """One file in write-ahead mode: each `publish` is one transaction, on the disk when it returns.

    Any number of processes may read while others write; writers take turns, and wait at most `timeout` seconds for
    theirs. A reader that stands still keeps the write-ahead log from being emptied: beyond `wal_bytes`, `publish` waits
    for it, and gives up likewise. `readonly` opens a stored exchange without changing it.

    A file that is torn, somebody else's or newer than this code is refused by name and left as it is; one of an
    earlier release is brought up to date. A row that is no record, or another than its columns say, is counted and not
    read.
    """

    def __init__(
        self, path: str | Path, *, readonly: bool = False, timeout: float = 30.0, wal_bytes: int = 256 * 2**20
    ) -> None:
        if not 0.0 <= timeout <= 86_400.0 or wal_bytes < 1:
            raise ConfigError(
                f"timeout must lie between 0 and 86400 seconds and wal_bytes be at least 1, got {timeout}, {wal_bytes}"
            )
        self.path = Path(path)
        self._timeout = timeout
        self._wal_bytes = wal_bytes
        self._lock = Lock()
        if not check_before_opening(self.path) and readonly:
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
            with self._lock, self._errors_named():
                self._version = self._open(readonly)
                self._schema = self._schema_number()
        except BaseException:
            self._connection.close()
            raise

    def publish(self, records: Sequence[Record]) -> tuple[int, ...]:
        rows = [
            (r.origin.task_id, KINDS.index(r.kind), r.origin.author, r.origin.round, r.index, encode(r))
            for r in records
        ]
        for row in rows:
            if len(row[-1]) > MAX_BODY:
                raise InvalidInputError(
                    f"a record by {row[2]!r} has {len(row[-1])} bytes: at most {MAX_BODY} are stored"
                )
        with self._guard():
            self._wait_for_log()
            with self._transaction():
                ids = [self._connection.execute(_INSERT, row).lastrowid for row in rows]
        return tuple(id_ for id_ in ids if id_ is not None)

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
            "oldest": _SMALLEST if max_staleness is None else max(round - max_staleness, _SMALLEST),
            "any": max_staleness is None,
        }
        query = _ROUNDS.format(authors="" if authors is None else _BY_AUTHOR)
        records: list[Stored] = []
        unreadable = 0
        with self._guard(), self._snapshot():
            found, outside, strange = self._rounds(query, question)
            for topic in itertools.product(task_ids, codes):
                for author, chosen in sorted(found.get(topic, ())):
                    for id_, index, body in self._connection.execute(_ROWS, (*topic, author, chosen)):
                        stored = _record_of(id_, body, (*topic, author, chosen, index))
                        if stored is None:
                            unreadable += 1
                        else:
                            records.append(stored)
        return Reading(tuple(records), outside, unreadable + strange)

    def scan(self) -> Iterator[Record]:
        last, unreadable = 0, 0
        while True:
            with self._guard():
                rows = self._connection.execute(_PAGE, (last,)).fetchall()
            if not rows:
                break
            last = rows[-1][0]
            for id_, task_id, kind, author, round_, index, body in rows:
                stored = _record_of(id_, body, (_text(task_id), kind, _text(author), round_, index))
                unreadable += stored is None
                if stored is not None:
                    yield stored.record
        if unreadable:
            warnings.warn(f"{self.path}: {unreadable} rows are no records and were left out", stacklevel=2)

    def save(self, directory: Path, authors: Collection[str], rounds: int) -> None:
        """The file keeps the records: how many there are says whether it is still the one that belongs to them."""
        with self._guard():
            count = self._count(authors, rounds)
        (directory / _MARK).write_text(json.dumps({"records": count}))

    def load(self, directory: Path | None, authors: Collection[str], rounds: int) -> None:
        expected = 0 if directory is None else _records_in(directory / _MARK)
        with self._guard(), self._transaction():
            count = self._count(authors, rounds)
            if count != expected:
                raise StorageError(
                    f"{self.path} holds {count} records of the run's own policies from its first {rounds} rounds, and "
                    f"held {expected} when the checkpoint was written: put the exchange back that belongs to it"
                )
            later = {"authors": json.dumps(list(authors)), "rounds": rounds}
            self._connection.execute(f"DELETE FROM record WHERE round >= :rounds {_BY_AUTHOR}", later)

    def _count(self, authors: Collection[str], rounds: int) -> int:
        earlier = {"authors": json.dumps(list(authors)), "rounds": rounds}
        query = f"SELECT count(*) FROM record WHERE round BETWEEN 0 AND :rounds - 1 {_BY_AUTHOR}"
        return int(self._connection.execute(query, earlier).fetchone()[0])

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _rounds(self, query: str, question: dict[str, Any]) -> tuple[dict[tuple[str, int], list[Any]], int, int]:
        """The chosen round of each author by task and kind; how many authors have only older ones; and how many are
        named by no text."""
        found: dict[tuple[str, int], list[tuple[str, int]]] = {}
        outside = strange = 0
        for task_id, kind, author, past, later in self._connection.execute(query, question):
            name, chosen = _text(author), later if past is None else past
            if chosen is None:
                outside += 1
            elif name is None or not isinstance(chosen, int):
                strange += 1
            else:
                found.setdefault((_text(task_id) or "", kind), []).append((name, chosen))
        return found, outside, strange

    def _open(self, readonly: bool) -> int:
        """Make the table where the file is empty, else see that it is ours; then write ahead. Returns its version."""
        execute = self._connection.execute
        self._connection.text_factory = bytes  # what somebody else wrote need not be Unicode
        harden(self._connection)
        if not readonly:
            execute("PRAGMA synchronous = FULL")
            execute("PRAGMA cache_size = -65536")
            execute(f"PRAGMA journal_size_limit = {self._wal_bytes}")
            # Created in rollback mode, so that the mark of an exchange is in the file itself before anything else is.
            if is_blank(self._connection):
                with self._transaction():
                    if is_blank(self._connection):
                        create(self._connection)
        version = check_opened(self._connection, self.path)
        if not readonly:
            execute("PRAGMA journal_mode = WAL")
            if version < FILE_VERSION:
                version = self._migrate()
        return version

    def _migrate(self) -> int:
        with self._transaction():
            version = check_opened(self._connection, self.path)  # another process may have been faster
            lost = migrate(self._connection) if version < FILE_VERSION else 0
        if lost:
            warnings.warn(
                f"{self.path}: {lost} rows were no records and were left out when it was brought up to date",
                stacklevel=4,
            )
        return FILE_VERSION

    def _wait_for_log(self) -> None:
        """While the write-ahead log is too large: empty it, which no reader may be in the way of."""
        if size_of(self.path, "-wal") <= self._wal_bytes:
            return
        (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise DeadlineExceededError(
                f"{self.path}: a reader has kept the write-ahead log from being emptied, and it has more than "
                f"{self._wal_bytes} bytes. {self._who()}"
            )

    def _schema_number(self) -> int:
        """What SQLite raises whenever the tables change, whoever changes them."""
        return int(self._connection.execute("PRAGMA schema_version").fetchone()[0])

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
    def _snapshot(self) -> Iterator[None]:
        """One state of the file for several reads."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """One thread at a time on the connection, a file that holds what it held, and SQLite's errors in this project's
        words."""
        with self._lock, self._errors_named():
            number = self._schema_number()
            if number != self._schema:
                check_schema(self._connection, self.path, self._version)
                self._schema = number
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
                    f"{self.path}: another process has been writing for {self._timeout} s, or holds a lock. "
                    f"{self._who()}"
                ) from error
            raise StorageError(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StorageError(f"{self.path} is torn ({error}): restore it from a copy") from error

    def _who(self) -> str:
        named = holders(self.path)
        found = f"Locks are held by {named}" if named else "Find out who has the file open (`lsof`)"
        return f"{found}: end what hangs there, and go on with the run; what was published is safe"


def _record_of(id_: object, body: object, said: tuple[object, ...]) -> Stored | None:
    """The record in a row; None where there is none, or another than the columns say, by which it was found."""
    if not (isinstance(body, bytes) and isinstance(id_, int) and id_ > 0):
        return None
    try:
        record = decode(body)
    except StorageError:
        return None
    origin = record.origin
    key = (origin.task_id, KINDS.index(record.kind), origin.author, origin.round, record.index)
    return Stored(id_, record) if key == said else None


def _text(value: object) -> str | None:
    """A column's text; None where it is none."""
    try:
        return value.decode() if isinstance(value, bytes) else None
    except UnicodeDecodeError:
        return None


def _records_in(path: Path) -> int:
    try:
        return int(json.loads(path.read_text())["records"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise StorageError(f"{path} does not say how many records there were: {error}") from error
