from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mutual_env.types import Task
from mutual_env.verifiers import VerifierPool


@pytest.fixture(autouse=True)
def _hostile_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., VerifierPool]]:
    """Makes pools whose files lie in `tmp_path`; then closes them and sees that no process and no file is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made: list[VerifierPool] = []

    def make(workers: int | None = 2, **options: object) -> VerifierPool:
        made.append(VerifierPool(workers, **{"deadline": 2.0, "remember": 0, **options}))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert processes_of(tmp_path) == []
    assert list(tmp_path.glob("mutual-env-verifiers-*")) == []


def processes_of(root: Path, patience: float = 3.0) -> list[int]:
    """Live processes that a fork server under `root` started: they share its command line, which names `root`."""
    until = time.monotonic() + patience
    while True:
        found = []
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and str(root).encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.05)


@pytest.fixture
def processes(tmp_path: Path) -> Callable[[float], list[int]]:
    """`processes(seconds)`: those of the test's pools, waiting up to so long for there to be none."""
    return lambda patience: processes_of(tmp_path, patience)


@pytest.fixture
def task() -> Task:
    return Task("t", "what is three and four?", "7")
