"""A family's result file: what every run came to, as compact as it can be read, and how it is read back.

One line an arm and policy. `at` are rounds; `accuracy/...` has a list over `at` for each seed, and so have `tokens`
(trained on so far, borrowed ones too) and `processor` (seconds that the run's process has worked so far).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.figures import DATA
from learners.run.config import SuiteConfig, load_suite
from learners.run.results import Curve, RunResults, read_run, run_path
from learners.run.suite import SUITE
from mutual_env.errors import StorageError

_DIGITS = 4


def result_file(family: str) -> Path:
    return DATA / f"evidence-{family}.json"


@dataclass(frozen=True, slots=True)
class Family:
    """`arms[arm][policy][measure][seed]` is a list over the rounds `at`."""

    name: str
    about: Mapping[str, Any]
    at: tuple[int, ...]
    policies: tuple[str, ...]
    arms: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]]

    @classmethod
    def read(cls, path: Path) -> Family:
        content = json.loads(path.read_text())
        name = path.stem.removeprefix("evidence-")
        return cls(name, content["about"], tuple(content["at"]), tuple(content["policies"]), content["arms"])

    @property
    def parts(self) -> list[str]:
        """The parts that tasks are of, such as skills."""
        found = {key for arm in self.arms.values() for of in arm.values() for key in of if key.startswith("accuracy/")}
        return sorted(key.removeprefix("accuracy/") for key in found)

    def seeds(self, arm: str) -> list[str]:
        return list(next(iter(self.arms[arm].values()))["accuracy"])


def collect(folder: Path, family: str) -> Path:
    """The finished runs of the suite in this folder, written down."""
    config = load_suite(folder / SUITE)
    runs = {arm: _finished(config, arm) for arm in config.arms}
    runs = {arm: of for arm, of in runs.items() if of}
    if not runs:
        raise StorageError(f"{folder} holds no finished run: `python -m benchmarks.evidence run {family}` makes them")
    at = [round for round, _ in _some(runs).evaluations[next(iter(config.base.policies))]["accuracy"]]
    lines = [
        f"  {json.dumps(arm)}: {{\n"
        + ",\n".join(f"   {json.dumps(p)}: {_line(of, p, at)}" for p in config.base.policies)
        + "\n  }"
        for arm, of in runs.items()
    ]
    head = {"about": _about(config, runs), "at": at, "policies": list(config.base.policies)}
    parts = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    path = result_file(family)
    path.write_text("{\n" + ",\n".join([*parts, ' "arms": {\n' + ",\n".join(lines) + "\n }"]) + "\n}\n")
    return path


def _finished(config: SuiteConfig, arm: str) -> dict[int, RunResults]:
    paths = {seed: run_path(config, arm, seed) for seed in config.seeds}
    read = {seed: read_run(path) for seed, path in paths.items() if (path / "run.json").is_file()}
    return {seed: run for seed, run in read.items() if run.finished}


def _some(runs: Mapping[str, Mapping[int, RunResults]]) -> RunResults:
    return next(iter(next(iter(runs.values())).values()))


def _about(config: SuiteConfig, runs: Mapping[str, Mapping[int, RunResults]]) -> dict[str, Any]:
    """What ran where: processors, versions and commits of all runs, which should be one of each."""
    processes = [p for of in runs.values() for run in of.values() for p in run.info["processes"]]
    env = config.base.env
    return {
        "suite": config.name,
        "seeds": list(config.seeds),
        "arms_planned": list(config.arms),
        "rounds": config.base.rounds,
        "prompts": env.prompts_per_round,
        "group": env.group_size,
        "env": env.id,
        "versions": {k: v for k, v in _some(runs).info["versions"].items() if k in ("python", "torch", "numpy")},
        **{key: sorted({str(p.get(key, "")) for p in processes}) for key in ("processor", "instructions", "threads")},
        "commits": sorted({str(p.get("commit", ""))[:12] for p in processes}),
    }


def _line(runs: Mapping[int, RunResults], policy: str, at: Sequence[int]) -> str:
    """One policy under one arm, seed by seed."""
    measures = sorted({key for run in runs.values() for key in run.evaluations.get(policy, {})})
    found: dict[str, dict[str, list[float]]] = {}
    for measure in measures:
        curves = {seed: dict(run.evaluations[policy][measure]) for seed, run in runs.items()}
        found[measure] = {str(seed): [round(curve[r], _DIGITS) for r in at] for seed, curve in curves.items()}
    for name, curve_of in (("tokens", _tokens(policy)), ("processor", lambda run: run.processor)):
        found[name] = {str(seed): _so_far(curve_of(run), at) for seed, run in runs.items()}
    return json.dumps(found, separators=(",", ":"))


def _tokens(policy: str) -> Any:
    return lambda run: run.metrics[policy].get("trained_tokens", ())


def _so_far(curve: Curve, at: Sequence[int]) -> list[float]:
    """The sum over the rounds before each of `at`."""
    sums = {0: 0.0, **{r + 1: s for (r, _), s in zip(curve, accumulate(v for _, v in curve), strict=True)}}
    return [round(sums[max(known for known in sums if known <= r)], 3) for r in at]
