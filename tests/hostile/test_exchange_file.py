"""Whoever may write the exchange's file writes what they like into it: a reader counts it, and goes on."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import sharing
from mutual_env.errors import DeadlineExceededError, InvalidInputError, StorageError
from sharing import KINDS, SQLiteExchange
from sharing.codec import encode
from tests.sharing.toys import ScriptedEnv, play, rollout, statistics, success

BODY = encode(success("t"))
ROW = {"id": 77, "task_id": "t", "kind": 2, "author": "stranger", "round": 0, "idx": 0, "body": BODY}  # kind: success
STATEMENT = "INSERT INTO record (id, task_id, kind, author, round, idx, body) VALUES ({})"

# One column of a sound row changed, to a SQL expression (with brackets) or a value; and what becomes of the row: SQLite
# keeps it out, because the columns have types that bind; nobody asks for it; it is counted as unreadable; it is read.
VANDALISM: dict[str, tuple[dict[str, object], str]] = {
    "body is an integer": ({"body": 5}, "kept out"),
    "body is a text": ({"body": "yes"}, "kept out"),
    "body is nothing": ({"body": None}, "kept out"),
    "body is empty": ({"body": b""}, "counted"),
    "body is cut": ({"body": BODY[:-1]}, "counted"),
    "body is followed by more": ({"body": BODY + b"\0"}, "counted"),
    "body is garbage": ({"body": bytes(range(256))}, "counted"),
    "body is of a newer schema": ({"body": BODY[:2] + b"\xff\xff" + BODY[4:]}, "counted"),
    "body is 70 megabytes": ({"body": "zeroblob(70000000)"}, "counted"),
    "body is of another task": ({"body": encode(success("another"))}, "counted"),
    "body is of another author": ({"body": encode(success("t", "policy_1"))}, "counted"),
    "body is of another round": ({"body": encode(success("t", round=3))}, "counted"),
    "body has another index": ({"body": encode(success("t", index=3))}, "counted"),
    "body is of another kind": ({"body": encode(statistics("t"))}, "counted"),
    "author is a blob": ({"author": b"stranger"}, "kept out"),
    "author is a number": ({"author": 7}, "counted"),  # SQLite makes the text "7" of it
    "author is no Unicode": ({"author": "CAST(x'73ff00fe' AS TEXT)"}, "counted"),
    "author is empty": ({"author": ""}, "counted"),
    "author is nothing": ({"author": None}, "kept out"),
    "task is a blob": ({"task_id": b"t"}, "kept out"),
    "task is another": ({"task_id": "u"}, "not asked for"),
    "kind is unknown": ({"kind": 99}, "not asked for"),
    "kind is a text": ({"kind": "success"}, "kept out"),
    "round is a text": ({"round": "now"}, "kept out"),
    "round is the last there is": ({"round": 2**63 - 1}, "counted"),
    "round is before the first": ({"round": -(2**63)}, "counted"),
    "index is negative": ({"idx": -1}, "counted"),
    "index is beyond a record's": ({"idx": 2**40}, "counted"),
    "id is the last there is": ({"id": 2**63 - 1}, "read"),
    "id is zero": ({"id": 0}, "counted"),
    "id is negative": ({"id": -1}, "counted"),
    "id is a text": ({"id": "one"}, "kept out"),
}
SCHEMA = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON record BEGIN DELETE FROM record; END",
    "a view": "CREATE VIEW v AS SELECT * FROM record",
    "another table": "CREATE TABLE other (x)",
    "no index": "DROP INDEX record_key",
    "no table": "DROP TABLE record",
    "another column": "ALTER TABLE record ADD COLUMN more TEXT",
    "another name of a column": "ALTER TABLE record RENAME COLUMN body TO boddy",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.sqlite"


@pytest.fixture
def exchange(path: Path) -> Iterator[SQLiteExchange]:
    with closing(SQLiteExchange(path, timeout=0.3)) as made:
        yield made


def sql(path: Path, *statements: str, values: tuple[object, ...] = ()) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as vandal:
        for statement in statements:
            vandal.execute(statement, values)


def vandalise(path: Path, changes: dict[str, object]) -> bool:
    """Whether SQLite let it in."""
    row = {**ROW, **changes}
    places = ", ".join(v if isinstance(v, str) and "(" in v else "?" for v in row.values())
    values = tuple(v for v in row.values() if not (isinstance(v, str) and "(" in v))
    try:
        sql(path, STATEMENT.format(places), values=values)
    except sqlite3.IntegrityError:
        return False
    return True


@pytest.mark.parametrize(("changes", "outcome"), VANDALISM.values(), ids=VANDALISM)
def test_a_row_that_is_no_record_stops_no_reader_and_no_writer(
    path: Path, exchange: SQLiteExchange, changes: dict[str, object], outcome: str
) -> None:
    exchange.publish([success("t", "honest"), success("t", "honest", index=1)])
    assert vandalise(path, changes) == (outcome != "kept out")
    reading = exchange.read("me", ["t"], KINDS, round=0, max_staleness=None)
    honest = [stored.record for stored in reading.records if stored.record.origin.author == "honest"]
    assert honest == [success("t", "honest"), success("t", "honest", index=1)]
    assert len(reading.records) == 2 + (outcome == "read")
    assert reading.unreadable == (outcome == "counted")
    ids = exchange.publish([rollout("v", "honest"), success("v", "honest")])
    assert len(set(ids)) == 2
    published = exchange.read("me", ["v"], KINDS, round=0)
    assert [s.record for s in published.records] == [rollout("v", "honest"), success("v", "honest")]
    assert sorted(s.id for s in published.records) == sorted(ids)


@pytest.mark.filterwarnings("error")
def test_a_round_of_which_nothing_could_be_read_is_warned_of_and_one_that_taught_somebody_is_not(
    path: Path, exchange: SQLiteExchange
) -> None:
    env = sharing.make("sgt", ScriptedEnv(["me"], prompts=1, fixed=True), exchange=exchange, peers=["stranger"])
    play(env, {"me": [["no", "no"]]})  # nobody has written anything: there is nothing to be warned of
    vandalise(path, {"task_id": "t0.0", "body": b"garbage"})
    with pytest.warns(UserWarning, match=r"learns nothing from its peers: all 1 records .* \(unreadable 1\)"):
        info = play(env, {"me": [["no", "no"]]})["me"]
    assert info["metrics"]["share/refused/unreadable"] == info["metrics"]["share/refused"] == 1.0
    exchange.publish([success("t0.0", "stranger", index=1)])
    fresh = sharing.make("sgt", ScriptedEnv(["me"], prompts=1, fixed=True), exchange=exchange, peers=["stranger"])
    assert play(fresh, {"me": [["no", "no"]]})["me"]["metrics"]["share/rescued"] == 1.0


@pytest.mark.filterwarnings("ignore:.*rows are no records and were left out")
@pytest.mark.parametrize(("changes", "outcome"), VANDALISM.values(), ids=VANDALISM)
def test_a_row_that_is_no_record_is_left_out_of_a_scan(
    path: Path, exchange: SQLiteExchange, changes: dict[str, object], outcome: str
) -> None:
    exchange.publish([success("t", "honest")])
    vandalise(path, changes)
    assert next(iter(exchange.scan())) == success("t", "honest")
    list(exchange.scan())


def test_a_scan_says_how_many_rows_it_left_out(path: Path, exchange: SQLiteExchange) -> None:
    exchange.publish([success("t", "honest")])
    vandalise(path, {"body": b"garbage"})
    with pytest.warns(UserWarning, match=r"x\.sqlite: 1 rows are no records and were left out"):
        assert list(exchange.scan()) == [success("t", "honest")]


@pytest.mark.parametrize("statement", SCHEMA.values(), ids=SCHEMA)
def test_a_file_that_holds_something_else_is_refused_before_it_runs(
    path: Path, exchange: SQLiteExchange, statement: str
) -> None:
    exchange.publish([success("t", "honest")])
    sql(path, statement)
    with pytest.raises(StorageError, match=r"x\.sqlite was changed by somebody else"):
        exchange.publish([success("u", "honest")])
    with pytest.raises(StorageError, match=r"x\.sqlite was changed by somebody else"):
        exchange.read("me", ["t"], KINDS, round=0)
    for readonly in (True, False):
        with pytest.raises(StorageError, match=r"x\.sqlite was changed by somebody else"):
            SQLiteExchange(path, readonly=readonly)


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "a pipe": lambda at, outside: os.mkfifo(at),
    "a folder": lambda at, outside: at.mkdir(),
    "a link out": lambda at, outside: at.symlink_to(outside),
    "a link to a device": lambda at, outside: at.symlink_to("/dev/zero"),
    "a link to itself": lambda at, outside: at.symlink_to(at.name),
}


@pytest.mark.parametrize("beside", ["", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("planted", PLANTED)
def test_what_lies_where_sqlite_keeps_its_files_is_not_waited_for_nor_followed(
    path: Path, planted: str, beside: str
) -> None:
    outside = path.parent / "outside"
    outside.write_text("untouched")
    if beside:
        with closing(SQLiteExchange(path)) as whole:
            whole.publish([success("t", "honest")])
    at = path.with_name(path.name + beside)
    at.unlink(missing_ok=True)
    PLANTED[planted](at, outside)
    for readonly in (True, False):
        with pytest.raises(StorageError, match="x\\.sqlite"):
            SQLiteExchange(path, readonly=readonly)
    assert outside.read_text() == "untouched"


def test_columns_without_types_that_bind_are_refused(path: Path, exchange: SQLiteExchange) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as vandal:
        vandal.execute("PRAGMA writable_schema = ON")
        vandal.execute("UPDATE sqlite_schema SET sql = replace(sql, ' STRICT', '') WHERE name = 'record'")
        (number,) = vandal.execute("PRAGMA schema_version").fetchone()
        vandal.execute(f"PRAGMA schema_version = {number + 1}")
    with pytest.raises(StorageError, match="changed by somebody else"):
        exchange.read("me", ["t"], KINDS, round=0)


def test_a_flood_under_one_index_costs_a_reader_less_than_a_second(path: Path, exchange: SQLiteExchange) -> None:
    body = encode(success("t0.0", "flood"))
    with closing(sqlite3.connect(path)) as vandal, vandal:
        vandal.executemany(
            STATEMENT.format("?, ?, ?, ?, ?, ?, ?"),
            ((i + 1, "t0.0", ROW["kind"], "flood", 0, i, body) for i in range(40_000)),
        )
    env = sharing.make("sgt", ScriptedEnv(["policy_0"], prompts=1, fixed=True), exchange=exchange)
    began = time.process_time()
    metrics = play(env, {"policy_0": [["no", "no"]]})["policy_0"]["metrics"]
    assert time.process_time() - began < 1.0
    assert metrics["share/refused/unreadable"] == 39_999.0  # the one whose column and body agree is a success
    assert metrics["share/rescued"] == 1.0


HOLD = """
import fcntl, os, signal, struct, sys
file = open(sys.argv[1] + "-shm", "r+b")
fcntl.fcntl(file, fcntl.F_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 120, 1, 0))
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLK"), reason="needs POSIX locks")
def test_a_stranger_that_holds_a_lock_is_named_after_a_bounded_wait(path: Path, exchange: SQLiteExchange) -> None:
    exchange.publish([success("t")])
    stranger = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "held\n"
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError) as caught:
            exchange.publish([success("u")])
        assert time.monotonic() - began < 10.0
        assert f"Locks are held by process {stranger.pid}" in str(caught.value)
        assert "end what hangs there" in str(caught.value)
    finally:
        os.kill(stranger.pid, signal.SIGKILL)
        stranger.wait(timeout=10)
    exchange.publish([success("u")])


