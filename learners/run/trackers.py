"""Who is told how a run goes: the progress bar, a tracker of experiments, a program's own listener.

The run's own record is not one of them: metrics.jsonl is written first, whoever listens.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mutual_env.catalogue import Catalogue
from mutual_env.errors import MissingExtraError
from mutual_env.types import Metrics


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is told at the start. `done` rounds were done before: what it heard of later ones comes again."""

    name: str
    directory: Path
    config: Mapping[str, Any]
    policies: tuple[str, ...]
    rounds: int
    done: int


class Tracker(Protocol):
    """Each policy has an axis of its own: its rounds. It is told more where it has the methods of `Watches` (phases) or
    `Reads` (what was written)."""

    def started(self, run: TrackedRun) -> None:
        """Before the first round."""

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        """After each round and after each evaluation (whose names begin with "eval/"), with the number of rounds done.
        `metrics` maps a policy to its values."""

    def finished(self, status: str) -> None:
        """At the end, also of a run that was stopped or has failed."""


@runtime_checkable
class Watches(Protocol):
    """A tracker that is told of phases too."""

    def entered(self, phase: str) -> None:
        """Sampling, verifying, scoring, updating, evaluating or saving begins, in whichever thread it happens."""


@runtime_checkable
class Reads(Protocol):
    """A tracker that is told what was written too."""

    def wrote(self, done: int, policy: str, samples: Mapping[str, Any]) -> None:
        """After a policy's round, what samples.jsonl keeps of it: already bounded, prompts with borrowed lessons first
        where not all are kept."""


TrackerFactory = Callable[[], Tracker]

_OWN = {
    "tensorboard": "learners.run.tracking.to_tensorboard:TensorBoard",
    "wandb": "learners.run.tracking.to_wandb:WeightsAndBiases",
    "mlflow": "learners.run.tracking.to_mlflow:MLflow",
    "trackio": "learners.run.tracking.to_trackio:Trackio",
}
"""Each needs the package and the extra of its own name."""

_CATALOGUE: Catalogue[TrackerFactory] = Catalogue("tracker", "mutual_env.trackers", _OWN)


def register(name: str, target: str | TrackerFactory) -> None:
    """Make `trackers: [name]` of a configuration call `target`, without arguments, for a tracker."""
    _CATALOGUE.register(name, target)


def names() -> list[str]:
    """Every name that a configuration can give."""
    return _CATALOGUE.names()


def target(name: str) -> str | TrackerFactory:
    """What a name stands for, not yet imported."""
    return _CATALOGUE.target(name)


def check(trackers: Iterable[str]) -> None:
    """Raise on a name that is not known, naming the nearest that is, and on one whose package is not installed."""
    for name in trackers:
        _CATALOGUE.target(name)
        if name in _OWN and importlib.util.find_spec(name) is None:
            raise MissingExtraError.of(f"tracker {name!r}", name)


def make(name: str) -> Tracker:
    """The tracker of this name. The run goes on without it when it fails: it is not what the run is for."""
    return _Dispensable(name, _CATALOGUE.load(name)())


class Trackers:
    """Several as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)
        self._told: list[Tracker] = []
        self._watching: list[Watches] = []  # of those who are told: what has which methods is slow to find out
        self._reading: list[Reads] = []

    def started(self, run: TrackedRun) -> None:
        for tracker in self._trackers:
            self._told.append(tracker)
            self._watching += [tracker] if isinstance(tracker, Watches) else []
            self._reading += [tracker] if isinstance(tracker, Reads) else []
            tracker.started(run)

    def entered(self, phase: str) -> None:
        for tracker in self._watching:
            tracker.entered(phase)

    def wrote(self, done: int, policy: str, samples: Mapping[str, Any]) -> None:
        for tracker in self._reading:
            tracker.wrote(done, policy, samples)

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        for tracker in self._told:
            tracker.measured(done, metrics)

    def finished(self, status: str) -> None:
        for tracker in self._told:
            tracker.finished(status)


class _Dispensable:
    """A tracker that is told nothing more once it has failed."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._watches, self._reads = isinstance(tracker, Watches), isinstance(tracker, Reads)
        self._failed = False

    def started(self, run: TrackedRun) -> None:
        self._tell("started", run)

    def entered(self, phase: str) -> None:
        if self._watches:
            self._tell("entered", phase)

    def wrote(self, done: int, policy: str, samples: Mapping[str, Any]) -> None:
        if self._reads:
            self._tell("wrote", done, policy, samples)

    def measured(self, done: int, metrics: Mapping[str, Metrics]) -> None:
        self._tell("measured", done, metrics)

    def finished(self, status: str) -> None:
        self._tell("finished", status)

    def _tell(self, what: str, *arguments: Any) -> None:
        if self._failed:
            return
        try:
            getattr(self._tracker, what)(*arguments)
        except Exception as error:  # a boundary: another package's network, disk or bug must not end a run of days
            self._failed = True
            warnings.warn(
                f"tracker {self._name!r} failed when the run {what} and is told nothing more: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )
