"""One number for each arm, policy and pair unit: a seed where runs are compared, a task where evaluations are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias

from learners.evaluation import outcomes
from learners.run.config import load_suite
from learners.run.directory import RunDirectory, nearest
from learners.run.results import RunResults, read_run, run_path
from mutual_env.errors import ConfigError, InvalidInputError, WrongPathError

Unit: TypeAlias = Literal["seed", "task"]
Key: TypeAlias = tuple[str, str, str]
"""arm, policy, measure"""
THE_MODEL = "model"


@dataclass(frozen=True, slots=True)
class Scores:
    """`values[arm, policy, measure][unit]`. `rounds`: after how many rounds runs are compared; None: evaluations."""

    unit: Unit
    arms: tuple[str, ...]
    values: Mapping[Key, Mapping[str, float]]
    rounds: int | None = None

    @property
    def measures(self) -> list[str]:
        return sorted({measure for _, _, measure in self.values})

    @property
    def policies(self) -> list[str]:
        return list(dict.fromkeys(policy for _, policy, _ in self.values))

    def held(self, arm: str) -> str:
        """What there is of an arm, for a sentence."""
        mine = {policy: of for (own, policy, _), of in self.values.items() if own == arm}
        units = sorted({unit for of in mine.values() for unit in of})
        many = f"{self.unit}s {', '.join(units[:5])}{' ...' if len(units) > 5 else ''}"
        return f"{arm} has {', '.join(mine)} and {many}"


def gather(paths: Sequence[Path], *, at: int | None = None) -> Scores:
    """What these hold: suites (their arms), runs and folders of runs of different seeds (an arm each); or evaluations
    (an arm each). `at`: after how many rounds; default, the last evaluation that all runs have reached."""
    if any(outcomes.is_kept(path) for path in paths):
        return _of_evaluations(paths)
    arms: dict[str, list[RunResults]] = {}
    for path in paths:
        for arm, runs in _arms(path):
            if arm in arms:
                raise ConfigError(f"{path}: there is another arm {arm!r}: name each folder of runs differently")
            arms[arm] = runs
    return _of_runs(arms, at)


def _of_evaluations(paths: Sequence[Path]) -> Scores:
    values: dict[Key, dict[str, float]] = {}
    arms = _names(paths)
    found = dict(zip(arms, map(outcomes.read, paths), strict=True))
    # Model directories are evaluated under their own names: where each is of one model, these are what is compared.
    alone = all(len(of) == 1 for of in found.values()) and len({*chain.from_iterable(found.values())}) > 1
    for arm, policies in found.items():
        for policy, answered in policies.items():
            values[arm, THE_MODEL if alone else policy, "accuracy"] = {
                item.task: sum(s.correct for s in item.samples) / len(item.samples) for item in answered if item.samples
            }
    return Scores("task", tuple(arms), values)


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [path.resolve().parts for path in paths]
    if len({*parts}) < len(parts):
        raise ConfigError("the same evaluation is named twice: give different ones")
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len({*names}) == len(names):
            return names
    return ["/".join(part) for part in parts]


def _arms(path: Path) -> Iterator[tuple[str, list[RunResults]]]:
    if (path / "suite.yaml").is_file():
        suite = load_suite(path / "suite.yaml")
        for arm in suite.arms:
            members = [path / arm / run_path(suite, arm, seed).name for seed in suite.seeds]
            yield arm, [read_run(member) for member in members if RunDirectory(member).info.is_file()]
    elif RunDirectory(path).info.is_file():
        yield path.name, [read_run(path)]
    else:
        members = [child for child in sorted(path.glob("*")) if RunDirectory(child).info.is_file()]
        if not members:
            raise WrongPathError(f"{path} holds no suite, no run, no runs in folders, and no evaluation{nearest(path)}")
        yield path.name, [read_run(member) for member in members]


def _of_runs(arms: Mapping[str, Sequence[RunResults]], at: int | None) -> Scores:
    reached = {str(run.path): _evaluated(run) for runs in arms.values() for run in runs}
    if not reached:
        raise InvalidInputError("no run has begun: there is nothing to compare")
    rounds = _last_of_all(reached) if at is None else at
    values: dict[Key, dict[str, float]] = defaultdict(dict)
    for arm, runs in arms.items():
        for seed, run in _by_seed(arm, runs).items():
            for policy, curves in run.evaluations.items():
                for measure, curve in curves.items():
                    if rounds in dict(curve):
                        values[arm, policy, measure][seed] = dict(curve)[rounds]
    if not values:
        raise InvalidInputError(f"no run was evaluated after {rounds} rounds: choose another --at")
    return Scores("seed", tuple(arms), values, rounds)


def _by_seed(arm: str, runs: Sequence[RunResults]) -> dict[str, RunResults]:
    """An arm has one run of each seed: of two, one would be compared and the other forgotten without a word."""
    found: dict[str, RunResults] = {}
    for run in runs:
        seed = str(run.info.get("seed"))
        if seed in found:
            raise ConfigError(
                f"{arm}: {found[seed].path} and {run.path} are both runs of seed {seed}, and an arm has one of each: "
                "name the runs themselves, or put each arm's runs into a folder of their own"
            )
        found[seed] = run
    return found


def _evaluated(run: RunResults) -> set[int]:
    """After how many rounds it was."""
    found = {rounds for curves in run.evaluations.values() for curve in curves.values() for rounds, _ in curve}
    if not found:
        asked = run.info.get("config")
        due = isinstance(asked, Mapping) and asked.get("evaluation", {}).get("every")
        remedy = "it has not come to its first" if due else "set evaluation.every, or use `mutual-env eval`"
        raise InvalidInputError(f"{run.path} holds no evaluation: {remedy}")
    return found


def _last_of_all(reached: Mapping[str, set[int]]) -> int:
    common = set.intersection(*reached.values())
    if not common:
        said = "; ".join(f"{path} after {', '.join(map(str, sorted(of)))}" for path, of in reached.items())
        raise InvalidInputError(f"there is no number of rounds after which all were evaluated: {said}")
    return max(common)
