"""A writer that is killed at any moment loses no record that it acknowledged, and leaves a file that opens."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from sharing import KINDS, Origin, SQLiteExchange, Success

MOMENTS = int(os.environ.get("MUTUAL_ENV_KILLS", "20"))
"""How many moments are tried; `make soak` tries 200."""

OPENED = -1
_FORK = multiprocessing.get_context("fork")  # a fresh interpreter would take a second for each moment


def _write_for_ever(path: Path, first: int, out: int) -> None:
    """Publish batches of 1 to 40 records, and say each batch's number once it is acknowledged."""
    exchange = SQLiteExchange(path)
    os.write(out, OPENED.to_bytes(8, "little", signed=True))
    for number in itertools.count(first):
        origin = Origin(f"t{number}", "writer", number, number, "", "")
        text = f"batch {number} " * 20
        exchange.publish([Success(origin, i, text, "stop", 1.0) for i in range(number % 40 + 1)])
        os.write(out, number.to_bytes(8, "little", signed=True))


def _killed(path: Path, first: int, *, after: float, opened: bool) -> list[int]:
    """Which batches a writer acknowledged before it was killed, `after` seconds after it had opened the file, or after
    the file appeared."""
    receive, send = os.pipe()
    writer = _FORK.Process(target=_write_for_ever, args=(path, first, send))
    writer.start()
    os.close(send)
    said = b""
    if opened:
        said = os.read(receive, 8)
    else:
        deadline = time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.0001)
    time.sleep(after)
    assert writer.is_alive()
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    while more := os.read(receive, 65536):
        said += more
    writer.join(timeout=30)
    os.close(receive)
    numbers = [int.from_bytes(said[i : i + 8], "little", signed=True) for i in range(0, len(said), 8)]
    return [n for n in numbers if n != OPENED]


def test_no_acknowledged_record_is_lost_whenever_the_writer_is_killed(tmp_path: Path) -> None:
    draw = random.Random(20)
    path = tmp_path / "x.sqlite"
    acknowledged: list[int] = []
    for moment in range(MOMENTS):
        first = acknowledged[-1] + 2 if acknowledged else 0
        said = _killed(path, first, after=draw.uniform(0.0, 0.05), opened=True)
        acknowledged += said
        _check_batches(path, said, f"moment {moment}")
    _check_batches(path, acknowledged, "all moments")  # at each of them, it would be quadratic
    sizes = Counter(record.origin.round for record in SQLiteExchange(path).scan())
    assert all(size == n % 40 + 1 for n, size in sizes.items()), "a batch is there as a whole or not at all"
    assert len(acknowledged) > MOMENTS // 2  # the writers that were killed did write


def _check_batches(path: Path, acknowledged: list[int], when: str) -> None:
    exchange = SQLiteExchange(path)
    found = exchange.read("reader", [f"t{n}" for n in acknowledged], KINDS, round=0, max_staleness=None)
    by_batch = Counter(stored.record.origin.round for stored in found.records)
    assert by_batch == {n: n % 40 + 1 for n in acknowledged}, when
    assert found.unreadable == 0, when
    exchange.close()


def test_a_writer_killed_while_it_makes_the_file_leaves_one_that_opens(tmp_path: Path) -> None:
    draw = random.Random(21)
    for moment in range(MOMENTS):
        path = tmp_path / f"{moment}.sqlite"
        acknowledged = _killed(path, 0, after=draw.uniform(0.0, 0.02), opened=False)
        assert path.exists()
        exchange = SQLiteExchange(path)
        assert {record.origin.round for record in exchange.scan()} >= set(acknowledged)
        exchange.close()
