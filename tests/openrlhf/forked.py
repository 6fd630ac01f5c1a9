"""Ranks of a process group, forked from a process that has imported what they need: that takes longer than what they
do. No rank is left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Lives = Callable[[int, dict[str, Any], Path], None]


def forked(lives: Lives, ranks: int, plan: dict[str, Any], answers: Path, number: int) -> None:
    """Each rank's `lives(rank, plan, where to write its answer)`; the answers are files `number-rank`."""
    children = [_fork(lives, rank, plan, answers / f"{number}-{rank}") for rank in range(ranks)]
    codes = [os.waitpid(child, 0)[1] for child in children]
    if any(codes):
        sys.exit("a rank ended: its error is printed above")


def _fork(lives: Lives, rank: int, plan: dict[str, Any], answer: Path) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            lives(rank, plan, answer)
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    return child
