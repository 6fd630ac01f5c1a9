"""Live progress: bars and figures where a person watches, whole lines with a clock where a log does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from learners.run.config import RunConfig, SuiteConfig
from learners.run.suite import Progress as RunState
from learners.run.trackers import TrackedRun
from mutual_env.metrics import ACCURACY, HELD_OUT, REWARD
from mutual_env.types import Metrics

_SHOWN = {REWARD: "reward", f"{HELD_OUT}{ACCURACY}": "eval"}  # of each policy, below the bar
_LINES = 10  # how many rounds of a run a log tells of
_A_SECOND = 2  # how often a terminal may be drawn anew: each time costs two or three milliseconds of a processor
_SHARE = 0.002  # of what the process computes that is spent on it
_LONGEST_STILL = 10.0  # seconds; of a suite, whose runs compute in other processes, 1


class _Sparing(Live):
    """Drawn anew as often as its share of the processor's time allows, and in any case after `still` seconds."""

    def __init__(self, console: Console, still: float, get_renderable: Callable[[], RenderableType]) -> None:
        super().__init__(console=console, refresh_per_second=_A_SECOND, get_renderable=get_renderable)
        self._still = still
        self._next = self._last = 0.0

    def refresh(self) -> None:
        now = time.monotonic()
        if self.is_started and time.process_time() < self._next and now - self._last < self._still:
            return
        began = time.thread_time()
        super().refresh()
        self._last, self._next = now, time.process_time() + (time.thread_time() - began) / _SHARE


