"""A suite that is to have more seeds, arms or rounds than before: only what is missing is run."""

from __future__ import annotations

from pathlib import Path

from learners.run.changes import changes, differences, sentence
from learners.run.config import SuiteConfig, arm_config, as_mapping
from learners.run.directory import RunDirectory
from learners.run.longer import check_longer, is_longer
from learners.run.results import run_path
from mutual_env.errors import ConfigError


def check_growth(root: Path, before: SuiteConfig, after: SuiteConfig) -> None:
    """Raise where the runs that are there would be others under the new configuration. An arm none of whose runs came
    to a round may be corrected, or left out."""
    begun = [arm for arm in before.arms if any(_did_something(before, arm, seed) for seed in before.seeds)]
    if not begun:
        return
    changed = differences(as_mapping(before.base), as_mapping(after.base), "base.")
    of_base = {key.removeprefix("base."): value for key, value in changed.items()}
    if is_longer(of_base):
        changed = {}
    gone = [arm for arm in begun if arm not in after.arms]
    for arm in {*begun} - {*gone}:
        changed |= differences(before.arms[arm], after.arms[arm], f"arms.{arm}.")
    missing = [f"arm {arm}" for arm in gone] + [f"seed {s}" for s in before.seeds if s not in after.seeds]
    if changed or missing:
        told = [f"  without {', '.join(missing)}"] if missing else []
        raise ConfigError(
            f"{root} holds a suite of another configuration: give --replace, or another `name` (seeds, arms and rounds "
            "can be added to it)\n" + "\n".join([*told, *([sentence(changed)] if changed else [])])
        )
    for arm in begun:
        for seed in before.seeds:
            _check_member(RunDirectory(run_path(after, arm, seed)), after, arm, seed)


def _did_something(suite: SuiteConfig, arm: str, seed: int) -> bool:
    directory = RunDirectory(run_path(suite, arm, seed))
    return directory.info.is_file() and directory.did_something()


def _check_member(directory: RunDirectory, suite: SuiteConfig, arm: str, seed: int) -> None:
    if directory.info.is_file():
        config = arm_config(suite, arm, seed)
        changed = changes(directory.read_info(), config)
        if is_longer({key: value for key, value in changed.items() if not key.startswith("versions.")}):
            check_longer(directory, int(changed["rounds"][0]), config)  # type: ignore[arg-type]
