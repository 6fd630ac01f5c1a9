"""A family's suite, and its result file: what every run came to, as compact as it can be read, and read back.

One line an arm and policy. `at` are rounds; `accuracy/...` has a list over `at` for each seed, and so have `tokens`
(trained on so far, borrowed ones too), `rescued` (prompts so far, where there were any) and `processor` (seconds that
the run's process has worked so far).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from benchmarks.figures import DATA
from learners.run.config import SuiteConfig, load_suite
from learners.run.results import Curve, RunResults, read_run, run_path
from learners.run.suite import SUITE
from mutual_env.errors import StorageError

_DIGITS = 4
TIMES = "processor"
RESCUED = "rescued"
SPENT = (RESCUED, "tokens", TIMES)
CONFIGS = Path(__file__).parents[2] / "configs" / "evidence"


def family_file(family: str) -> Path:
    return CONFIGS / f"{family}.yaml"


def setting_of(family: str) -> str:
    """What the first sentence of its suite's file says."""
    comment = takewhile(lambda line: line.startswith("#"), family_file(family).read_text().splitlines())
    first, _, _ = " ".join(line.lstrip("# ") for line in comment).partition(". ")
    return first.removeprefix("Evidence: ")


def runs_of(family: str) -> str:
    """The command that makes what is not finished of them."""
    return f"mutual-env suite {family_file(family).relative_to(CONFIGS.parents[1])}"


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
    def suite(self) -> str:
        """The family whose suite this is: its own, but for the runs on another processor."""
        return str(self.about.get("suite", self.name)).removeprefix("evidence-")

    @property
    def parts(self) -> list[str]:
        """The parts that tasks are of, such as skills."""
        found = {key for arm in self.arms.values() for of in arm.values() for key in of if key.startswith("accuracy/")}
        return sorted(key.removeprefix("accuracy/") for key in found)

    def seeds(self, arm: str) -> list[str]:
        return list(next(iter(self.arms[arm].values()))["accuracy"])


def collect(folder: Path, family: str, name: str = "") -> Path:
    """The finished runs of the suite in this folder, written down; and those of the result file that are not in the
    folder, if they were of the same setting: runs take hours, and not all are made in one place. A run that is in both
    must have the same numbers: if it has not, neither have the others, and they are not to be compared. `name`: of a
    result file of their own, for runs on a processor of another maker."""
    config = load_suite(folder / SUITE)
    runs = {arm: of for arm in config.arms if (of := _finished(config, arm))}
    if not runs:
        raise StorageError(f"{folder} holds no finished run: `{runs_of(family)}` makes them")
    path = result_file(name or family)
    kept = _kept(path, config, _makers(runs))
    at = [round for round, _ in _some(runs).evaluations[next(iter(config.base.policies))]["accuracy"]]
    if kept is not None and list(kept.at) != at:
        raise StorageError(f"{path} was evaluated at rounds {list(kept.at)}, {folder} at {at}: move the file away")
    found = {arm: {p: measured(of, p, at) for p in config.base.policies} for arm, of in runs.items()}
    again = _again(kept, found, path)
    arms = {
        arm: {p: _together(kept, arm, p, found.get(arm, {}).get(p, {})) for p in config.base.policies}
        for arm in config.arms
        if arm in runs or (kept is not None and arm in kept.arms)
    }
    about = {**_about(config, runs, kept), "again": again}
    _write(path, {"about": about, "at": at, "policies": list(config.base.policies)}, arms)
    return path


def _write(path: Path, head: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]) -> None:
    """A line an arm and policy."""
    lines = [
        f"  {json.dumps(arm)}: {{\n"
        + ",\n".join(f"   {json.dumps(p)}: {json.dumps(found, separators=(',', ':'))}" for p, found in of.items())
        + "\n  }"
        for arm, of in arms.items()
    ]
    parts = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    path.write_text("{\n" + ",\n".join([*parts, ' "arms": {\n' + ",\n".join(lines) + "\n }"]) + "\n}\n")


def _makers(runs: Mapping[str, Mapping[int, RunResults]]) -> set[str]:
    processes = [p for of in runs.values() for run in of.values() for p in run.info["processes"]]
    return {_maker(str(process.get("processor", ""))) for process in processes}


def _maker(processor: str) -> str:
    """Whose libraries' kernels it is given, by its name: `Intel(R) Xeon(R) ...`, `AMD EPYC ...`."""
    return processor.partition(" ")[0].partition("(")[0]


def _kept(path: Path, config: SuiteConfig, processors: set[str]) -> Family | None:
    """What an earlier result file holds, if it is of this setting and of such processors."""
    if not path.is_file():
        return None
    kept, setting = Family.read(path), _setting(config)
    differing = [key for key, value in setting.items() if kept.about.get(key) != value]
    if (made_on := {_maker(p) for p in kept.about["processor"]}) and not processors <= made_on:
        raise StorageError(
            f"{path} is of processors by {', '.join(sorted(made_on))}, these runs are of one by "
            f"{', '.join(sorted(processors))}: the same seed gives other numbers there (docs/reproducing.md), so that "
            "they cannot be paired. Collect them into a file of their own: --as NAME"
        )
    if differing or kept.policies != tuple(config.base.policies):
        raise StorageError(f"{path} is of another setting ({', '.join(differing) or 'policies'}): move it away")
    return kept