class _Screen(Progress):
    """Bars, and below them what `below` gives, as far as the terminal is high."""

    def __init__(
        self,
        console: Console,
        below: Callable[[], Iterable[RenderableType]],
        *,
        enabled: bool,
        still: float = _LONGEST_STILL,
    ) -> None:
        self._below = below
        name = Column(no_wrap=True, overflow="ellipsis", max_width=max(8, console.width // 3))
        super().__init__(
            TextColumn("{task.description}", table_column=name),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
            console=console,
            disable=not enabled or not console.is_terminal,
            expand=True,
        )
        self.live = _Sparing(console, still, self.get_renderable)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield from self._below()


class _Clock:
    """Time left, from the rounds done here so far; it runs on between two rounds, however long one takes."""

    def __init__(self, total: int) -> None:
        self._total = total
        self.begin(0)

    def begin(self, done: int) -> None:
        self._began = self._last = time.monotonic()
        self._first = self._done = done

    def reached(self, done: int) -> float:
        """Seconds since the last time that there was something new."""
        now = time.monotonic()
        self._done, passed, self._last = done, now - self._last, now
        return passed

    def left(self) -> str:
        done_here = self._done - self._first
        if done_here <= 0 or self._done >= self._total:
            return ""
        expected = (self._last - self._began) / done_here * (self._total - self._done)
        return f"{timedelta(seconds=round(max(0.0, expected - (time.monotonic() - self._last))))} left"


class RunProgress:
    """A tracker for the person who waits."""

    def __init__(self, config: RunConfig, *, quiet: bool, console: Console | None = None) -> None:
        self._samples = config.env.prompts_per_round * config.env.group_size
        self._rounds = config.rounds
        self._quiet = quiet
        self._console = console or Console()
        self._latest: dict[str, dict[str, float]] = {}
        self._phase = "building"
        self._pace = ""
        self._clock = _Clock(config.rounds)
        self._live = _Screen(self._console, self._below, enabled=not quiet)
        self._task = self._live.add_task(config.name, total=config.rounds, note="")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def started(self, run: TrackedRun) -> None:
        self._clock.begin(run.done)
        self._live.update(self._task, completed=run.done)

    def entered(self, phase: str) -> None:
        self._phase = phase

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        for policy, values in metrics.items():
            self._latest.setdefault(policy, {}).update({k: v for k, v in values.items() if k in _SHOWN})
        evaluated = any(next(iter(values), "").startswith(HELD_OUT) for values in metrics.values())
        if not evaluated:
            tokens = sum(values.get("length/tokens", 0.0) for values in metrics.values()) * self._samples
            passed = self._clock.reached(done)
            self._pace = per_second(tokens / max(passed, 1e-9)) if tokens else ""
        self._live.update(self._task, completed=done)
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
        parts = [f"round {done}/{self._rounds}", f"{what} {values}"]
        _print(self._console, *parts, *([] if evaluated else [self._pace, self._clock.left()]))

    def _below(self) -> Iterable[RenderableType]:
        said = "  ".join(part for part in (self._phase, self._pace, self._clock.left()) if part)
        yield Text(said, no_wrap=True, overflow="ellipsis")
        if self._latest:
            yield _policies(self._latest, most=max(1, self._console.height - 5))


def _policies(latest: Mapping[str, Mapping[str, float]], most: int) -> RenderableType:
    """A row a policy, as many as there is room for."""
    shown = [key for key in _SHOWN if any(key in of for of in latest.values())]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("policy", no_wrap=True, overflow="ellipsis")
    for key in shown:
        table.add_column(_SHOWN[key], justify="right", no_wrap=True, min_width=len(_SHOWN[key]))
    for policy, of in list(latest.items())[:most]:
        table.add_row(policy, *(f"{of[key]:.3f}" if key in of else "" for key in shown))
    if len(latest) > most:
        table.add_row(f"and {len(latest) - most} more", *("" for _ in shown))
    return table


class SuiteProgress:
    """Called by a suite a few times a second. A terminal has a bar for all rounds and one for each run that goes on; a
    log has a line for each run that begins, ends or fails."""

    def __init__(self, config: SuiteConfig, *, quiet: bool, console: Console | None = None) -> None:
        self._config = config
        self._quiet = quiet
        self._console = console or Console()
        self._runs: Sequence[RunState] = ()
        self._live = _Screen(self._console, self._below, enabled=not quiet, still=1.0)
        self._told: dict[tuple[str, int], str] = {}
        self._all = self._live.add_task(config.name, total=None, note="")
        self._tasks: dict[tuple[str, int], TaskID] = {}
        self._clock: _Clock | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def __call__(self, runs: Sequence[RunState]) -> None:
        self._runs = runs
        done, total = (sum(getattr(run, of) for run in runs) for of in ("rounds", "total"))
        if self._clock is None:
            self._clock = _Clock(total)
            self._clock.begin(done)
        self._clock.reached(done)
        self._live.update(self._all, completed=done, total=total, note=self._clock.left())
        for run in runs:
            self._show(run)
            self._tell(run)

    def _show(self, run: RunState) -> None:
        key = (run.arm, run.seed)
        going_on = run.state in ("starting", "running")
        room = len(self._tasks) < self._console.height - 3
        if going_on and key not in self._tasks and room:
            self._tasks[key] = self._live.add_task(_name(run), total=run.total, note="")
        elif not going_on and key in self._tasks:
            self._live.remove_task(self._tasks.pop(key))
        if key in self._tasks:
            note = per_second(run.pace) if run.pace else run.state
            self._live.update(self._tasks[key], completed=run.rounds, note=note)

    def _tell(self, run: RunState) -> None:
        key = (run.arm, run.seed)
        if self._quiet or self._console.is_terminal or self._told.get(key) == run.state:
            return
        before, self._told[key] = self._told.get(key), run.state
        if run.state == "finished" and before is None:
            _print(self._console, _name(run), "was finished before")
        elif run.state in ("starting", "finished", "failed"):
            of = f"{sum(other.state == 'finished' for other in self._runs)} of {len(self._runs)} runs finished"
            left = self._clock.left() if self._clock and run.state == "finished" else ""
            _print(self._console, _name(run), run.state, f"{run.rounds} rounds, {of}", left)

    def _below(self) -> Iterable[RenderableType]:
        states = [run.state for run in self._runs]
        counts = {state: states.count(state) for state in ("finished", "starting", "running", "waiting", "failed")}
        yield Text(", ".join(f"{n} {state}" for state, n in counts.items() if n), no_wrap=True, overflow="ellipsis")


def per_second(tokens: float) -> str:
    """Of a large model on a CPU there are fewer than one."""
    return f"{tokens:,.{0 if tokens >= 10 else 2}f} tokens/s"


def _name(run: RunState) -> str:
    """The seed first: a long name is cut at its end."""
    return f"seed {run.seed}, {run.arm}"


def _print(console: Console, *parts: str) -> None:
    """Where no terminal is there is nothing to lay out, and to be asked for it took a console half a millisecond."""
    print("  ".join(part for part in (time.strftime("%H:%M:%S"), *parts) if part), file=console.file, flush=True)
