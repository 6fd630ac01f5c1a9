"""The page around a report: one file, its style and script inside, readable in light and dark, and without the script.

Its policy of content lets no other script run than this one, by its hash, and nothing be fetched from anywhere: what
models wrote is text, whatever it says.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from learners.sealed import write_whole


def write_page(path: Path, title: str, lead: str, sections: Iterable[str]) -> Path:
    """`sections` are HTML; `title` and `lead` are text."""
    body = "\n".join(section for section in sections if section)
    script = _part("page.js")
    write_whole(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_part('page.css')}</style></head>\n"
        f'<body><h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p>\n{body}\n'
        f"<script>{script}</script></body></html>\n",
    )
    return path


def section(heading: str, *content: str) -> str:
    """Nothing at all where there is no content."""
    inner = "".join(content)
    return f"<h2>{html.escape(heading)}</h2>{inner}" if inner else ""


def charts(figures: Iterable[str]) -> str:
    inner = "".join(figures)
    return f'<div class="charts">{inner}</div>' if inner else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], links: Sequence[str] = ()) -> str:
    """`links`: where the first cell of each row leads, relative to the page."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = []
    for number, row in enumerate(rows):
        first, *others = map(html.escape, row)
        linked = f'<a href="{html.escape(links[number])}">{first}</a>' if links else first
        body.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in (linked, *others)) + "</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


@cache
def _part(name: str) -> str:
    return resources.files("learners.report").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'"
