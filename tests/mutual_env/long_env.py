"""Long forms of tests, run by name: every data set of reasoning-gym in both splits, thousands of broken actions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import mutual_env
from mutual_env.tasks.reasoning_gym_names import DATASET_NAMES
from mutual_env.testing import fuzz_actions, seed_test

_PROGRAM = """
import sys
from mutual_env.tasks.reasoning_gym import ItemProcess, ReasoningGymTasks
items = ItemProcess()
for name in sys.argv[1:]:
    for split in ("train", "eval"):
        print(ReasoningGymTasks(dataset=name, split=split, generator=items).draw(3, 1, 10))
items.close()
"""


@pytest.mark.timeout(1200)
def test_the_items_of_every_data_set_do_not_depend_on_the_process_that_asks() -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *DATASET_NAMES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    outputs = [run.communicate(timeout=1100)[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert len(outputs[0]) == len(outputs[1]) == 2 * len(DATASET_NAMES)
    for i, (first, second) in enumerate(zip(*outputs, strict=True)):
        assert first == second, DATASET_NAMES[i // 2]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("id", ["mutual/arithmetic-v0", "mutual/letters-v0", "reasoning_gym/countdown-v0"])
def test_thousands_of_broken_actions_lose_nothing(id: str) -> None:
    counts = fuzz_actions(lambda: mutual_env.make(id, agents=3, group_size=3, prompts_per_round=2), n=3000, seed=1)
    assert counts["scored"] + counts["refused"] == 3000


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("id", ["mutual/arithmetic-v0", "mutual/letters-v0", "reasoning_gym/countdown-v0"])
def test_fifty_rounds_are_the_same_in_two_envs(id: str) -> None:
    seed_test(lambda: mutual_env.make(id, agents=3, group_size=3, prompts_per_round=2), rounds=50)
