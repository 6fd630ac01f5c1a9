"""What the page and the figures show, as one compact file: six digits, and one line for each point of a sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.bandit.agreement import shipped_agreement
from mutual_env.types import JSON
from sharing.analysis.bandit import chi_square
from sharing.analysis.claims import baselines, headline, pooled_authors, rescues
from sharing.analysis.closed_form import Options
from sharing.analysis.plane import (
    STARVED,
    Placed,
    Point,
    analyse,
    chunks_sweep,
    divergent_sweep,
    lengths_sweep,
    starved,
    sweep,
)

READERS = tuple(10.0**exponent for exponent in (-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.7, -0.5, -0.3, -0.2, -0.1))
PEERS = (0.1, 0.5, 0.9)
CHECKED = (Point(0.6, 0.3, 1), Point(0.6, 0.3, 64, divergent=16, chunk=4))
RESPONSES = {"divergent": divergent_sweep(), "chunks": chunks_sweep(), "lengths": lengths_sweep()}
SIGNIFICANT_DIGITS = 6


def compute(size: int, draws: int, steps: int, options: Options) -> dict[str, JSON]:
    """Everything that the page and the figures show."""
    return {
        "group_size": size,
        "options": _plain(asdict(options)),
        "agreement": _plain(asdict(shipped_agreement(CHECKED, size, draws, options))),
        "sweep": as_rows(analyse(sweep(steps), size, options), size, options),
        **{
            name: as_rows(analyse(points, size, options), size, options, by_context=False)
            for name, points in RESPONSES.items()
        },
        "claims": {
            "headline": headline(size, options),
            "authors": _columns([asdict(a) for a in pooled_authors(200, size, options)]),
            "baselines": _columns([asdict(b) for b in baselines(READERS, PEERS, size, options)]),
            "rescues": _columns([asdict(r) for r in rescues(READERS, PEERS, size, options)]),
        },
    }


def as_rows(
    placed: Mapping[Point, Mapping[str, Placed]], size: int, options: Options, *, by_context: bool = True
) -> list[JSON]:
    """One object for each point: where it is, what disagreement amounts to there, and each strategy's numbers.

    What there is one of for each context is a list, in the order of `contexts`.
    """
    rows: list[JSON] = []
    for point, strategies in placed.items():
        row: dict[str, JSON] = {**asdict(point)}
        if by_context:
            where = point.contexts()
            row["contexts"] = [c.name for c in where]
            row["success"] = [c.success for c in where]
            row["peer_success"] = [float(c.policies_AK[1] @ c.correct_K) for c in where]
            row["chi_square"] = [chi_square(c.reader_K, c.policies_AK[1]) for c in where]
            row["starved"] = list(starved(where, size, options))
            row["starved_below"] = STARVED
        row["strategies"] = {name: _numbers(value, by_context) for name, value in strategies.items()}
        rows.append(row)
    return rows


def _numbers(placed: Placed, by_context: bool) -> dict[str, JSON]:
    numbers = asdict(placed)
    lists: dict[str, JSON] = {key: list(numbers.pop(key).values()) for key in ("growth", "length")}
    return {**numbers, **(lists if by_context else {})}


def _columns(rows: Sequence[Mapping[str, float]]) -> JSON:
    return {key: [row[key] for row in rows] for key in rows[0]}


def records(columns: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """The rows of a table that is kept by its columns."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: Mapping[str, Any]) -> JSON:
    return {key: list(item) if isinstance(item, tuple) else item for key, item in value.items()}


def rounded(value: JSON) -> JSON:
    """The same with as many significant digits as a reader of the file can use."""
    match value:
        case float():
            return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list():
            return [rounded(item) for item in value]
        case _:
            return value


def write(computed: Mapping[str, JSON], target: Path) -> None:
    """One line for each entry, and for each item of a list."""
    entries = [f"{json.dumps(key)}:{_text(value)}" for key, value in computed.items()]
    target.write_text("{" + ",\n".join(entries) + "}\n")


def _text(value: JSON) -> str:
    lines = [json.dumps(rounded(item), separators=(",", ":")) for item in value] if isinstance(value, list) else []
    return "[\n" + ",\n".join(lines) + "]" if lines else json.dumps(rounded(value), separators=(",", ":"))
