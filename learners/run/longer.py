"""A run that is to have more rounds than it was begun with.

It goes on as if it had been longer from the start, bit for bit, or is refused with what depends on the total.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from learners.run.config import RunConfig
from learners.run.directory import RunDirectory
from learners.run.lines import read_lines
from learners.run.recording import Allowance
from mutual_env.errors import ConfigError
from mutual_env.types import JSON

MAY_GROW = ("rounds", "record.megabytes")


def is_longer(changed: Mapping[str, list[JSON]]) -> bool:
    """Whether more rounds are all that is new."""
    before, after = changed.get("rounds", [0, 0])
    longer = isinstance(before, int) and isinstance(after, int) and before < after
    return longer and set(changed) <= set(MAY_GROW)


def check_longer(directory: RunDirectory, before: int, config: RunConfig) -> None:
    """Raise where the rounds that were done would have been others in a run of so many as `config` says. `before`: how
    many there were to be."""
    where = f"{directory.path} cannot go on from {before} to {config.rounds} rounds as if it had always been so long"
    stops = [every for every in (config.evaluation.every, config.checkpoint.every) if every]
    if config.resources.mode == "asynchronous" and not any(before % every == 0 for every in stops):
        raise ConfigError(
            f"{where}: in asynchronous rounds all policies meet at evaluations and checkpoints, and after {before} "
            "rounds there would have been none. Begin a new run"
        )
    _check_allowance(directory, config, where)


def before_the_last_evaluation(path: Path, done: int) -> int:
    """Where the lines of the evaluation begin that was made after `done` rounds because it was the end."""
    end = position = 0
    with path.open("rb") as file:
        for line, content in zip(file, read_lines(path), strict=False):
            position += len(line)
            if content.get("round") != done or not ("evaluation" in content or "tasks" in content):
                end = position
    return end


def _check_allowance(directory: RunDirectory, config: RunConfig, where: str) -> None:
    """More rounds leave each round less room in the files of samples and lessons."""
    record, sizes = config.record, (config.rounds, len(config.policies), config.env.group_size)
    allowed = Allowance.of(record.megabytes, *sizes)
    longest = max(map(_longest_line, (directory.samples, directory.lessons)))
    if 2 * longest > min(allowed.bytes, allowed.longest_text * config.env.group_size):
        raise ConfigError(
            f"{where}: record.megabytes={record.megabytes:g} would have left each round {allowed.bytes:,} bytes for "
            f"what is kept for reading, and one of them has {longest:,}. Raise record.megabytes with the rounds"
        )


def _longest_line(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return max(map(len, file), default=0)
