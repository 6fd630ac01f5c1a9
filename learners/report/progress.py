"""Live progress: a bar where a person watches, a line now and then where a log does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from learners.run.config import RunConfig, SuiteConfig
from learners.run.suite import Progress as RunState
from learners.run.trackers import TrackedRun
from mutual_env.metrics import ACCURACY, HELD_OUT, REWARD
from mutual_env.types import Metrics

_SHOWN = (REWARD, f"{HELD_OUT}{ACCURACY}")  # of each policy, beside the bar
_LINES = 10  # how many lines a log gets


class RunProgress:
    """A tracker for the person who waits."""

    def __init__(self, config: RunConfig, *, quiet: bool) -> None:
        self._rounds = config.rounds
        self._live = _bars(Console(), enabled=not quiet)
        self._quiet = quiet
        self._console = Console()
        self._latest: dict[str, dict[str, float]] = {}
        self._task = self._live.add_task(config.name, total=config.rounds, note="building")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def started(self, run: TrackedRun) -> None:
        self._live.update(self._task, completed=run.done)

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        for policy, values in metrics.items():
            self._latest.setdefault(policy, {}).update({k: v for k, v in values.items() if k in _SHOWN})
        note = "  ".join(
            f"{policy} " + " ".join(f"{key.split('/')[0]} {value:.2f}" for key, value in sorted(shown.items()))
            for policy, shown in self._latest.items()
        )
        self._live.update(self._task, completed=done, note=note)
        if not self._quiet and not self._console.is_terminal and done % max(1, self._rounds // _LINES) == 0:
            self._console.print(f"round {done}/{self._rounds}  {note}", highlight=False)

    def finished(self, status: str) -> None:
        pass


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
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not enabled or not console.is_terminal,
    )
