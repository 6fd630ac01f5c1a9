"""How far a run in another process has come, from the ends of its files: asked several times a second, they are never
read whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learners.run import lines as shapes
from learners.run.directory import RunDirectory
from learners.run.lines import Shape, read_line
from mutual_env.errors import StorageError

TAIL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Reached:
    """Rounds done, and the tokens a second of the last one, all policies together (0: not known)."""

    rounds: int = 0
    pace: float = 0.0


def reached(run: Path, samples: int) -> Reached:
    """`samples` are a policy's in a round."""
    directory = RunDirectory(run)
    timings = _last_lines(directory.timings, shapes.timings)
    timed = next((line for line in timings if line["type"] == "round" and line["seconds"]), None)
    rounds, tokens = 0, 0.0
    for line in _last_lines(directory.metrics, shapes.metrics):
        rounds = max(rounds, line["round"] + ("metrics" in line))
        if timed is None or line["round"] < timed["round"]:  # what is older says nothing more, and is not looked at
            break
        if line["round"] == timed["round"] and "metrics" in line:
            tokens += line["metrics"].get("length/tokens") or 0.0
    return Reached(rounds, 0.0 if timed is None else tokens * samples / timed["seconds"])


def _last_lines(path: Path, shape: Shape) -> Iterator[dict[str, Any]]:
    """The whole lines among a file's last bytes, the last first, but for what no run wrote."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
            file.seek(start)
            lines = file.read().split(b"\n")
    except OSError:  # not there yet, or cut back by a resumed run at this very moment
        return
    for line in reversed(lines[1 if start else 0 : -1]):
        with suppress(StorageError):
            yield read_line(line, str(path), shape)