def publish_many(exchange: SQLiteExchange) -> None:
    for i in range(1000):
        exchange.publish([success("t", text="yes" * 3000, index=i)])


def test_the_log_does_not_grow_without_bound_behind_a_reader_that_stands_still(path: Path) -> None:
    with closing(SQLiteExchange(path, timeout=0.2, wal_bytes=200_000)) as exchange:
        exchange.publish([success("t")])
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM record").fetchone()
            with pytest.raises(DeadlineExceededError, match="a reader has kept the write-ahead log from being emptied"):
                publish_many(exchange)
            assert path.with_name("x.sqlite-wal").stat().st_size < 300_000  # the bound, and one publish beyond it
        exchange.publish([success("u")])
        assert path.with_name("x.sqlite-wal").stat().st_size < 100_000


def test_a_record_too_large_to_be_read_is_not_published(exchange: SQLiteExchange) -> None:
    with pytest.raises(InvalidInputError, match=r"a record by 'stranger' has 7\d+ bytes: at most 67108864 are"):
        exchange.publish([success("t", text="x" * 70_000_000)])


def of_an_earlier_release(path: Path) -> None:
    """A file as version 0.1.0 of this project made it, with two records and a row that is none."""
    columns = "id INTEGER PRIMARY KEY, task_id TEXT NOT NULL, kind INTEGER NOT NULL, author TEXT NOT NULL,"
    columns += " round INTEGER NOT NULL, idx INTEGER NOT NULL, body BLOB NOT NULL"
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute(f"CREATE TABLE record ({columns})")
        old.execute("CREATE UNIQUE INDEX record_key ON record (task_id, kind, author, round, idx)")
        old.execute(f"PRAGMA application_id = {0x4D555458}")
        old.execute("PRAGMA user_version = 1")
        for i, record in enumerate((success("t", "a"), statistics("t", "a"))):
            row = (i + 1, "t", KINDS.index(record.kind), "a", 0, 0, encode(record))
            old.execute(STATEMENT.format("?, ?, ?, ?, ?, ?, ?"), row)
        old.execute(STATEMENT.format("?, ?, ?, ?, ?, ?, ?"), (3, "t", 2, "b", 0, 0, 5))


