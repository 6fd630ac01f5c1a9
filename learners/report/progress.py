"""Live progress: a bar where a person watches, a line now and then where a log does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from learners.run.config import RunConfig, SuiteConfig
from learners.run.suite import Progress as RunState
from learners.run.trackers import TrackedRun
from mutual_env.metrics import ACCURACY, HELD_OUT, REWARD
from mutual_env.types import Metrics

_SHOWN = {REWARD: "reward", f"{HELD_OUT}{ACCURACY}": "eval"}  # of each policy, beside the bar
_LINES = 10  # how many rounds of a run a log tells of


class RunProgress:
    """A tracker for the person who waits: phase, pace, time left in a terminal; whole lines with a clock in a log."""

    def __init__(self, config: RunConfig, *, quiet: bool, console: Console | None = None) -> None:
        self._samples = config.env.prompts_per_round * config.env.group_size
        self._rounds = config.rounds
        self._quiet = quiet
        self._console = console or Console()
        self._live = _bars(self._console, enabled=not quiet)
        self._latest: dict[str, dict[str, float]] = {}
        self._phase = "building"
        self._pace = ""
        self._began = self._last = time.monotonic()
        self._first = 0
        self._task = self._live.add_task(config.name, total=config.rounds, note="building")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def started(self, run: TrackedRun) -> None:
        self._began = self._last = time.monotonic()
        self._first = run.done
        self._live.update(self._task, completed=run.done)

    def entered(self, phase: str) -> None:
        self._phase = phase
        self._live.update(self._task, note=self._note())

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        for policy, values in metrics.items():
            self._latest.setdefault(policy, {}).update({k: v for k, v in values.items() if k in _SHOWN})
        evaluated = any(key.startswith(HELD_OUT) for values in metrics.values() for key in values)
        if not evaluated:
            now = time.monotonic()
            tokens = sum(values.get("length/tokens", 0.0) for values in metrics.values()) * self._samples
            self._pace = f"{tokens / max(now - self._last, 1e-9):,.0f} tokens/s" if tokens else ""
            self._last = now
        self._live.update(self._task, completed=done, note=self._note())
        if evaluated or done % max(1, self._rounds // _LINES) == 0:
            self._line(done, evaluated=evaluated)

    def finished(self, status: str) -> None:
        self._phase = status

    def _line(self, done: int, *, evaluated: bool) -> None:
        """One whole line, however narrow the log: nothing is cut or wrapped."""
        if self._quiet or self._console.is_terminal:
            return
        shown = f"{HELD_OUT}{ACCURACY}" if evaluated else REWARD
        values = "  ".join(f"{policy} {of[shown]:.3f}" for policy, of in self._latest.items() if shown in of)
        what = "evaluated" if evaluated else "reward"
        parts = [time.strftime("%H:%M:%S"), f"round {done}/{self._rounds}", f"{what} {values}"]
        parts += [] if evaluated else [self._pace, self._left(done)]
        self._console.print("  ".join(part for part in parts if part), highlight=False, soft_wrap=True)

    def _left(self, done: int) -> str:
        spent = time.monotonic() - self._began
        done_here = done - self._first
        left = spent / done_here * (self._rounds - done) if done_here > 0 else 0.0
        return f"{timedelta(seconds=round(left))} left" if left else ""

    def _note(self) -> str:
        values = "  ".join(
            f"{policy} " + " ".join(f"{_SHOWN[key]} {value:.2f}" for key, value in sorted(shown.items()))
            for policy, shown in self._latest.items()
        )
        return "  ".join(part for part in (self._phase, self._pace, values) if part)


class SuiteProgress:
    """Called by a suite a few times a second."""

    def __init__(self, config: SuiteConfig, *, quiet: bool) -> None:
        self._config = config
        self._quiet = quiet
        self._console = Console()
        self._live = _bars(self._console, enabled=not quiet)
        self._tasks: dict[tuple[str, int], TaskID] = {}
        self._announced: set[tuple[str, int]] = set()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def __call__(self, runs: Sequence[RunState]) -> None:
        for run in runs:
            key = (run.arm, run.seed)
            label = f"{run.arm}, seed {run.seed}"
            if key not in self._tasks:
                self._tasks[key] = self._live.add_task(label, total=self._config.base.rounds, note=run.state)
            self._live.update(self._tasks[key], completed=run.rounds, note=run.state)
            if run.state == "finished" and key not in self._announced:
                self._announced.add(key)
                if not self._quiet and not self._console.is_terminal:
                    self._console.print(f"{label}: {run.rounds} rounds done", highlight=False)


def _bars(console: Console, *, enabled: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not enabled or not console.is_terminal,
    )
