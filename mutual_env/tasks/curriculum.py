"""`mutual/curriculum-v0`: any family of one turn, easier first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mutual_env.errors import InvalidInputError
from mutual_env.registry import source_of
from mutual_env.seeding import generator
from mutual_env.tasks.source import ClosableSource, InteractiveSource, TaskSource
from mutual_env.types import Task
from mutual_env.verifiers import VerifierSpec


class CurriculumTasks:
    """The tasks of a family at several levels, whose mixture moves from the first to the last over the rounds.

    family    the id of the family, such as "mutual/arithmetic-v0"; options given beside these hold for all levels
    levels    its options at each level, easy to hard, e.g. [{digits: 1}, {digits: 2}, {digits: 3}]
    rounds    after how many rounds the centre of the mixture has come to the last level; it stays there
    spread    a level so many levels from the centre has exp(-1/2) of its chance
    least     the smallest chance of any level, so that none is ever out of sight or forgotten

    In round r the centre is c = (L - 1) min(r / rounds, 1), and the level l of each task is drawn (seeded by seed and
    round) with p_l = least + (1 - L least) exp(-(l - c)² / 2 spread²) / Σ. A task says its `level` in its metadata.
    Several levels must not differ in what verifies them. One level: the family.
    """

    def __init__(
        self,
        *,
        family: str,
        levels: Sequence[Mapping[str, Any]],
        rounds: int = 100,
        spread: float = 0.5,
        least: float = 0.0,
        **options: Any,
    ) -> None:
        if not levels or not all(isinstance(level, Mapping) for level in levels):
            raise InvalidInputError(f"levels must be a list of options of {family}, at least one, got {levels!r}")
        if rounds < 1 or not spread > 0 or not 0.0 <= least <= 1.0 / len(levels):
            raise InvalidInputError(
                f"rounds must be at least 1, spread above 0 and least in [0, 1/{len(levels)}], got {rounds}, {spread} "
                f"and {least}"
            )
        self._sources: list[TaskSource] = [source_of(family, **{**options, **level}) for level in levels]
        if any(isinstance(source, InteractiveSource) for source in self._sources):
            raise InvalidInputError(f"family {family!r} has turns of its own: name one of a single turn")
        specs = {source.verifier.id for source in self._sources}
        if len(specs) > 1:
            raise InvalidInputError(f"levels of {family!r} are checked by different verifiers: {sorted(specs)}")
        self._rounds, self._spread, self._least = rounds, spread, least

    @property
    def verifier(self) -> VerifierSpec:
        return self._sources[0].verifier

    def chances(self, round: int) -> list[float]:
        """Of each level, in this round."""
        count = len(self._sources)
        centre = (count - 1) * min(round / self._rounds, 1.0)
        # The nearest level's exponent is subtracted, so that a small spread does not make all of them vanish.
        squares = [(level - centre) ** 2 for level in range(count)]
        bumps = [math.exp(-(square - min(squares)) / (2.0 * self._spread**2)) for square in squares]
        total = math.fsum(bumps)
        return [self._least + (1.0 - count * self._least) * bump / total for bump in bumps]

    def draw(self, seed: int, round: int, n: int) -> list[Task]:
        draw = generator(seed, "mutual/curriculum-v0", round)
        levels = [int(level) for level in draw.choice(len(self._sources), size=n, p=self.chances(round))]
        taken: set[str] = set()
        found = {
            level: iter(self._of_level(level, levels.count(level), seed, round, taken)) for level in sorted(set(levels))
        }
        return [next(found[level]) for level in levels]

    def close(self) -> None:
        for source in self._sources:
            if isinstance(source, ClosableSource):
                source.close()

    def _of_level(self, level: int, count: int, seed: int, round: int, taken: set[str]) -> list[Task]:
        """So many tasks of a level that no other level has given; levels may overlap."""
        asked = count
        while True:
            drawn = self._sources[level].draw(seed, round, asked)
            fresh = [task for task in drawn if task.id not in taken]
            if len(fresh) >= count:
                taken.update(task.id for task in fresh[:count])
                return [replace(task, metadata={**task.metadata, "level": level}) for task in fresh[:count]]
            asked += count - len(fresh)
