"""The page around a report: one file, its style inside, readable in light and dark, no script."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from learners.sealed import write_whole

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1a; --soft: #6b6a64; --paper: #fcfcfa; --rule: #e4e2da;
  --c0: #2a6fc9; --c1: #d9622b; --c2: #16915f; --c3: #7a4fc0; --c4: #b58400; --c5: #c23a6b; }
@media (prefers-color-scheme: dark) { :root { --ink: #eceae2; --soft: #a09e94; --paper: #191917; --rule: #34332f;
  --c0: #6ea8f2; --c1: #f08d5c; --c2: #45c191; --c3: #ab86ea; --c4: #dcae35; --c5: #ec77a0; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1340px;
  margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.lead, figcaption, .legend { color: var(--soft); }
figcaption { color: var(--ink); font-weight: 600; font-size: .92rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1.4rem; }
figure { margin: 0; } svg { width: 100%; height: auto; display: block; }
.legend { font-size: .82rem; min-height: 1.3em; } .key { margin-right: 1em; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: 1.1em; height: .2em; margin-right: .4em;
  vertical-align: middle; background: currentColor; }
.key.c0 { color: var(--c0); } .key.c1 { color: var(--c1); } .key.c2 { color: var(--c2); } .key.c3 { color: var(--c3); }
.key.c4 { color: var(--c4); } .key.c5 { color: var(--c5); }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .band { opacity: .16; stroke: none; }
.dot { opacity: 0; } .dot:hover { opacity: 1; }
.grid { stroke: var(--rule); } .tick { fill: var(--soft); font-size: 10px; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); }
.line.c3 { stroke: var(--c3); } .line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); }
.band.c0, .dot.c0 { fill: var(--c0); } .band.c1, .dot.c1 { fill: var(--c1); } .band.c2, .dot.c2 { fill: var(--c2); }
.band.c3, .dot.c3 { fill: var(--c3); } .band.c4, .dot.c4 { fill: var(--c4); } .band.c5, .dot.c5 { fill: var(--c5); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .8rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child, th.text, td.text { text-align: left; } th { color: var(--soft); font-weight: 600; }
pre { overflow-x: auto; font-size: .82rem; } details { margin: .4rem 0; } summary { cursor: pointer; }
code { font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; } .good { color: var(--c2); }
"""


def write_page(path: Path, title: str, lead: str, sections: Iterable[str]) -> Path:
    """`sections` are HTML; `title` and `lead` are text."""
    body = "\n".join(section for section in sections if section)
    write_whole(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f'<body><h1>{html.escape(title)}</h1><p class="lead">{html.escape(lead)}</p>\n{body}\n</body></html>\n',
    )
    return path


def section(heading: str, *content: str) -> str:
    """Nothing at all where there is no content."""
    inner = "".join(content)
    return f"<h2>{html.escape(heading)}</h2>{inner}" if inner else ""


def charts(figures: Iterable[str]) -> str:
    inner = "".join(figures)
    return f'<div class="charts">{inner}</div>' if inner else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"
