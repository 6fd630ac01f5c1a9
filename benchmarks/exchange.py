"""The exchange: records a second, reads against the length of the history, bytes for each prompt and kind.

    python -m benchmarks.exchange [--largest 1000000]     writes docs/figures/data/exchange.json
    pytest benchmarks/exchange.py                         the same operations under pytest-benchmark

A rollout here has 64 tokens and 200 characters. SQLite runs as in a training run: write-ahead log, every batch one
transaction that is synced to the disk when `publish` returns, and its publishing is timed by the clock on the wall. All
else is processor time, so that other work on the machine does not show.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.figures import machine, write
from mutual_env.types import Completion
from sharing import Exchange, InMemoryExchange, Origin, Record, Rollout, SQLiteExchange, Statistics, Success, export
from sharing.codec import decode, encode, wire_size

TOKENS, TEXT = 64, "because the sum of its digits is nine, " * 5
PROMPTS, AUTHORS, GROUP = 16, 4, 8
COMPLETION = Completion(TEXT, np.arange(TOKENS), np.full(TOKENS, -0.7), "stop", 3, "f" * 64)
KINDS = {"rollout": Rollout, "statistics": Statistics, "success": Success}


def records(kind: str, count: int) -> list[Record]:
    """Round after round, each of PROMPTS tasks, AUTHORS authors and GROUP rollouts (or one record of statistics)."""
    group = 1 if kind == "statistics" else GROUP
    made: list[Record] = []
    while len(made) < count:
        round_ = len(made) // (PROMPTS * AUTHORS * group)
        for prompt in range(PROMPTS):
            for author in range(AUTHORS):
                origin = Origin(f"task/{round_}/{prompt}", f"policy_{author}", round_, round_, "f" * 64, "math_verify")
                made.extend(_record(kind, origin, index) for index in range(group))
    return made[:count]


def _record(kind: str, origin: Origin, index: int) -> Record:
    if kind == "rollout":
        return Rollout(origin, index, COMPLETION, 1.0, True)
    if kind == "statistics":
        return Statistics(origin, 8, 3.0, 3.0)
    return Success(origin, index, TEXT, "stop", 1.0)


def publish_rate(
    make: Callable[[], Exchange], clock: Callable[[], float], kind: str, count: int, batch: int, repeats: int = 3
) -> float:
    """Records a second, the median of some runs, each into an exchange of its own."""
    made = records(kind, count)
    rates = []
    for _ in range(repeats):
        exchange = make()
        start = clock()
        for i in range(0, count, batch):
            exchange.publish(made[i : i + batch])
        rates.append(count / (clock() - start))
        exchange.close()
    return float(np.median(rates))


def read_seconds(exchange: Exchange, rounds: int, repeats: int = 200) -> float:
    """One reader's read of one round: PROMPTS tasks, everything its AUTHORS - 1 peers published there. The median."""
    draw = np.random.default_rng(0)
    taken = []
    for round_ in draw.integers(0, rounds, size=repeats):
        tasks = [f"task/{round_}/{prompt}" for prompt in range(PROMPTS)]
        start = time.process_time()
        reading = exchange.read("policy_0", tasks, ["success"], round=int(round_))
        taken.append(time.process_time() - start)
        assert len(reading.records) == PROMPTS * (AUTHORS - 1) * GROUP
    return float(np.median(taken))


def read_figures(largest: int, folder: Path) -> dict[str, Any]:
    figures: dict[str, Any] = {"memory": {}, "sqlite": {}}
    count = 1024
    while count <= largest:
        made = records("success", count)
        for name, exchange in (("memory", InMemoryExchange()), ("sqlite", SQLiteExchange(folder / f"{count}.sqlite"))):
            for i in range(0, count, 10_240):
                exchange.publish(made[i : i + 10_240])
            figures[name][str(count)] = 1e6 * read_seconds(exchange, count // (PROMPTS * AUTHORS * GROUP))
            exchange.close()
        (folder / f"{count}.sqlite").unlink()
        count *= 10
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=1_100_000)
    largest = parser.parse_args(argv).largest
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fresh = iter(range(10**6))

        def durable() -> Exchange:
            return SQLiteExchange(folder / f"{next(fresh)}.sqlite")

        in_memory = {kind: publish_rate(InMemoryExchange, time.process_time, kind, 200_000, 1000) for kind in KINDS}
        batches = {
            kind: {
                str(batch): publish_rate(durable, time.perf_counter, kind, min(20_000, 200 * batch), batch)
                for batch in (1, 100, 1000)
            }
            for kind in KINDS
        }
        write(
            "exchange",
            {
                "machine": machine(("numpy", "pyarrow")),
                "publish_memory_records_per_second": in_memory,
                "publish_sqlite_records_per_second_by_batch": batches,
                "read_one_round_microseconds_by_history": read_figures(largest, folder),
                "bytes_per_prompt": bytes_per_prompt(),
                "codec_records_per_second": codec_rates(),
                "export_parquet_records_per_second": export_rate(folder / "x.parquet"),
            },
        )


def bytes_per_prompt() -> dict[str, int]:
    """What one policy publishes on one prompt of which half its group is right."""
    origin = Origin("task/0/0", "policy_0", 0, 0, "f" * 64, "math_verify")
    return {
        "rollout": GROUP * wire_size(_record("rollout", origin, 0)),
        "statistics": wire_size(_record("statistics", origin, 0)),
        "success": GROUP // 2 * wire_size(_record("success", origin, 0)),
    }


def codec_rates() -> dict[str, float]:
    made = records("rollout", 20_000)
    start = time.process_time()
    bodies = [encode(record) for record in made]
    encoded = time.process_time()
    for body in bodies:
        decode(body)
    decoded = time.process_time()
    return {"encode": len(made) / (encoded - start), "decode": len(made) / (decoded - encoded)}


def export_rate(path: Path) -> float:
    exchange = InMemoryExchange()
    exchange.publish(records("rollout", 20_000))
    start = time.process_time()
    count = export(exchange, path)
    return count / (time.process_time() - start)


# -- under pytest-benchmark -------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def exchange(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Exchange]:
    made: Exchange = InMemoryExchange() if request.param == "memory" else SQLiteExchange(tmp_path / "x.sqlite")
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_publish_a_thousand_records(benchmark: Any, exchange: Exchange, kind: str) -> None:
    made = records(kind, 1000)
    assert len(benchmark(exchange.publish, made)) == 1000


def test_read_a_round(benchmark: Any, exchange: Exchange) -> None:
    exchange.publish(records("success", 10 * PROMPTS * AUTHORS * GROUP))
    tasks = [f"task/5/{prompt}" for prompt in range(PROMPTS)]
    reading = benchmark(exchange.read, "policy_0", tasks, ["success"], round=5)
    assert len(reading.records) == PROMPTS * (AUTHORS - 1) * GROUP


if __name__ == "__main__":
    main()
