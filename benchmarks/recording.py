"""What a run pays for being readable: samples, lessons and evaluations kept, a person or a log told, trackers told.

    python -m benchmarks.recording [--repeats 3]                    writes docs/figures/data/recording.json
    python -m benchmarks.recording --trackers tensorboard wandb ... adds those, in an environment that has them

Processor time, in two ways. `share`: what is spent in the calls that record and tell, of all that the run spends, which
holds on a machine that others use. `times_without`: the same run with and without, in turn; rounds of one seed do the
same work, so each round's least over the repeats is compared with the same round's without. `arithmetic` is the
cheapest round there is, of tables; `quickstart` the quickstart's.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.live import Live

from benchmarks.figures import DATA, machine, write
from learners.report import progress
from learners.run import trackers, training
from learners.run.config import RunConfig, arm_config, changed, load_run, load_suite
from learners.run.directory import WARM_STARTS
from learners.run.lines import JsonLines, read_lines
from learners.run.recording import Recorder
from learners.run.shipped import shipped

RECORDS = ((Recorder, "noticed"), (JsonLines, "append_finite"), (training, "evaluation_line"))
TELLS = (
    (progress.RunProgress, "measured"),
    (progress.RunProgress, "entered"),
    (Live, "refresh"),  # by a thread of its own
    (trackers._Dispensable, "_tell"),
)


@dataclass(frozen=True, slots=True)
class Way:
    """A run, with or without all that is measured."""

    config: RunConfig
    silent: bool = False
    terminal: bool = False


class Silent(Recorder):
    """Records nothing."""

    def noticed(self, *_: Any) -> None:
        pass

    def take(self, policy: str, round: int) -> None:
        return None


@contextmanager
def replaced(owner: Any, name: str, by: Any) -> Iterator[None]:
    kept = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def timed(call: Callable[..., Any], kind: str, spent: Counter[str]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapped(*args: Any, **options: Any) -> Any:
        began = time.thread_time()
        try:
            return call(*args, **options)
        finally:
            spent[kind] += time.thread_time() - began  # type: ignore[assignment]

    return wrapped


def run(way: Way) -> tuple[Any, dict[str, float]]:
    """Processor seconds of each round, and the shares of all processor seconds."""
    spent: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as output, ExitStack() as stack:
        here = changed(way.config, [f"output={output}"])
        if way.silent:
            stack.enter_context(replaced(training, "Recorder", Silent))
        for kind, calls in (("recording", RECORDS), ("telling", TELLS)):
            for owner, name in calls:
                stack.enter_context(replaced(owner, name, timed(getattr(owner, name), kind, spent)))
        console = Console(file=io.StringIO(), force_terminal=way.terminal, width=100)
        began = time.process_time()
        with progress.RunProgress(here, quiet=way.silent, console=console) as shown:
            directory = training.train(here, listeners=[] if way.silent else [shown]).directory
        whole = time.process_time() - began
        rounds = [line["processor"] for line in read_lines(directory / "timings.jsonl") if line["type"] == "round"]
    return np.array(rounds), {kind: seconds / whole for kind, seconds in spent.items()}


def compared(config: RunConfig, ways: Mapping[str, Way], repeats: int) -> dict[str, Any]:
    """Each way's shares, the median over repeats; its rounds, as times of the same rounds without any of it."""
    every = {"without": Way(config, silent=True), **ways}
    least: dict[str, Any] = {}
    shares: dict[str, list[float]] = {}
    for repeat in range(repeats):
        for name in list(every) if repeat % 2 else list(reversed(every)):
            rounds, of = run(every[name])
            least[name] = np.minimum(least.get(name, rounds), rounds)
            if name in ways:
                shares.setdefault(name, []).append(sum(of.values()))
    without = least["without"]
    return {
        "milliseconds_a_round": float(without.mean() * 1e3),
        "rounds": len(without),
        "repeats": repeats,
        "share": {name: float(np.median(found)) for name, found in shares.items()},
        "times_without": {name: float(least[name].sum() / without.sum()) for name in ways},
    }


def arithmetic(rounds: int) -> RunConfig:
    return load_run(shipped()["arithmetic"], [f"rounds={rounds}"])


def quickstart(rounds: int) -> RunConfig:
    return arm_config(load_suite(shipped()["quickstart"], [f"base.rounds={rounds}"]), "sgt", 0)


def told(config: RunConfig) -> dict[str, Way]:
    return {"log": Way(config), "terminal": Way(config, terminal=True)}


def tracked(config: RunConfig, names: Sequence[str]) -> dict[str, Way]:
    return {name: Way(changed(config, [f"trackers=[{name}]"])) for name in names}


@pytest.mark.parametrize("recorded", [False, True], ids=["silent", "recorded"])
def test_ten_rounds(benchmark: Any, recorded: bool) -> None:
    benchmark.pedantic(run, (Way(arithmetic(10), silent=not recorded),), rounds=3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trackers", nargs="+", default=[])
    args = parser.parse_args()
    path = DATA / "recording.json"
    figures = json.loads(path.read_text()) if path.is_file() else {}
    if args.trackers:
        plain = arithmetic(40)
        figures["trackers"] = compared(plain, tracked(plain, args.trackers), args.repeats)
    else:
        with tempfile.TemporaryDirectory() as kept:
            os.environ[WARM_STARTS] = kept
            for config in (arithmetic(100), quickstart(40)):
                figures[config.name.split("/")[0]] = compared(config, told(config), args.repeats)
        figures["machine"] = machine()
    write("recording", figures)


if __name__ == "__main__":
    main()
