"""The long form of two tests of reasoning-gym, run by name: every data set, both splits, ten items each."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mutual_env.tasks.reasoning_gym_names import DATASET_NAMES

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
