"""One contract, every backend; and what each backend promises beside it."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutual_env.errors import (
    ConfigError,
    ConformanceError,
    DeadlineExceededError,
    InvalidInputError,
    StorageError,
    UnknownNameError,
)
from mutual_env.types import Completion
from sharing import (
    KINDS,
    Exchange,
    InMemoryExchange,
    Origin,
    Reading,
    Record,
    ReplayExchange,
    Rollout,
    SQLiteExchange,
    Statistics,
    Success,
    export,
)
from sharing.codec import decode, encode, wire_size
from sharing.exchange import registry
from sharing.exchange.testing import CONTRACT, check_exchange
from tests.sharing.toys import rollout, statistics, success


@pytest.fixture(params=["memory", "sqlite", "replay"])
def exchange(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Exchange]:
    made: Exchange
    if request.param == "memory":
        made = InMemoryExchange()
    elif request.param == "sqlite":
        made = SQLiteExchange(tmp_path / "exchange.sqlite")
    else:
        made = ReplayExchange(stored=InMemoryExchange(), live=InMemoryExchange())
    yield made
    made.close()


def records(exchange: Exchange, *of: str, reader: str = "me", **how: object) -> list[Record]:
    reading = exchange.read(reader, of or ("t",), how.pop("kinds", KINDS), **{"round": 0, **how})  # type: ignore[arg-type]
    return [stored.record for stored in reading.records]


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_every_exchange_keeps_the_contract(check: Callable[[Exchange], None], exchange: Exchange) -> None:
    check(exchange)


def test_the_whole_contract_is_one_call(tmp_path: Path) -> None:
    paths = (tmp_path / f"{i}.sqlite" for i in itertools.count())
    check_exchange(lambda: SQLiteExchange(next(paths)))


class Lossy(InMemoryExchange):
    """Keeps log-probabilities in single precision."""

    def publish(self, records: Sequence[Record]) -> tuple[int, ...]:
        return super().publish([_in_single_precision(r) if isinstance(r, Rollout) else r for r in records])


class Keyless(InMemoryExchange):
    """Stores what is published again beside the first."""

    def publish(self, records: Sequence[Record]) -> tuple[int, ...]:
        taken = {(r.origin, r.index) for r in self.scan() if isinstance(r, Success)}
        twice = [isinstance(r, Success) and (r.origin, r.index) in taken for r in records]
        return super().publish(
            [
                replace(r, index=r.index + 1000) if isinstance(r, Success) and again else r
                for r, again in zip(records, twice, strict=True)
            ]
        )


class Hasty(InMemoryExchange):
    """Reads one round too far."""

    def read(self, *asked: Any, round: int, max_staleness: int | None = 0, **how: Any) -> Reading:
        further = None if max_staleness is None else max_staleness + 1
        return super().read(*asked, round=round + 1, max_staleness=further, **how)


def _in_single_precision(record: Rollout) -> Rollout:
    logprobs = record.completion.logprobs.astype(np.float32)
    return replace(record, completion=replace(record.completion, logprobs=logprobs))


class Selfish(InMemoryExchange):
    def read(self, reader: str, *asked: Any, **how: Any) -> Reading:
        return super().read("nobody", *asked, **how)


@pytest.mark.parametrize(
    ("faulty", "sentence"),
    [
        (Lossy, "what was published must be read back equal"),
        (Keyless, "the same key published again must replace the first"),
        (Hasty, "what a peer that is ahead has published must change no answer"),
        (Selfish, "must not read its own records"),
    ],
)
def test_an_exchange_that_breaks_the_contract_is_told_how(faulty: type[InMemoryExchange], sentence: str) -> None:
    with pytest.raises(ConformanceError, match=sentence):
        check_exchange(faulty)


# -- by name ----------------------------------------------------------------------------------------------------------


def test_an_exchange_is_made_by_its_name_where_it_may_keep_its_file(tmp_path: Path) -> None:
    for name, wanted in (("sqlite", SQLiteExchange), ("memory", InMemoryExchange)):
        made = registry.make(name, tmp_path / name)
        assert type(made) is wanted
        made.close()
    assert [path.name for path in tmp_path.iterdir()] == ["sqlite"]


def test_what_is_no_exchange_or_takes_no_such_option_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown exchange 'sqlight': did you mean 'sqlite'"):
        registry.make("sqlight", tmp_path / "x")
    with pytest.raises(
        UnknownNameError, match="unknown option of exchange 'sqlite' 'time_out': did you mean 'timeout'"
    ):
        registry.make("sqlite", tmp_path / "x", time_out=3)
    registry.register("tests-path", Path)
    with pytest.raises(ConfigError, match="exchange 'tests-path' must have publish, read, scan and close"):
        registry.make("tests-path", tmp_path / "x")


# -- the bytes --------------------------------------------------------------------------------------------------------

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_origins = st.builds(
    Origin, _text, _text, st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63 - 1), st.just("fp"), _text
)
_float = st.floats(allow_nan=False)
_traces = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.floats(max_value=0)), max_size=20)
_index = st.integers(0, 2**32 - 1)


@st.composite
def _rollouts(draw: Callable[..., object]) -> Rollout:
    origin, trace = draw(_origins), draw(_traces)
    assert isinstance(origin, Origin)
    assert isinstance(trace, list)
    ids, logprobs = np.array([t[0] for t in trace], np.int32), np.array([t[1] for t in trace])
    completion = Completion(draw(_text), ids, logprobs, "length", origin.policy_version, origin.tokenizer)  # type: ignore[arg-type]
    return Rollout(origin, draw(_index), completion, draw(_float), draw(st.booleans()))  # type: ignore[arg-type]


_records = st.one_of(
    _rollouts(),
    st.builds(Statistics, _origins, _index, _float, _float),
    st.builds(Success, _origins, _index, _text, st.sampled_from(["stop", "length"]), _float),
)


@given(_records)
@settings(max_examples=200, deadline=None)
def test_bytes_and_back_is_the_same_record(record: Record) -> None:
    data = encode(record)
    assert decode(data) == record
    assert wire_size(record) == len(data)


@given(_records, st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_bytes_are_a_record_or_a_storage_error(record: Record, data: st.DataObject) -> None:
    body = bytearray(encode(record))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(body[: data.draw(st.integers(0, len(body)))])
    with contextlib.suppress(StorageError):
        decode(damaged)


def test_a_record_of_a_newer_schema_is_refused_by_its_number() -> None:
    body = bytearray(encode(success("t")))
    body[2] += 2  # the schema's low byte
    with pytest.raises(StorageError, match="schema 3"):
        decode(bytes(body))


def test_text_without_a_byte_form_is_refused_with_the_record_named() -> None:
    with pytest.raises(InvalidInputError, match="'stranger' on 't'"):
        encode(success("t", text="yes \ud800"))


# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read_by_another_connection_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    writer, reader = SQLiteExchange(path), SQLiteExchange(path, readonly=True)
    for i in range(20):
        writer.publish([success("t", index=i)])
        assert len(records(reader)) == i + 1
    writer.close()
    reader.close()


def test_what_was_published_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    first = SQLiteExchange(path)
    first.publish([rollout("t"), statistics("t")])
    first.close()
    second = SQLiteExchange(path)
    assert records(second) == [rollout("t"), statistics("t")]
    second.close()


def test_a_stored_exchange_opened_readonly_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    SQLiteExchange(path).close()
    stored = SQLiteExchange(path, readonly=True)
    with pytest.raises(StorageError, match=r"x\.sqlite.*readonly"):
        stored.publish([success("t")])
    stored.close()


def test_a_stored_exchange_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no exchange to read"):
        SQLiteExchange(tmp_path / "x.sqlite", readonly=True)
    assert not (tmp_path / "x.sqlite").exists()


def _refused(path: Path, message: str) -> None:
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(StorageError, match=message) as caught:
            SQLiteExchange(path, readonly=readonly)
        assert path.name in str(caught.value)
        assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_text("the results of three months\n" * 100)
    _refused(path, "no exchange")


def test_another_programs_database_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE record (id INTEGER)")
    other.close()
    _refused(path, "another program's database")


def test_a_file_of_a_newer_schema_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    SQLiteExchange(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    _refused(path, "schema 99, newer")


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.6, 0.9])
def test_a_file_that_was_cut_off_is_refused_and_left(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.sqlite"
    whole = SQLiteExchange(path)
    whole.publish([rollout(f"t{i}", text="yes" * 50) for i in range(500)])
    whole.close()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    _refused(path, "torn")


def test_a_file_with_zeroed_pages_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    whole = SQLiteExchange(path)
    whole.publish([rollout(f"t{i}", text="yes" * 50) for i in range(500)])
    whole.close()
    data = bytearray(path.read_bytes())
    data[8192:65536] = bytes(65536 - 8192)
    path.write_bytes(data)
    _refused(path, "torn")


def test_garbage_among_the_records_is_counted_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    exchange = SQLiteExchange(path)
    exchange.publish([success("t", index=i) for i in range(3)])
    vandal = sqlite3.connect(path)
    with vandal:
        vandal.execute("UPDATE record SET body = x'00ff' WHERE idx = 1")
    vandal.close()
    reading = exchange.read("me", ["t"], KINDS, round=0)
    assert ([s.record.index for s in reading.records], reading.unreadable) == ([0, 2], 1)
    exchange.close()


def test_a_writer_waits_a_bounded_time_for_another(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    exchange = SQLiteExchange(path, timeout=0.1)
    hanging = sqlite3.connect(path, isolation_level=None)
    hanging.execute("BEGIN IMMEDIATE")
    with pytest.raises(DeadlineExceededError, match=r"writing for 0\.1 s"):
        exchange.publish([success("t")])
    hanging.execute("ROLLBACK")
    assert exchange.publish([success("t")]) == (1,)
    hanging.close()
    exchange.close()


def test_memory_keeps_the_rounds_published_last(tmp_path: Path) -> None:
    exchange = InMemoryExchange(keep_rounds=2)
    for round_ in (7, 8, 0):
        exchange.publish([success("t", round=round_)])
    assert [r.origin.round for r in exchange.scan()] == [8, 0]


def test_keeping_no_rounds_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="keep_rounds"):
        InMemoryExchange(keep_rounds=0)


# -- replay and export ------------------------------------------------------------------------------------------------


def test_replay_reads_what_was_stored_and_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    recording = SQLiteExchange(path)
    recording.publish([success("t", "old", round=3)])
    recording.close()
    replay = ReplayExchange(stored=SQLiteExchange(path, readonly=True), live=InMemoryExchange())
    replay.publish([success("t", "new", round=3)])
    assert [r.origin.author for r in records(replay, round=3)] == ["new", "old"]
    assert [s.id for s in replay.read("me", ["t"], KINDS, round=3).records] == [1, -1]
    replay.close()
    again = SQLiteExchange(path, readonly=True)
    assert [r.origin.author for r in again.scan()] == ["old"]
    again.close()


def test_an_author_who_is_stored_and_live_is_read_live() -> None:
    stored, live = InMemoryExchange(), InMemoryExchange()
    stored.publish([success("t", "a", text="yes then")])
    live.publish([success("t", "a", text="yes now")])
    assert records(ReplayExchange(stored, live)) == [success("t", "a", text="yes now")]


def test_an_export_opens_in_pandas_and_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pandas = pytest.importorskip("pandas")
    exchange = InMemoryExchange()
    exchange.publish([rollout("t", text="yes é"), statistics("t", rewards=(1.0, 0.0, 0.5)), success("u")])
    path = tmp_path / "x.parquet"
    assert export(exchange, path) == 3
    frame = pandas.read_parquet(path)
    assert list(frame["kind"]) == ["rollout", "statistics", "success"]
    assert frame["text"][0] == "yes é"
    assert list(frame["logprobs"][0]) == [-0.5] * 5
    assert frame["square_sum"][1] == 1.25
    loaded = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.num_rows == 3
    assert loaded[0]["token_ids"] == [int(i) for i in rollout("t", text="yes é").completion.token_ids]
