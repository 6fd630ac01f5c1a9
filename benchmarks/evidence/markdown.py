"""The words of `docs/evidence.md`: lines, rows of tables, and the files that they are made of."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import DATA

WIDTH = 120


def wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def read(name: str) -> dict[str, Any]:
    """A result file; nothing, where there is none."""
    path = DATA / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found
