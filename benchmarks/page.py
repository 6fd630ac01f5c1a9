"""`docs/performance.md`, from the figures in `docs/figures/data`: every number on the page is a measured one."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bars import AREAS, Area, Bar
from benchmarks.figures import DATA, leaves

PAGE = DATA.parent.parent / "performance.md"
_INTRODUCTION = """# Performance

Measured figures, from the files in `docs/figures/data`; `make bench` measures again and rewrites this page. The machine
was shared while these were taken: ratios within one run say more than absolute numbers. Where a line has a range, it is
over models, tokenizers or kinds of records, and the line holds if its worst end does.

| asked for | | measured | |
|---|---:|---:|---|
"""


def write_page() -> Path:
    PAGE.write_text(text())
    return PAGE


def text() -> str:
    """The whole page."""
    measured = {area.name: json.loads(path.read_text()) for area in AREAS if (path := _path(area)).is_file()}
    rows = "".join(f"{_row(bar, measured.get(area.name, {}))}\n" for area in AREAS for bar in area.bars)
    sections = [_section(area, measured[area.name]) for area in AREAS if area.name in measured]
    missing = [f"- {area.title} (`python -m benchmarks.{area.name}`)\n" for area in AREAS if area.name not in measured]
    if missing:
        sections.append("## Not measured yet\n\n" + "".join(missing))
    return "\n".join([_INTRODUCTION + rows, *sections])


def _path(area: Area) -> Path:
    return DATA / f"{area.name}.json"


def _row(bar: Bar, figures: Mapping[str, Any]) -> str:
    values = bar.measured(figures)
    ends = " to ".join(dict.fromkeys(f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in _ends(values)))
    holds = ("holds" if bar.holds(values) else "**missed**") if values else "not measured"
    return f"| {bar.what} | {bar.asked} | {ends} | {holds} |"


def _ends(values: list[float]) -> list[float]:
    return [values[0], values[-1]] if values else []


def _section(area: Area, figures: dict[str, Any]) -> str:
    machine = figures.pop("machine", {})
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    on = f"On {machine.get('processor')}, {machine.get('cores')} cores; Python {machine.get('python')}, {versions}."
    rows = "\n".join(_named(keys, value) for keys, value in leaves(figures))
    table = f"| figure | value |\n|---|---:|\n{rows}"
    note = f"{_wrapped(area.note)}\n\n" if area.note else ""
    folded = f"<details><summary>all figures</summary>\n\n{table}\n\n</details>"
    return f"## {area.title}\n\n{note}{_wrapped(f'{on} Written by `python -m benchmarks.{area.name}`.')}\n\n{folded}\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _named(keys: tuple[str, ...], value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:12])) + (", ..." if len(value) > 12 else "")
    else:
        shown = f"{value:,}" if isinstance(value, int | float) else str(value)
    return f"| {' / '.join(keys).replace('_', ' ')} | {shown} |"
