"""Tables of figures inside pages that people write: between two marks, from a file in `docs/figures/data`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import DATA

DOCS = DATA.parent.parent


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; the first column is of words."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def put(page: str, name: str, text: str) -> None:
    """Write the table called `name` into a page."""
    path = DOCS / page
    path.write_text(_parted(path.read_text(), name, text)[1])


def is_current(page: str, name: str, text: str) -> bool:
    """Whether the page has this very table."""
    old, new = _parted((DOCS / page).read_text(), name, text)
    return old == new


def figures(area: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{area}.json").read_text())
    return found


def _parted(page: str, name: str, text: str) -> tuple[str, str]:
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the page has no place for the table {name!r}: write {start!r} and {end!r} where it belongs")
    return page, f"{before}{start}{text}\n{end}{after}"
