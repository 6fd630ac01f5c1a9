"""Three policies of different kind and size, one after the other and side by side; and the allocation of many.

    python -m benchmarks.resources                writes docs/figures/data/resources.json
    python -m benchmarks.resources --fleets 300   with fewer random fleets (default: 10,000, some minutes on two cores)
    pytest benchmarks/resources.py                one decision under pytest-benchmark

Rounds an hour are whole rounds of the training loop (draw, sample, verify, share, learn) with SGT, the same rounds in
each executor, in turns; ratios are of neighbours in time, and their median is taken. The metrics of all executors are
compared bit for bit. Asynchronous rounds (staleness 1) learn other numbers, the same in every repeat. Processor time is
taken for decisions, so that what else the machine does is not counted.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import learners
import mutual_env
import sharing
from benchmarks.figures import DATA, machine, write
from benchmarks.fleets import many_policies, random_fleet
from learners.protocol import Learner
from learners.report.plan_report import as_picture, compare
from learners.resources.allocate import Allocator
from learners.resources.demand import Demand, Needs, Node, Patience, Rounds, Supply
from learners.resources.executor import Executor, SerialExecutor
from learners.resources.plan import make_plan
from learners.resources.processes import ProcessExecutor
from learners.resources.simulate import simulate
from learners.resources.threads import ThreadExecutor
from learners.run.asynchronous import rounds_at_own_pace
from learners.run.loop import Loop
from tokenizers_bridge import CharTokenizer, PairTokenizer, TokenizerBridge

ALPHABET = "0123456789+=()%"
SUPPLY = Supply((Node("local", 2.0),))
NAMES = ("tabular", "tiny", "larger")


def makers() -> dict[str, Callable[[], Learner]]:
    """A table, a model of 192 x 3 layers and one of 256 x 4, of different families and tokenizers."""
    char, pairs = CharTokenizer(ALPHABET), PairTokenizer(ALPHABET, merges=["%1", "10"])
    torch = {"seed": 0, "max_new_tokens": 8, "learning_rate": 1e-3}
    return {
        "tabular": partial(learners.make, "tabular", name="tabular", tokenizer=char, max_new_tokens=8),
        "tiny": partial(learners.make, "tiny", name="tiny", tokenizer=pairs, width=192, layers=3, **torch),
        "larger": partial(
            learners.make, "tiny", name="larger", tokenizer=char, architecture="gpt_neox", width=256, layers=4, **torch
        ),
    }


def train(executor: Executor, rounds: int, warm: int = 2) -> tuple[float, list[Mapping[str, Any]]]:
    """Seconds of all rounds but the first few, and the metrics of every round."""
    (loop,) = _loops(executor, [NAMES])
    return _timed((loop.round(number) for number in range(warm + rounds)), warm)


def train_at_own_pace(executor: Executor, rounds: int, warm: int = 2) -> tuple[float, list[Mapping[str, Any]]]:
    """The same in asynchronous rounds."""
    loops = _loops(executor, [(name,) for name in NAMES])
    paced = rounds_at_own_pace(loops, Rounds(warm + rounds, staleness=1), first=0, limit=300.0)
    return _timed((round.infos for round in paced), warm)


def _loops(executor: Executor, shares: Sequence[Sequence[str]]) -> list[Loop]:
    """A loop for each group of policies, all over one exchange."""
    built, exchange = executor.host(makers()), sharing.InMemoryExchange()
    tokenizers = {one.tokenizer.fingerprint: one.tokenizer for one in built.values()}
    bridge = TokenizerBridge(list(tokenizers.values()))
    # right by chance often enough to learn
    task: dict[str, Any] = {"prompts_per_round": 16, "group_size": 8, "digits": 1, "modulus": 10}
    return [
        Loop(
            sharing.make("sgt", mutual_env.make("mutual/arithmetic-v0", agents=names, **task), exchange=exchange),
            {name: built[name] for name in names},
            seed=0,
            group_size=8,
            bridge=bridge,
            executor=executor,
        )
        for names in shares
    ]


def _timed(rounds: Iterable[Mapping[str, Any]], warm: int) -> tuple[float, list[Mapping[str, Any]]]:
    history: list[Mapping[str, Any]] = []
    started = time.perf_counter()
    for infos in rounds:
        history.append({name: dict(info["metrics"]) for name, info in infos.items()})
        if len(history) == warm:
            started = time.perf_counter()
    return time.perf_counter() - started, history


def ways() -> dict[str, tuple[Callable[[], Executor], Callable[..., Any]]]:
    """An executor, and what drives it."""
    processes = partial(ProcessExecutor, _demands(), SUPPLY, threads=1, keep=50)
    return {
        "serial": (SerialExecutor, train),
        "threads": (partial(ThreadExecutor, _demands(), SUPPLY), train),
        "processes": (processes, train),
        "processes_asynchronous": (processes, train_at_own_pace),
    }


def overlap(rounds: int, repeats: int) -> dict[str, Any]:
    """Rounds an hour in each way: medians of some repeats, taken in turns. Torch on one thread each."""
    import torch

    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in ways()}
    histories: dict[Any, Any] = {}
    records: dict[str, Any] = {}
    for _ in range(repeats):
        for name, (make, run) in ways().items():
            executor = make()
            took, history = run(executor, rounds)
            executor.close()
            if took < min(seconds[name], default=float("inf")):
                records[name] = executor.record
            seconds[name].append(took)
            assert histories.setdefault(run, history) == history, f"{name} gave other numbers than before"
    best = {name: min(times) for name, times in seconds.items()}
    measured = records["serial"].phase_seconds()
    demands = [d.with_seconds(measured) for d in _demands()]
    plan = make_plan(demands, SUPPLY, Rounds(rounds))
    fastest = min((name for name in best if name != "processes_asynchronous"), key=lambda name: best[name])
    assert plan.simulation is not None
    print(compare(plan.simulation, records[fastest]))
    (DATA.parent / "resources-plan.svg").write_text(as_picture(make_plan(demands, SUPPLY, Rounds(3))))
    return {
        "rounds_per_hour": {name: 3600 * rounds / float(np.median(times)) for name, times in seconds.items()},
        "times_serial": {
            name: float(np.median(np.array(seconds["serial"]) / np.array(times))) for name, times in seconds.items()
        },
        "repeats": repeats,
        "same_numbers": True,
        "predicted_seconds_of_leases": plan.simulation.makespan,
        "actual_seconds": best[fastest],
        "utilisation": {name: record.utilisation() for name, record in records.items()},
        "phase_seconds": {f"{p}/{phase}": s for (p, phase), s in sorted(measured.items())},
    }


def _demands() -> list[Demand]:
    return [Demand(name, dict.fromkeys(("act", "score", "update"), Needs())) for name in NAMES]


def fleets(count: int, room: float) -> dict[str, Any]:
    """Ratios to the lower bound and to one policy at a time, over random fleets, on all cores."""
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(partial(_one_fleet, room), range(count), chunksize=25))
    wrong, ratios, speedups, waits = (list(column) for column in zip(*found, strict=True))
    return {
        "fleets": count,
        "deadlocked_or_unserved": sum(wrong),
        "makespan_over_bound": _quantiles(ratios),
        "serial_over_makespan": _quantiles(speedups),
        "longest_wait_over_bound": max(waits),
    }


def _one_fleet(room: float, seed: int) -> tuple[bool, float, float, float]:
    fleet = random_fleet(seed, room=room)
    result = fleet.simulate()
    unfinished = [p for p, n in result.completed.items() if (n == fleet.rounds.count) == (p in result.parked)]
    return (
        bool(result.stuck or unfinished or result.longest_wait > result.wait_bound),
        result.makespan / result.bound,
        result.serial / result.makespan,
        result.longest_wait / result.wait_bound,
    )


def large() -> dict[str, Any]:
    """1,000 policies on 10,000 GPUs: seconds of processor time to plan a round, and milliseconds a decision."""
    demands, supply = (
        many_policies(1000),
        Supply(tuple(Node(f"n{i}", 128.0, 8, 80 << 30, 2 << 40) for i in range(1250))),
    )
    times: list[float] = []
    granted: list[int] = []
    decide = Allocator.decide

    def timed(self: Allocator, now: float) -> Any:
        began = time.thread_time()
        leases = decide(self, now)
        times.append(time.thread_time() - began)
        granted.append(len(leases))
        return leases

    Allocator.decide = timed  # type: ignore[method-assign]
    try:
        began = time.thread_time()
        result = simulate(demands, supply, Rounds(1), Patience(reserve=3000.0, limit=1e7))
        took = time.thread_time() - began
    finally:
        Allocator.decide = decide  # type: ignore[method-assign]
    assert result.stuck == ()
    each = 1e3 * np.array(times) / np.maximum(1, granted)
    return {"policies": 1000, "gpus": supply.gpus, "plan_s": took, "decision_ms": _quantiles(list(each))}


def _quantiles(values: list[float]) -> dict[str, float]:
    return {
        name: float(np.quantile(values, q)) for name, q in (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    }


def test_one_decision(benchmark: Any) -> None:
    """A thousand policies wait on ten thousand GPUs: one is served, and gives back."""
    demands = many_policies(1000)
    allocator = Allocator(demands, Supply(tuple(Node(f"n{i}", 128.0, 8, 80 << 30) for i in range(1250))))
    for demand in demands[1:]:
        allocator.request(demand.policy, "act", 0.0)
    allocator.decide(0.0)

    def one() -> None:
        allocator.request(demands[0].policy, "act", 0.0)
        for lease in allocator.decide(0.0):
            allocator.release(lease)

    benchmark(one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fleets", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    figures: dict[str, Any] = {"machine": machine(), "overlap": overlap(arguments.rounds, arguments.repeats)}
    few = max(1, arguments.fleets // 20)
    figures |= {"large": large(), "random_fleets": fleets(arguments.fleets, room=2.0)}
    figures |= {"largest_takes_a_third": fleets(few, room=3.0), "largest_takes_all": fleets(few, room=1.0)}
    Path(DATA).mkdir(parents=True, exist_ok=True)
    write("resources", figures)


if __name__ == "__main__":
    main()
