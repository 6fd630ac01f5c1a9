"""A policy that fails on purpose, beside the small ones that every executor is tried on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from learners.example import Example
from learners.resources.testing import makers, run_rounds
from learners.tabular import TabularLearner
from mutual_env.types import Metrics

__all__ = ["Bulky", "Fragile", "makers", "run_rounds"]


class Bulky(TabularLearner):
    """With as many bytes of state as are asked for, and an empty file. It dies once, while `fuse` is there."""

    def __init__(self, name: str, size: int, fuse: str) -> None:
        super().__init__(name=name)
        self._bulk, self._fuse = bytes(range(256)) * (size // 256), Path(fuse)

    def save(self, directory: Path) -> None:
        super().save(directory)
        (directory / "bulk").write_bytes(self._bulk)
        (directory / "empty").touch()

    def load(self, directory: Path) -> None:
        assert (directory / "bulk").read_bytes() == self._bulk
        assert not (directory / "empty").read_bytes()
        super().load(directory)

    def update(self, examples: Sequence[Example]) -> Metrics:
        if self.version == 3 and self._fuse.exists():
            self._fuse.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().update(examples)


class Fragile(TabularLearner):
    """Dies, hangs or raises at its update number `at`, as long as the file `fuse` can be taken away (or always)."""

    def __init__(self, name: str, how: str, at: int, fuse: str = "") -> None:
        super().__init__(name=name)
        self._how, self._at, self._fuse = how, at, Path(fuse)

    def update(self, examples: Sequence[Example]) -> Metrics:
        if self.version == self._at and self._goes_off():
            if self._how == "dies after":
                super().update(examples)
            if self._how == "hangs":
                time.sleep(3600.0)
            if self._how == "raises":
                raise ArithmeticError("the loss is not a number")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().update(examples)

    def _goes_off(self) -> bool:
        if not self._fuse.name:
            return True
        there = self._fuse.exists()
        self._fuse.unlink(missing_ok=True)
        return there
