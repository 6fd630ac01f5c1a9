"""The short form of `python -m tests.hostile.soak_pool`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.soak_pool import Size, faults


@pytest.mark.long
def test_a_pool_stays_as_large_as_it_was() -> None:
    command = [sys.executable, "-m", "tests.hostile.soak_pool", "--seconds", "8"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_grows_is_seen() -> None:
    small, large, none = Size(100.0, 10, 2, 4, 3), Size(130.0, 40, 2, 4, 3), Size(100.0, 5, 1, 1, 0)
    assert faults([small] * 5 + [none]) == []
    assert faults([small] * 4 + [large, none]) == ["memory grew from 100 to 130 MB", "descriptors grew from 10 to 40"]
    assert faults([small] * 6)[0].startswith("the closed pool left ")
