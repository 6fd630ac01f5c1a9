"""Reading runs back: curves over rounds, totals, and a suite's comparison with its spread."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learners.resources import Span
from learners.run import lines
from learners.run.config import SuiteConfig
from learners.run.directory import RunDirectory
from learners.run.lines import check_fields, read_lines
from mutual_env.errors import StorageError

Curve = tuple[tuple[int, float], ...]
"""(round, value) points in order."""


_INFO = {"name": str, "seed": int, "status": str, "versions": Mapping[str, Any]}


@dataclass(frozen=True, slots=True)
class RunResults:
    """One run as it stands on disk, also while it goes on. `processor`: the seconds that each round took of one, in the
    run's own process."""

    path: Path
    info: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Curve]]
    evaluations: Mapping[str, Mapping[str, Curve]]
    seconds: float
    processor: Curve = ()

    @property
    def finished(self) -> bool:
        return self.info.get("status") == "finished"

    @property
    def rounds(self) -> int:
        return max((curve[-1][0] + 1 for of in self.metrics.values() for curve in of.values() if curve), default=0)

    def total(self, policy: str, metric: str) -> float:
        """The sum of a metric over all rounds."""
        return math.fsum(value for _, value in self.metrics.get(policy, {}).get(metric, ()))


def read_run(path: Path) -> RunResults:
    """`metrics` and `evaluations` map policy -> metric -> curve."""
    directory = RunDirectory.open(path)
    metrics: dict[str, dict[str, list[tuple[int, float]]]] = {}
    evaluations: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in read_lines(directory.metrics, lines.metrics):
        into, values = (evaluations, line["evaluation"]) if "evaluation" in line else (metrics, line["metrics"])
        of_policy = into.setdefault(line["policy"], {})
        for key, value in values.items():
            if value is not None:
                of_policy.setdefault(key, []).append((line["round"], value))
    rounds = [line for line in read_lines(directory.timings, lines.timings) if line["type"] == "round"]
    seconds = math.fsum(line["seconds"] for line in rounds)
    processor = tuple((line["round"], line["processor"]) for line in rounds if "processor" in line)
    info = directory.read_info()
    check_fields(info, _INFO, str(directory.info))
    run = RunResults(path, info, _frozen(metrics), _frozen(evaluations), seconds, processor)
    _check_whole(run, directory.metrics)
    return run


def _check_whole(run: RunResults, file: Path) -> None:
    """What a finished run has written is all there: of a file that was cut, the rest would pass for the run."""
    config = run.info.get("config")
    if not run.finished or not isinstance(config, Mapping):
        return
    if run.rounds < config.get("rounds", 0):
        end = f"after round {run.rounds} of {config['rounds']}"
    elif not lines.ends_whole(file):
        end = "in the midst of a line"
    elif config.get("evaluation", {}).get("every") and not run.evaluations:
        end = "without the evaluations that it had"
    else:
        return
    raise StorageError(f"{file} was damaged, it ends {end}: {lines.REMEDY}")


def read_spans(path: Path) -> list[Span]:
    """Every lease of a run, in the order in which they ended."""
    names = [field.name for field in dataclasses.fields(Span)]
    leases = (line for line in read_lines(RunDirectory.open(path).timings, lines.timings) if line["type"] == "span")
    return [Span(**{name: line[name] for name in names if name in line}) for line in leases]


def _frozen(curves: Mapping[str, Mapping[str, list[tuple[int, float]]]]) -> dict[str, dict[str, Curve]]:
    return {policy: {key: tuple(points) for key, points in of.items()} for policy, of in curves.items()}


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds and how far the seeds lie apart."""

    mean: float
    deviation: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        numbers = tuple(values)
        if not numbers:
            return cls(math.nan, math.nan, ())
        return cls(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else 0.0, numbers)

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.deviation:.2f}" if len(self.values) > 1 else f"{self.mean:.2f}"


@dataclass(frozen=True, slots=True)
class SuiteResults:
    """Every arm's runs, in the order of the seeds, as far as they have begun. `failures`: why some were not done."""

    config: SuiteConfig
    runs: Mapping[str, tuple[RunResults, ...]]
    failures: tuple[str, ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        return tuple(self.config.base.policies)

    @property
    def seeds(self) -> str:
        """How many of the suite's seeds its values are of: "5 seeds", "2 of 5 seeds", "2 to 4 of 5 seeds"."""
        all_of_them = len(self.config.seeds)
        counts = {len(runs) for runs in self.runs.values()} or {0}
        begun = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(min(counts))
        of = f"{all_of_them} seed{'' if all_of_them == 1 else 's'}"
        return of if counts == {all_of_them} else f"{begun} of {of}"

    def measures(self) -> list[str]:
        """The evaluation metrics that the runs hold: the overall accuracy first, then its parts."""
        keys = {key for runs in self.runs.values() for run in runs for of in run.evaluations.values() for key in of}
        return sorted(keys)

    def before(self, policy: str, measure: str) -> Spread:
        """Where everybody starts: the first arm's evaluation before any update."""
        first = next(iter(self.runs.values()))
        return Spread.of(curve[0][1] for curve in self._curves(first, policy, measure))

    def after(self, arm: str, policy: str, measure: str) -> Spread:
        return Spread.of(curve[-1][1] for curve in self._curves(self.runs[arm], policy, measure))

    def total(self, arm: str, policy: str, metric: str) -> Spread:
        return Spread.of(run.total(policy, metric) for run in self.runs[arm])

    def seconds(self, arm: str) -> Spread:
        return Spread.of(run.seconds for run in self.runs[arm])

    def mean_curve(self, arm: str, policy: str, measure: str) -> list[tuple[int, Spread]]:
        """The spread over seeds at each round that every seed has reached."""
        curves = self._curves(self.runs[arm], policy, measure)
        return [(points[0][0], Spread.of(v for _, v in points)) for points in zip(*curves, strict=False)]

    @staticmethod
    def _curves(runs: Iterable[RunResults], policy: str, measure: str) -> list[Curve]:
        curves = (run.evaluations.get(policy, {}).get(measure, ()) for run in runs)
        return [curve for curve in curves if curve]

    def as_json(self) -> str:
        """The comparison as data: what the table and the report are drawn from."""
        rows = [
            {
                "policy": policy,
                "measure": measure,
                "before": self.before(policy, measure).values,
                "after": {arm: self.after(arm, policy, measure).values for arm in self.runs},
            }
            for policy in self.policies
            for measure in self.measures()
        ]
        totals = {
            metric: {arm: {p: self.total(arm, p, metric).values for p in self.policies} for arm in self.runs}
            for metric in self.config.totals
        }
        seconds = {arm: self.seconds(arm).values for arm in self.runs}
        return json.dumps(
            {"rows": rows, "totals": totals, "seconds": seconds, "seeds": list(self.config.seeds)}, indent=1
        )


def run_path(suite: SuiteConfig, arm: str, seed: int) -> Path:
    return Path(suite.output) / suite.name / arm / f"seed_{seed}"


def read_suite(config: SuiteConfig, failures: Sequence[str] = ()) -> SuiteResults:
    paths = {arm: [run_path(config, arm, seed) for seed in config.seeds] for arm in config.arms}
    begun = {arm: [path for path in of if RunDirectory(path).info.is_file()] for arm, of in paths.items()}
    begun = {arm: of for arm, of in begun.items() if of} or begun
    return SuiteResults(config, {arm: tuple(map(read_run, of)) for arm, of in begun.items()}, tuple(failures))
