"""What a run pays for being readable: samples, lessons and evaluations kept, a person or a log told, trackers told.

    python -m benchmarks.recording [--repeats 5]                    writes docs/figures/data/recording.json
    python -m benchmarks.recording --trackers tensorboard wandb ... adds those, in an environment that has them

The same run, of one seed, is made without any of it and with, in turn; rounds do the same work, so each round's least
processor time over the repeats is compared with that of the same round without, whatever else the machine does. A
round's figure includes writing its lines. `arithmetic` is the cheapest round there is, of tables; `quickstart` the
quickstart's.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.figures import DATA, machine, write
from learners.report.progress import RunProgress
from learners.run import training
from learners.run.config import RunConfig, arm_config, changed, load_run, load_suite
from learners.run.directory import WARM_STARTS
from learners.run.lines import read_lines
from learners.run.recording import Recorder
from learners.run.shipped import shipped

Listening = Callable[[RunConfig, ExitStack], list[Any]]


class Silent(Recorder):
    """Records nothing."""

    def noticed(self, *_: Any) -> None:
        pass

    def take(self, policy: str, round: int) -> None:
        return None


def told(terminal: bool) -> Listening:
    """A log, or a terminal whose other end nobody reads."""

    def listeners(config: RunConfig, stack: ExitStack) -> list[Any]:
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        return [stack.enter_context(RunProgress(config, quiet=False, console=console))]

    return listeners


def rounds_of(config: RunConfig, listening: Listening | None) -> list[float]:
    """Processor seconds of each round."""
    with tempfile.TemporaryDirectory() as output, ExitStack() as stack:
        here = changed(config, [f"output={output}"])
        with recorder(Recorder if listening is not None else Silent):
            result = training.train(here, listeners=[] if listening is None else listening(here, stack))
        lines = read_lines(result.directory / "timings.jsonl")
        return [line["processor"] for line in lines if line["type"] == "round"]


@contextmanager
def recorder(kind: type[Recorder]) -> Iterator[None]:
    kept, training.Recorder = training.Recorder, kind
    try:
        yield
    finally:
        training.Recorder = kept


def compared(config: RunConfig, ways: dict[str, tuple[RunConfig, Listening]], repeats: int) -> dict[str, Any]:
    """Each way's rounds, as times of the same rounds without any of it."""
    least: dict[str, Any] = {}
    for repeat in range(repeats):
        order = ["without", *ways] if repeat % 2 else [*reversed(ways), "without"]
        for way in order:
            its_config, listening = ways.get(way, (config, None))
            rounds = np.array(rounds_of(its_config, listening))
            least[way] = rounds if way not in least else np.minimum(least[way], rounds)
    without = least.pop("without")
    times = {way: float(rounds.sum() / without.sum()) for way, rounds in least.items()}
    return {
        "milliseconds_a_round": float(without.mean() * 1e3),
        "rounds": len(without),
        "repeats": repeats,
        **{f"times_without/{way}": value for way, value in times.items()},
    }


def arithmetic(rounds: int) -> RunConfig:
    return load_run(shipped()["arithmetic"], [f"rounds={rounds}", "evaluation.every=0", "checkpoint.every=0"])


def quickstart(rounds: int) -> RunConfig:
    suite = load_suite(shipped()["quickstart"], [f"base.rounds={rounds}", "base.evaluation.every=0"])
    return arm_config(suite, "sgt", 0)


def everything(config: RunConfig) -> dict[str, tuple[RunConfig, Listening]]:
    return {"recorded, a log": (config, told(terminal=False)), "recorded, a terminal": (config, told(terminal=True))}


def tracked(config: RunConfig, trackers: Sequence[str]) -> dict[str, tuple[RunConfig, Listening]]:
    return {name: (changed(config, [f"trackers=[{name}]"]), told(terminal=False)) for name in trackers}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
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
            figures |= {
                name: compared(config, everything(config), args.repeats)
                for name, config in (("arithmetic", arithmetic(60)), ("quickstart", quickstart(12)))
            }
        figures["machine"] = machine()
    write("recording", figures)


if __name__ == "__main__":
    main()
