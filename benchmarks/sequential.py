"""HACPO's own order of a round, one policy on the device at a time, beside ours: the same strategy, the same samples.

    python -m benchmarks.sequential [--models models] [--rounds 4]     writes docs/figures/data/sequential.json

Its code wakes a policy, samples, puts it to sleep, loads it to score what it sampled, off-loads it, does the same with
the other, and then updates each between loading and off-loading. So here: parameters and optimizer go to the machine's
memory after each lease and come back before the next (`offload`, `restore`), and each scores its own samples again.
`ours` keeps both policies where they are, one after the other; log-probabilities of own samples are those that were
recorded in sampling. `each_on_a_device` is worked out of its seconds: the longer of the two policies between barriers.

The real pair of the evidence under HACPO, whose weights stay as they are; processor seconds of one thread, both orders
in turn within each round. Both must have the same metrics to the last bit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from benchmarks.beside import arms_beside
from benchmarks.costs import LEASES, SEED, Spent, measured, real_suite
from benchmarks.evidence.results import family_file
from benchmarks.figures import machine, write
from learners.batch import Batch
from learners.protocol import Learner, Movable
from learners.resources.executor import SerialExecutor
from learners.run.config import load_suite
from learners.run.loop import Loop

T = TypeVar("T")
MOVING, AGAIN = "moving", "scoring its own again"
ARM = "hacpo"


class OneAtATime(SerialExecutor):
    """Whoever is asked comes to the device, and leaves it."""

    def __init__(self, learners: Mapping[str, Learner]) -> None:
        super().__init__(clock=time.process_time)
        self._learners = learners
        self.extra: Counter[str] = Counter()

    def map(self, phase: str, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        return super().map(phase, {name: partial(self._alone, name, call) for name, call in calls.items()})

    def _alone(self, name: str, call: Callable[[], T]) -> T:
        learner = self._learners[name]
        assert isinstance(learner, Movable)
        self._timed(MOVING, learner.restore)
        result = call()
        if isinstance(result, Batch):
            own = [example for example in result.examples if example.own]
            score = partial(learner.score, [e.prompt_ids for e in own], [e.response_ids for e in own])
            self._timed(AGAIN, score)
        self._timed(MOVING, learner.offload)
        return result

    def _timed(self, what: str, call: Callable[[], Any]) -> None:
        began = time.process_time()
        call()
        self.extra[what] += time.process_time() - began  # type: ignore[assignment]


def sequential(loop: Loop, number: int) -> tuple[Spent, Counter[str]]:
    executor = OneAtATime(loop.learners)
    return measured(replace(loop, executor=executor), number), executor.extra


def resident(loop: Loop, number: int) -> Spent:
    for learner in loop.learners.values():
        assert isinstance(learner, Movable)
        learner.restore()  # not counted: the other order left it away
    return measured(loop, number)


def on_devices(spent: Spent) -> float:
    """Seconds where the policies' own phases go on at once."""
    phases = [[of[phase] for of in spent.policies.values()] for phase in LEASES.values()]
    return spent.total - sum(sum(seconds) - max(seconds) for seconds in phases)


def compared(mine_in: Loop, theirs_in: Loop, rounds: int) -> dict[str, Any]:
    """Both orders in turn in each round; the first round is not counted."""
    ours, theirs, extras = [], [], []
    for number in range(rounds + 1):
        if number % 2:
            mine, (spent, extra) = resident(mine_in, number), sequential(theirs_in, number)
        else:
            (spent, extra), mine = sequential(theirs_in, number), resident(mine_in, number)
        assert mine.metrics == spent.metrics, "the numbers are others"
        if number:
            ours.append(mine)
            theirs.append(spent)
            extras.append(extra)
    return figures(ours, theirs, extras)


def figures(ours: Sequence[Spent], theirs: Sequence[Spent], extras: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "rounds": len(pairs),
        "same_numbers": True,
        "ours": {"seconds": statistics.median(r.total for r in ours), "policies": _of_policies(ours)},
        "sequential": {
            "seconds": statistics.median(r.total for r in theirs),
            **{what: statistics.median(extra[what] for extra in extras) for what in (MOVING, AGAIN)},
        },
        "times_ours": statistics.median(their.total / mine.total for mine, their in pairs),
        "times_ours_each_on_a_device": statistics.median(their.total / on_devices(mine) for mine, their in pairs),
        "each_on_a_device": {"seconds": statistics.median(map(on_devices, ours))},
    }


def _of_policies(of: Sequence[Spent]) -> dict[str, dict[str, float]]:
    return {
        policy: {phase: statistics.median(r.policies[policy][phase] for r in of) for phase in LEASES.values()}
        for policy in of[0].policies
    }


@pytest.mark.parametrize("order", [resident, sequential], ids=["ours", "sequential"])
def test_round(benchmark: Any, order: Callable[[Loop, int], Any]) -> None:
    cold = [f"base.policies.{name}.options.warm_start.steps=0" for name in ("llama", "neox")]
    with arms_beside(load_suite(family_file("letters"), cold), [ARM], SEED) as loops:
        assert benchmark.pedantic(order, (loops[ARM], 0), rounds=5, warmup_rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sequential",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    if not (args.models / "gemma3").is_dir():
        raise SystemExit(f"{args.models} has no gemma3: make models")
    torch.set_num_threads(1)
    suite = real_suite(args.models)
    twice = replace(suite, arms={**suite.arms, "theirs": suite.arms[ARM]})  # an exchange for each
    with arms_beside(twice, [ARM, "theirs"], SEED) as loops:
        write("sequential", {**compared(loops[ARM], loops["theirs"], args.rounds), "machine": machine()})


if __name__ == "__main__":
    main()