def _again(kept: Family | None, found: Mapping[str, Mapping[str, Any]], path: Path) -> list[str]:
    """Arm and seed of the runs that were made a second time, now or before, and came to the same numbers."""
    if kept is None:
        return []
    again = set(kept.about.get("again", ()))
    for arm, policy in ((arm, policy) for arm, of in found.items() for policy in of):
        before, now = kept.arms.get(arm, {}).get(policy, {}), found[arm][policy]
        for seed in before.get(TIMES, {}).keys() & now[TIMES].keys():
            _check_same(f"{arm} seed {seed}, {policy},", before, now, seed, path)
            if now[TIMES][seed] != before[TIMES][seed]:  # the same run has the same seconds
                again.add(f"{arm} {seed}")
    return sorted(again)


def _check_same(run: str, before: Mapping[str, Any], now: Mapping[str, Any], seed: str, path: Path) -> None:
    differing = [m for m in now if m != TIMES and now[m][seed] != before.get(m, {}).get(seed, now[m][seed])]
    if differing:
        raise StorageError(
            f"{run} came to another {', '.join(differing)} than in {path}: code, versions or machine differ, and so "
            "may every run there. Move the file away and run the family anew"
        )


def _together(kept: Family | None, arm: str, policy: str, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What was just measured, and before that what was kept, in the order of seeds."""
    before = kept.arms.get(arm, {}).get(policy, {}) if kept is not None else {}
    merged = {measure: {**before.get(measure, {}), **found.get(measure, {})} for measure in {**before, **found}}
    return {m: {seed: merged[m][seed] for seed in sorted(merged[m], key=int)} for m in sorted(merged, key=_place)}


def _place(measure: str) -> tuple[int, str]:
    """What was spent comes last."""
    return SPENT.index(measure) + 1 if measure in SPENT else 0, measure


def _finished(config: SuiteConfig, arm: str) -> dict[int, RunResults]:
    paths = {seed: run_path(config, arm, seed) for seed in config.seeds}
    read = {seed: read_run(path) for seed, path in paths.items() if (path / "run.json").is_file()}
    return {seed: run for seed, run in read.items() if run.finished}


def _some(runs: Mapping[str, Mapping[int, RunResults]]) -> RunResults:
    return next(iter(next(iter(runs.values())).values()))


def _setting(config: SuiteConfig) -> dict[str, Any]:
    """What all runs of a result file have in common."""
    env = config.base.env
    return {
        "suite": config.name,
        "rounds": config.base.rounds,
        "prompts": env.prompts_per_round,
        "group": env.group_size,
        "env": env.id,
    }


def _about(config: SuiteConfig, runs: Mapping[str, Mapping[int, RunResults]], kept: Family | None) -> dict[str, Any]:
    """What ran where: processors, versions and commits of all runs, which should be one of each."""
    processes = [p for of in runs.values() for run in of.values() for p in run.info["processes"]]
    before = kept.about if kept is not None else {}

    def all_of(key: str) -> list[str]:
        return sorted({*before.get(key, ()), *(str(p.get(key, "")) for p in processes)})

    return {
        **_setting(config),
        "seeds": list(config.seeds),
        "arms_planned": list(config.arms),
        "versions": {k: v for k, v in _some(runs).info["versions"].items() if k in ("python", "torch", "numpy")},
        **{key: all_of(key) for key in ("processor", "instructions", "threads")},
        "commits": sorted({*before.get("commits", ()), *(commit[:12] for commit in all_of("commit"))}),
    }


def measured(runs: Mapping[int, RunResults], policy: str, at: Sequence[int]) -> dict[str, dict[str, list[float]]]:
    """One policy under one arm, seed by seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for measure in sorted({key for run in runs.values() for key in run.evaluations.get(policy, {})}):
        curves = {seed: dict(run.evaluations[policy][measure]) for seed, run in runs.items()}
        found[measure] = {str(seed): [round(curve[r], _DIGITS) for r in at] for seed, curve in curves.items()}
    metrics = {seed: run.metrics[policy] for seed, run in runs.items()}
    for name, metric in ((RESCUED, "share/rescued"), ("tokens", "trained_tokens")):
        found[name] = {str(seed): _so_far(of.get(metric, ()), at) for seed, of in metrics.items()}
    if not any(curve[-1] for curve in found[RESCUED].values()):
        del found[RESCUED]
    return {**found, TIMES: {str(seed): _so_far(run.processor, at) for seed, run in runs.items()}}


def _so_far(curve: Curve, at: Sequence[int]) -> list[float]:
    """The sum over the rounds before each of `at`."""
    sums = {0: 0.0, **{r + 1: s for (r, _), s in zip(curve, accumulate(v for _, v in curve), strict=True)}}
    return [round(sums[max(known for known in sums if known <= r)], 3) for r in at]
