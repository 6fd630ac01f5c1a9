"""Synchronous rounds with and without overlap: two policies in worker processes, one slow to sample, one slow to learn.

    python -m benchmarks.overlap [--rounds 6] [--pairs 7]

writes docs/figures/data/overlap.json. One writes 32 tokens with a small model, the other 4 with a larger one, so that
with barriers each waits for the other twice a round. Both ways in turn, in the order a, b, b, a; the ratio is of
neighbours in time, and its median counts. The metrics of both ways are compared bit for bit. `leases_overlap` is the
share of the rounds' time in which one policy acts while the other learns, by the executor's own record.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from functools import partial
from typing import Any

import pytest

import learners
import mutual_env
import sharing
from benchmarks.figures import machine, write
from learners.resources import Demand, Needs, Node, ProcessExecutor, Span, Supply
from learners.run.ahead import Ahead
from learners.run.loop import Loop
from tokenizers_bridge import CharTokenizer, TokenizerBridge

NAMES = ("slow to sample", "slow to learn")
WARM = 2


def loop_of(executor: ProcessExecutor, *, overlap: bool) -> Loop:
    tokenizer = CharTokenizer("0123456789+=()%")
    shared = {"tokenizer": tokenizer, "seed": 0, "learning_rate": 1e-3}
    make = partial(partial, learners.make, "tiny", **shared)
    built = executor.host(
        {
            NAMES[0]: make(name=NAMES[0], width=96, layers=2, max_new_tokens=32),
            NAMES[1]: make(name=NAMES[1], width=320, layers=4, max_new_tokens=4),
        }
    )
    env: Any = mutual_env.make(
        "mutual/arithmetic-v0", agents=list(NAMES), prompts_per_round=16, group_size=8, digits=1, modulus=10
    )
    strategy: Any = sharing.make("sgt", env, exchange=sharing.InMemoryExchange())
    ahead = Ahead() if overlap else None
    return Loop(strategy, built, 0, 8, TokenizerBridge([tokenizer]), executor=executor, ahead=ahead)


def rounds_of(count: int, *, overlap: bool) -> tuple[float, list[Any], list[Span]]:
    """Seconds of the rounds after the first few, all metrics, and the leases."""
    demands = [Demand(name, dict.fromkeys(("act", "score", "update"), Needs())) for name in NAMES]
    executor = ProcessExecutor(demands, Supply((Node("local", 2.0),)), threads=1, keep=50)
    try:
        loop = loop_of(executor, overlap=overlap)
        history: list[Any] = []
        for number in range(WARM + count):
            if number == WARM:
                began = time.perf_counter()
                executor.record.take()
            last = number + 1 == WARM + count
            infos = loop.round(number, None if last else number + 1)
            history.append({name: dict(info["metrics"]) for name, info in infos.items()})
        seconds = time.perf_counter() - began
        return seconds, history, [item for item in executor.record.take() if isinstance(item, Span)]
    finally:
        executor.close()


def both_at_work(spans: list[Span]) -> float:
    """Seconds in which one policy acts while another learns."""
    acts, updates = ([s for s in spans if s.phase == phase] for phase in ("act", "update"))
    return sum(
        max(0.0, min(a.ended, u.ended) - max(a.began, u.began)) for a in acts for u in updates if a.policy != u.policy
    )


@pytest.mark.parametrize("overlap", [False, True], ids=["barriers", "overlap"])
def test_rounds(benchmark: Any, overlap: bool) -> None:
    _, history, _ = benchmark.pedantic(rounds_of, (1,), {"overlap": overlap}, rounds=1)
    assert len(history) == WARM + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    expected: list[Any] = []
    for pair in range(arguments.pairs):
        for overlap in (False, True) if pair % 2 else (True, False):
            seconds, history, spans = rounds_of(arguments.rounds, overlap=overlap)
            expected = expected or history
            assert history == expected, "the numbers are others"
            found[overlap].append((seconds, both_at_work(spans) / seconds))
    ratios = [without[0] / with_it[0] for without, with_it in zip(found[False], found[True], strict=True)]
    names = {False: "barriers", True: "overlap"}
    write(
        "overlap",
        {
            "machine": machine(),
            "pairs": arguments.pairs,
            "same_numbers": True,
            "times_barriers": statistics.median(ratios),
            "seconds_a_round": {
                names[w]: statistics.median(s for s, _ in f) / arguments.rounds for w, f in found.items()
            },
            "leases_overlap": {names[w]: statistics.median(share for _, share in f) for w, f in found.items()},
        },
    )


if __name__ == "__main__":
    main()
