"""A family at several levels, easier first."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import mutual_env
from mutual_env.errors import InvalidInputError
from mutual_env.tasks.curriculum import CurriculumTasks
from mutual_env.testing import check_env

LEVELS = [{"digits": 1}, {"digits": 2}, {"digits": 3}]


def curriculum(**options: Any) -> CurriculumTasks:
    return CurriculumTasks(**{"family": "mutual/arithmetic-v0", "levels": LEVELS, "rounds": 10, **options})


def test_the_mixture_moves_from_the_first_level_to_the_last_and_stays() -> None:
    # Centre 0, 1 and 2 after 0, 5 and 10 rounds; beside the centre exp(-1 / (2 · .25)) = e^-2, two levels off e^-8.
    near, far = np.exp(-2.0), np.exp(-8.0)
    source = curriculum(spread=0.5)
    assert source.chances(0) == pytest.approx(np.array([1, near, far]) / (1 + near + far))
    assert source.chances(5) == pytest.approx(np.array([near, 1, near]) / (1 + 2 * near))
    assert source.chances(10) == source.chances(99) == pytest.approx(np.array([far, near, 1]) / (1 + near + far))
    assert curriculum(spread=1e-3).chances(3) == [0.0, 1.0, 0.0]  # centre .6
    assert curriculum(spread=1e-3, least=0.1).chances(0) == pytest.approx([0.8, 0.1, 0.1])


def test_levels_are_drawn_with_these_chances() -> None:
    source = curriculum(spread=1.0)
    counts: Counter[Any] = Counter()
    for seed in range(100):
        counts.update(task.metadata["level"] for task in source.draw(seed, 4, 24))
    for level, chance in enumerate(source.chances(4)):
        deviation = np.sqrt(2400 * chance * (1 - chance))
        assert abs(counts[level] - 2400 * chance) < 5 * deviation


def test_a_task_is_of_its_level_and_no_two_are_the_same_though_levels_overlap() -> None:
    source = curriculum(levels=[{"digits": 1}, {"digits": 1}], spread=5.0)
    for round_ in range(20):
        tasks = source.draw(3, round_, 20)
        assert len({task.id for task in tasks}) == 20
    for task in curriculum(spread=1e-3).draw(0, 0, 30):
        assert max(map(int, task.prompt.rstrip("=").split("+"))) < 10  # type: ignore[union-attr]


def test_the_same_seed_and_round_are_the_same_tasks_and_one_level_is_the_family() -> None:
    assert curriculum().draw(1, 4, 16) == curriculum().draw(1, 4, 16)
    assert curriculum().draw(1, 4, 16) != curriculum().draw(2, 4, 16)
    alone = curriculum(levels=[{"digits": 2}]).draw(1, 4, 16)
    family = mutual_env.registry.source_of("mutual/arithmetic-v0", digits=2).draw(1, 4, 16)
    assert [task.id for task in alone] == [task.id for task in family]


def test_the_env_passes_the_check_that_ships() -> None:
    options = {"family": "mutual/arithmetic-v0", "levels": LEVELS, "rounds": 2}
    check_env(lambda: mutual_env.make("mutual/curriculum-v0", agents=2, group_size=2, prompts_per_round=3, **options))


def test_what_cannot_be_a_curriculum_is_refused() -> None:
    for wrong in (
        {"levels": []},
        {"levels": ["easy"]},
        {"rounds": 0},
        {"spread": 0.0},
        {"least": 0.5},
        {"family": "mutual/guess-v0", "levels": [{}]},
    ):
        with pytest.raises(InvalidInputError):
            curriculum(**wrong)
