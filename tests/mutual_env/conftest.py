from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mutual_env import VerifierPool
from mutual_env.tasks.reasoning_gym import ItemProcess


@pytest.fixture(scope="session")
def pool() -> Iterator[VerifierPool]:
    """One pool for all envs of these tests: starting a worker costs more than most tests."""
    pool = VerifierPool(workers=1, deadline=30.0)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def items() -> Iterator[ItemProcess]:
    process = ItemProcess()
    yield process
    process.close()


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    """Twelve problems in the columns of MATH-500."""
    path = tmp_path / "problems.jsonl"
    rows = [{"problem": f"What is ${i}+{i}$?", "answer": str(2 * i), "level": 1} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
