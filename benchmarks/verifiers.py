"""How fast the verifier pool is, and what hanging answers cost it.

`python -m benchmarks.verifiers` writes `docs/figures/data/verifiers.json`; `pytest benchmarks/verifiers.py` runs the
parts that pytest-benchmark can time. Every ratio is of runs that alternate within seconds on the same machine; medians
of the ratios.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import machine, write
from mutual_env.types import Task, Verdict
from mutual_env.verifiers import VerifierPool, VerifierSpec
from mutual_env.verifiers.mathematics import MathVerify, _gold
from mutual_env.verifiers.pool.jobs import Job

Items = Sequence[tuple[Task, str]]
HANG = "benchmarks.verifiers:Hanging"
REPETITIONS = 3
TURNS = 15
_PROSE = "We write the total as the number of terms times their mean, and collect what belongs to each side of it. " * 7


@dataclass(frozen=True, slots=True)
class Hanging:
    """math-verify, but for two texts that hang: one sleeps, one spins."""

    id: str = "hanging"
    inline: bool = False

    def warm(self) -> None:
        MathVerify().warm()

    def verify(self, task: Task, text: str) -> Verdict:
        while text.startswith("spin"):
            pass
        if text.startswith("sleep"):
            time.sleep(3600)
        return MathVerify().verify(task, text)


def clean_items(n: int, seed: int) -> list[tuple[Task, str]]:
    """Answers of about 700 characters, each different: integers, fractions, decimals that miss a fraction, sums."""
    rng = random.Random(seed)
    items = []
    for i in range(n):
        a, b = rng.randint(1, 99), rng.randint(2, 99)
        gold, answer = (
            (str(a * b), str(a * b)),
            (f"\\frac{{{a}}}{{{b}}}", f"{a}/{b}"),
            (f"\\frac{{{a}}}{{{b}}}", f"{a / b:.3f}"),
            (f"{a}x+{b}", f"{b}+{a}x"),
        )[i % 4]
        items.append((Task(f"t{seed}-{i}", "", gold), f"{_PROSE[:650]} Case {i}: the answer is \\boxed{{{answer}}}."))
    return items


def with_hangs(items: Items, kind: str, every: int = 100) -> list[tuple[Task, str]]:
    return [(task, f"{kind} {i}") if i % every == every // 2 else (task, text) for i, (task, text) in enumerate(items)]


def inline_seconds(items: Items) -> float:
    verifier = MathVerify()
    _gold.cache_clear()  # a worker starts without answers it has parsed before, too
    start = time.perf_counter()
    for task, text in items:
        verifier.verify(task, text)
    return time.perf_counter() - start


def inline_seconds_on(cores: int, items: Items) -> float:
    """The same in so many forked processes at once, each with its share: what inline verification gets out of these
    cores."""
    start = time.perf_counter()
    children = []
    for share in range(cores):
        child = os.fork()
        if child == 0:
            inline_seconds(items[share::cores])
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return time.perf_counter() - start


def pool_seconds(pool: VerifierPool, items: Items, verifier: str = "math_verify") -> float:
    start = time.perf_counter()
    pool.verify(verifier, items)
    return time.perf_counter() - start


def cpu_share_of_inline(n: int = 800) -> float:
    """CPU seconds that n items cost inline, over what they cost in a pool, all its processes and threads together and
    starting it left out. On cores of its own, this is the share of the throughput; unlike that, it can be measured on a
    machine that others use too."""

    def pooled(count: int) -> float:
        before = _cpu_seconds()
        with VerifierPool(1, remember=0) as pool:
            pool.verify("math_verify", clean_items(count, 0))
        return _cpu_seconds() - before

    before = _cpu_seconds()
    inline_seconds(clean_items(n, 0))
    inline = _cpu_seconds() - before
    return inline / (pooled(n + 16) - pooled(16))


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def against_inline(workers: int, n: int) -> dict[str, float]:
    """Pool of so many workers against inline on so many cores, a different set of items in each repetition."""
    ratios, rates, starts = [], [], []
    for repetition in range(REPETITIONS):
        items = clean_items(n, repetition)
        with VerifierPool(workers, remember=0) as pool:
            starts.append(pool_seconds(pool, clean_items(8 * workers, 1000)))
            inline = inline_seconds_on(workers, items)
            pooled = pool_seconds(pool, items)
        ratios.append(inline / pooled)
        rates.append(n / pooled)
    return {
        "items_per_second": statistics.median(rates),
        "share_of_inline_per_core": statistics.median(ratios),
        "share_of_inline_per_core_min": min(ratios),
        "share_of_inline_per_core_max": max(ratios),
        "first_verdicts_after_s": statistics.median(starts),
    }


def with_one_percent_hanging(kind: str, workers: int, n: int, deadline: float) -> dict[str, Any]:
    """Calls with hangs, each between two clean ones: until the call returns, and until its last clean item is done.

    Each call has items of its own: a worker that has parsed a task's answer before does not parse it again.
    """
    whole, honest, late = [], [], []
    with VerifierPool(workers, remember=0, deadline=deadline) as pool:
        pool_seconds(pool, clean_items(64, 1000), HANG)
        before = pool_seconds(pool, clean_items(n, 100), HANG)
        for turn in range(TURNS):
            done = _clean_done_times(pool, with_hangs(clean_items(n, 101 + 2 * turn), kind))
            after = pool_seconds(pool, clean_items(n, 102 + 2 * turn), HANG)
            clean, before = (before + after) / 2, after
            whole.append(clean / done["returned"])
            honest.append(clean * 0.99 / done["last_clean"])
            late.append(done["returned"] - done["last_clean"])
    low, median, high = statistics.quantiles(honest, n=4)
    return {
        "items": n,
        "turns": TURNS,
        "deadline_s": deadline,
        "clean_items_at_share_of_clean_rate": median,
        "quartiles_of_clean_items": {"lower": low, "upper": high},
        "call_at_share_of_clean_rate": statistics.median(whole),
        "wait_for_the_hangs_s": statistics.median(late),
    }


class _TimedJob(Job):
    """A job that notes when its last verdict that was reached came in."""

    last_reached: float = 0.0

    def conclude(self, index: int, verdict: Verdict) -> None:
        if verdict.reward is not None:
            _TimedJob.last_reached = time.perf_counter()
        super().conclude(index, verdict)


def _clean_done_times(pool: VerifierPool, items: Items) -> dict[str, float]:
    start = time.perf_counter()
    pool._run(_TimedJob(VerifierSpec(HANG), items))  # the call itself: the same path without the memory of verdicts
    return {"returned": time.perf_counter() - start, "last_clean": _TimedJob.last_reached - start}


def respawn_seconds(n: int = 20) -> float:
    """From the death of the only worker to the verdict of its successor."""
    task = Task("t", "", "7")
    with VerifierPool(1, remember=0, items_per_worker=1, batch=1) as pool:
        pool_seconds(pool, [(task, "\\boxed{7}")])
        return pool_seconds(pool, [(task, f"{i} \\boxed{{7}}") for i in range(n)]) / n


def main() -> None:
    logging.disable(logging.WARNING)
    MathVerify().warm()
    cores = len(os.sched_getaffinity(0))
    figures: dict[str, Any] = {"machine": machine(("math-verify", "sympy")), "load_before": os.getloadavg()[0]}
    figures["inline_items_per_second"] = statistics.median(600 / inline_seconds(clean_items(600, s)) for s in range(3))
    figures["cpu_share_of_inline"] = statistics.median(cpu_share_of_inline() for _ in range(REPETITIONS))
    figures["pool"] = {str(workers): against_inline(workers, 800 * workers) for workers in sorted({1, cores})}
    figures["respawn_s"] = respawn_seconds()
    figures["one_percent_sleeping"] = with_one_percent_hanging("sleep", cores, 4000, 0.4)
    figures["one_percent_spinning"] = with_one_percent_hanging("spin", cores, 2000, 0.4)
    figures["load_after"] = os.getloadavg()[0]
    write("verifiers", figures)


def test_inline_math_verify(benchmark: Any) -> None:
    logging.disable(logging.WARNING)
    MathVerify().warm()
    items = clean_items(100, 0)
    benchmark(inline_seconds, items)


def test_pooled_math_verify(benchmark: Any) -> None:
    items = clean_items(100, 0)
    with VerifierPool(1, remember=0) as pool:
        pool_seconds(pool, items)
        benchmark(pool_seconds, pool, items)


def test_remembered_verdicts(benchmark: Any) -> None:
    items = clean_items(100, 0)
    with VerifierPool(1) as pool:
        pool_seconds(pool, items)
        benchmark(pool_seconds, pool, items)


if __name__ == "__main__":
    main()
