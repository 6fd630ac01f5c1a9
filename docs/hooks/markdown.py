"""Every page of the site also as Markdown, under its address with `.md`, and `llms.txt`, the list of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_post_build(config: Any) -> None:
    site, docs = Path(config["site_dir"]), Path(config["docs_dir"])
    listed = []
    for page in sorted(docs.rglob("*.md")):
        name = page.relative_to(docs)
        target = site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = page.read_text(encoding="utf-8")
        target.write_text(text, encoding="utf-8")
        title = next((line.lstrip("# ") for line in text.splitlines() if line.startswith("# ")), name.stem)
        listed.append(f"- [{title}]({name.as_posix()}): {_summary(text)}")
    head = f"# {config['site_name']}\n\n> {config['site_description']}\n\n"
    (site / "llms.txt").write_text(head + "\n".join(listed) + "\n", encoding="utf-8")


def _summary(text: str) -> str:
    """The first sentence of the first paragraph."""
    paragraphs = [part for part in text.split("\n\n") if part and part[0] not in "#|`!:-"]
    first = " ".join(paragraphs[0].split()) if paragraphs else ""
    return first.split(". ")[0].rstrip(".:") + "." if first else ""