def test_a_file_of_an_earlier_release_is_brought_up_to_date(path: Path) -> None:
    of_an_earlier_release(path)
    before = path.read_bytes()
    with closing(SQLiteExchange(path, readonly=True)) as stored:
        reading = stored.read("me", ["t"], KINDS, round=0)
        assert [s.record for s in reading.records] == [statistics("t", "a"), success("t", "a")]
        assert reading.unreadable == 1
    assert path.read_bytes() == before
    with pytest.warns(UserWarning, match="1 rows were no records"):
        exchange = SQLiteExchange(path)
    assert list(exchange.scan()) == [success("t", "a"), statistics("t", "a")]
    exchange.publish([success("t", "c")])
    exchange.close()
    with closing(SQLiteExchange(path)) as again:
        assert len(list(again.scan())) == 3
    with closing(sqlite3.connect(path)) as looked:
        assert looked.execute("PRAGMA user_version").fetchone() == (2,)
        assert looked.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_author_with_a_name_of_30_megabytes_stops_nobody(path: Path, exchange: SQLiteExchange) -> None:
    exchange.publish([success("t", "honest")])
    name = "x" * 30_000_000
    record = success("t", name)
    sql(path, STATEMENT.format("?, ?, ?, ?, ?, ?, ?"), values=(9, "t", ROW["kind"], name, 0, 0, encode(record)))
    reading = exchange.read("me", ["t"], KINDS, round=0)
    assert [s.record.origin.author[:6] for s in reading.records] == ["honest", "xxxxxx"]
