"""Ranks of a process group, forked from a process that has imported what they need: that takes longer than what they
do. No rank is left behind."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Lives = Callable[[int, dict[str, Any], Path], None]


def answers_of(script: str, plans: Sequence[dict[str, Any]], ranks: Sequence[int], folder: Path) -> list[list[Any]]:
    """By plan and rank, what a script beside this file that calls `forked` has written. Each plan is given a port, and
    has as many ranks as `ranks` says."""
    (folder / "plans").write_bytes(pickle.dumps([{**plan, "port": _free_port()} for plan in plans]))
    program = str(Path(__file__).with_name(script))
    subprocess.run(
        [sys.executable, "-W", "ignore", program, str(folder / "plans"), str(folder)], check=True, timeout=250
    )
    return [
        [pickle.loads((folder / f"{number}-{rank}").read_bytes()) for rank in range(count)]
        for number, count in enumerate(ranks)
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
