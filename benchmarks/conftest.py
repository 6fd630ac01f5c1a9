"""`pytest benchmarks/`: every benchmark of ours, with the fixtures that others get by `-p learners.benchmarking`."""

from __future__ import annotations

from pathlib import Path

import pytest

from learners.benchmarking import (  # noqa: F401
    env,
    group_size,
    learner,
    learners_of_a_pair,
    loop,
    measured_rounds,
    pytest_addoption,
    pytest_configure,
    strategy,
    tokenizer_pair,
)

LONGEST_SECONDS = 1800.0
"""Of one benchmark: a step of a real model takes minutes where others use the machine, and whatever hangs ends."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONGEST_SECONDS))
