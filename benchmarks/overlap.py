"""How far a synchronous round overlaps: two policies in worker processes, and one policy with its verifiers.

    python -m benchmarks.overlap [--rounds 4] [--pairs 5]

writes docs/figures/data/overlap.json. Of two policies one writes 24 tokens with a small model, the other 2 with a
larger one, so that with barriers each waits for the other twice a round. Both ways in turn, in the order a, b, b, a,
with workers that stay; the ratio is of neighbours in time, and its median counts. The metrics of both ways are compared
bit for bit. `leases_overlap` is the share of the rounds' time in which one policy acts while the other learns, by the
executor's own record.

`streamed`: one policy samples in passes, and a verifier computes for 3 ms an answer. How long a round waits for its
verdicts once all is sampled, where groups are verified as they end and where they are when all are there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
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
from mutual_env.types import Completion, Task, Verdict
from mutual_env.verifiers import VerifierPool, VerifierSpec
from tokenizers_bridge import CharTokenizer, TokenizerBridge

NAMES = ("slow to sample", "slow to learn")
ALPHABET = "0123456789+=()%"
SAMPLED = 24
"""Tokens that it writes who is slow to sample."""


class Deliberate:
    """Takes its time, in which it computes."""

    inline = False
    id = "deliberate"

    def verify(self, task: Task, text: str) -> Verdict:
        ends = time.process_time() + 0.003
        while time.process_time() < ends:
            pass
        return Verdict.scored(float(text == task.answer), correct=text == task.answer)


class Rounds:
    """Rounds of two policies in processes of their own, one after the other; how long each took is kept."""

    def __init__(self, *, overlap: bool) -> None:
        demands = [Demand(name, dict.fromkeys(("act", "score", "update"), Needs())) for name in NAMES]
        self._executor = ProcessExecutor(demands, Supply((Node("local", 2.0),)), threads=1, keep=1000)
        self._loop = _loop_of(self._executor, overlap=overlap)
        self._round = 0

    def go(self, count: int) -> tuple[float, float, list[Any]]:
        """Seconds of so many rounds, those in which one acts while the other learns, and all metrics."""
        self._executor.record.take()
        history: list[Any] = []
        began = time.perf_counter()
        for left in reversed(range(count)):
            infos = self._loop.round(self._round, self._round + 1 if left else None)
            self._round += 1
            history.append({name: dict(info["metrics"]) for name, info in infos.items()})
        seconds = time.perf_counter() - began
        spans = [item for item in self._executor.record.take() if isinstance(item, Span)]
        return seconds, both_at_work(spans), history

    def close(self) -> None:
        self._executor.close()


def _loop_of(executor: ProcessExecutor, *, overlap: bool) -> Loop:
    tokenizer = CharTokenizer(ALPHABET)
    make = partial(partial, learners.make, "tiny", tokenizer=tokenizer, seed=0, learning_rate=1e-3)
    built = executor.host(
        {
            NAMES[0]: make(name=NAMES[0], width=64, layers=2, max_new_tokens=SAMPLED),
            NAMES[1]: make(name=NAMES[1], width=192, layers=3, max_new_tokens=2),
        }
    )
    env: Any = mutual_env.make(
        "mutual/arithmetic-v0", agents=list(NAMES), prompts_per_round=8, group_size=8, digits=1, modulus=10
    )
    strategy: Any = sharing.make("sgt", env, exchange=sharing.InMemoryExchange())
    ahead = Ahead() if overlap else None
    return Loop(strategy, built, 0, 8, TokenizerBridge([tokenizer]), executor=executor, ahead=ahead)


def both_at_work(spans: list[Span]) -> float:
    """Seconds in which one policy acts while another learns."""
    acts, updates = ([s for s in spans if s.phase == phase] for phase in ("act", "update"))
    return sum(
        max(0.0, min(a.ended, u.ended) - max(a.began, u.began)) for a in acts for u in updates if a.policy != u.policy
    )


def waits_for_verdicts(pairs: int) -> dict[str, Any]:
    """Seconds from the last sample of a round to its last verdict, verified as groups end and when all are there."""
    learner: Any = learners.make(
        "tiny", name="ada", tokenizer=CharTokenizer(ALPHABET), seed=0, width=128, max_new_tokens=SAMPLED, max_rows=8
    )
    found: dict[str, list[float]] = {"as they end": [], "when all are there": []}
    sampling: list[float] = []
    with VerifierPool(1) as pool:
        env: Any = mutual_env.make(
            "mutual/arithmetic-v0",
            agents=["ada"],
            prompts_per_round=16,
            group_size=8,
            digits=2,
            pool=pool,
            verifier=VerifierSpec("benchmarks.overlap:Deliberate"),
        )
        for pair in range(-1, pairs):  # the first one warms up
            ways = list(found) if pair % 2 else list(found)[::-1]
            for at, way in enumerate(ways):
                seconds, waited = _one_round(env, learner, 2 * pair + at + 2, told=way == "as they end")
                if pair >= 0:
                    found[way].append(waited)
                    sampling.append(seconds)
    medians = {way: statistics.median(seconds) for way, seconds in found.items()}
    times = medians["when all are there"] / medians["as they end"]
    return {"seconds_after_sampling": medians, "seconds_of_sampling": statistics.median(sampling), "times_less": times}


def _one_round(env: Any, learner: Any, round: int, *, told: bool) -> tuple[float, float]:
    observations, _ = env.reset(options={"round": round})
    tell: Callable[..., None] = partial(_begun, env) if told else _nothing
    began = time.perf_counter()
    prompts = observations["ada"]["prompts"]
    groups: list[tuple[Completion, ...]] = learner.act_and_tell(prompts, env.spec.group_size, tell, seed=round)
    sampled = time.perf_counter()
    env.step({"ada": groups})
    return sampled - began, time.perf_counter() - sampled


def _begun(env: Any, place: int, group: tuple[Completion, ...]) -> None:
    env.begin_verifying("ada", [group], place)


def _nothing(place: int, group: tuple[Completion, ...]) -> None:
    """Nobody wants to know."""


@pytest.mark.parametrize("overlap", [False, True], ids=["barriers", "overlap"])
def test_rounds(benchmark: Any, overlap: bool) -> None:
    rounds = Rounds(overlap=overlap)
    try:
        _, _, history = benchmark.pedantic(rounds.go, (2,), rounds=1)
    finally:
        rounds.close()
    assert len(history) == 2


def measured(rounds: int, pairs: int) -> dict[str, Any]:
    """Both ways in turn."""
    both = {"barriers": Rounds(overlap=False), "overlap": Rounds(overlap=True)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in both}
    try:
        for pair in range(-1, pairs):  # the first one warms up
            histories = {}
            for name in both if pair % 2 else reversed(both):
                seconds, at_once, histories[name] = both[name].go(rounds)
                if pair >= 0:
                    found[name].append((seconds, at_once / seconds))
            assert histories["barriers"] == histories["overlap"], "the numbers are others"
    finally:
        for one in both.values():
            one.close()
    ratios = [without[0] / with_it[0] for without, with_it in zip(found["barriers"], found["overlap"], strict=True)]
    return {
        "times_barriers": statistics.median(ratios),
        "seconds_a_round": {name: statistics.median(s for s, _ in f) / rounds for name, f in found.items()},
        "leases_overlap": {name: statistics.median(share for _, share in f) for name, f in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    two = measured(arguments.rounds, arguments.pairs)
    streamed = waits_for_verdicts(arguments.pairs)
    shared = {"machine": machine(), "pairs": arguments.pairs, "rounds": arguments.rounds, "same_numbers": True}
    write("overlap", {**shared, **two, "streamed": streamed})


if __name__ == "__main__":
    main()
