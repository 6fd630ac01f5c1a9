"""Tables of figures, and the four forms in which they are wanted: a terminal's, JSON, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeAlias

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mutual_env.display import encodable, shown_on_one_line
from mutual_env.errors import UnknownNameError

Interval: TypeAlias = tuple[float, float]
Cell: TypeAlias = str | int | float | Interval | None

_RULE = 3  # what stands between two columns


@dataclass(frozen=True, slots=True)
class Sheet:
    """Numbers stay numbers until they are shown; `notes` are sentences under the table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def show(sheets: Sequence[Sheet], form: str, console: Console | None = None) -> None:
    """Print them, with nothing else where a program reads."""
    if form == "rich":
        to = console or Console()
        to.print(Group(*(part for sheet in sheets for part in as_rich(sheet, to.width))))
    elif form in FORMS:
        print(encodable(FORMS[form](sheets)))
    else:
        raise UnknownNameError.of("format", form, ["rich", *FORMS])


def as_rich(sheet: Sheet, width: int) -> list[RenderableType]:
    """As many tables below one another as it takes that no number is broken, each with the words that rows begin
    with."""
    tables = [_table(sheet, columns) for columns in _fitting(sheet, width)]
    tables[0].title = Text(shown_on_one_line(sheet.title))  # no markup: it may name a path
    return [*tables, *(Text(shown_on_one_line(note), style="dim") for note in sheet.notes), Text("")]


def _fitting(sheet: Sheet, width: int) -> list[list[int]]:
    """The columns of each table. Names are folded to at most half of the width."""
    keys = list(takewhile(lambda column: _is_words(sheet, column), range(len(sheet.columns) if sheet.rows else 0)))
    room = width - 1 - min(width // 2, sum(_least(sheet, key) + _RULE for key in keys))
    tables: list[list[int]] = [[]]
    left = room
    for column in range(len(keys), len(sheet.columns)):
        needed = _least(sheet, column) + _RULE
        if tables[-1] and needed > left:
            tables.append([])
            left = room
        tables[-1].append(column)
        left -= needed
    return [[*keys, *columns] for columns in tables]


def _table(sheet: Sheet, columns: Sequence[int]) -> Table:
    table = Table(title_justify="left", title_style="bold")
    for column in columns:
        words, heading = _is_words(sheet, column), sheet.columns[column]
        heading = heading if len(heading) <= _least(sheet, column) else heading.replace(" ", "\n")
        table.add_column(Text(heading), justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for row in sheet.rows:
        table.add_row(*(Text(shown(row[column])) for column in columns))
    return table


def _is_words(sheet: Sheet, column: int) -> bool:
    return all(isinstance(row[column], str) for row in sheet.rows)


def _least(sheet: Sheet, column: int) -> int:
    cells = [len(shown(row[column])) for row in sheet.rows]
    return max([*cells, *map(len, sheet.columns[column].split())])


def as_json(sheets: Sequence[Sheet]) -> str:
    return json.dumps(
        {
            sheet.title: [dict(zip(sheet.columns, map(_plain, row), strict=True)) for row in sheet.rows]
            for sheet in sheets
        },
        indent=1,
        ensure_ascii=False,
    )


def as_csv(sheets: Sequence[Sheet]) -> str:
    """One block a sheet, a blank line between two; an interval is two columns."""
    out = io.StringIO()
    for number, sheet in enumerate(sheets):
        if number:
            out.write("\n")
        writer = csv.writer(out, lineterminator="\n")
        wide = [i for i in range(len(sheet.columns)) if any(isinstance(row[i], tuple) for row in sheet.rows)]
        writer.writerow(
            [n for i, c in enumerate(sheet.columns) for n in ((f"{c}_low", f"{c}_high") if i in wide else (c,))]
        )
        for row in sheet.rows:
            writer.writerow([v for i, cell in enumerate(row) for v in (_both(cell) if i in wide else (_empty(cell),))])
    return out.getvalue().rstrip("\n")


def as_latex(sheets: Sequence[Sheet]) -> str:
    """A booktabs tabular each."""
    return "\n\n".join(map(_tabular, sheets))


FORMS: Mapping[str, Callable[[Sequence[Sheet]], str]] = {"json": as_json, "csv": as_csv, "latex": as_latex}


def shown(cell: Cell) -> str:
    """For people: three decimals, an interval in brackets, a dash for what is not there."""
    if isinstance(cell, tuple):
        return f"[{shown(cell[0])}, {shown(cell[1])}]" if not math.isnan(cell[0]) else "–"
    if isinstance(cell, float):
        return "–" if math.isnan(cell) else f"{cell:.3f}"
    return "–" if cell is None else shown_on_one_line(str(cell))


def _tabular(sheet: Sheet) -> str:
    kinds = ["l" if all(isinstance(row[i], str) for row in sheet.rows) else "r" for i in range(len(sheet.columns))]
    lines = [
        f"% {sheet.title}",
        f"\\begin{{tabular}}{{{''.join(kinds)}}}",
        "\\toprule",
        " & ".join(map(_escaped, sheet.columns)) + " \\\\",
        "\\midrule",
        *(" & ".join(_escaped(shown(cell)) for cell in row) + " \\\\" for row in sheet.rows),
        "\\bottomrule",
        "\\end{tabular}",
        *(f"% {note}" for note in sheet.notes),
    ]
    return "\n".join(lines)


_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    "κ": r"$\kappa$",
}


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _plain(cell: Cell) -> object:
    """JSON has no NaN: it becomes null."""
    if isinstance(cell, tuple):
        return [_plain(cell[0]), _plain(cell[1])]
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _empty(cell: Cell) -> object:
    return "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else cell


def _both(cell: Cell) -> tuple[object, object]:
    return (_empty(cell[0]), _empty(cell[1])) if isinstance(cell, tuple) else ("", "")
