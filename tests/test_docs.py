"""Every Python block of the documentation runs as printed, from top to bottom of its page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from learners.run.config import load_run
from sharing.registry import OWN
from tests.tiers import rest_long

ROOT = Path(__file__).parents[1]
EVERY = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
# Their code needs an environment and a model of its own: tests/openrlhf and tests/vllm make the same calls there.
ELSEWHERE = {"openrlhf.md", "vllm.md"}
PAGES = [page for page in EVERY if "```python" in page.read_text() and page.name not in ELSEWHERE]


@pytest.mark.parametrize("page", rest_long(PAGES, quick=1), ids=lambda page: page.name)
def test_the_code_of_a_page_runs_as_printed(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    script = tmp_path / "page.py"
    script.write_text("\n\n".join(blocks))
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_readme_has_code() -> None:
    assert ROOT / "README.md" in PAGES


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.name)
def test_every_local_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_glossary_says_each_word_once_in_one_sentence() -> None:
    rows = [line.strip("|").split("|") for line in (ROOT / "docs" / "glossary.md").read_text().splitlines()]
    entries = [
        (row[0].strip(), row[1].strip()) for row in rows if len(row) == 2 and row[1].strip() not in ("meaning", "---")
    ]
    words = [word for word, _ in entries]
    assert len(words) == len(set(words)) > 30
    assert [word for word, meaning in entries if not re.fullmatch(r"[A-Z][^.]*(?:\.\w[^.]*)*\.", meaning)] == []


def test_every_strategy_stands_in_the_table_of_strategies_and_in_that_of_sources() -> None:
    page = (ROOT / "docs" / "sharing.md").read_text()
    what, sources = page.split("## Where each number comes from")
    for name in OWN:
        assert re.search(rf"^\| `{name}`", what, flags=re.MULTILINE), name
        assert re.search(rf"^\|[^|]*`{name}`", sources, flags=re.MULTILINE), name
    for name in ("PRP", "XGRPO", "SEE", "MWRA", "THL"):
        assert re.search(rf"\*\*[^*]*\b{name}\b[^*]*are our reading", sources), name


BLOCKS = [
    (page, block)
    for page in EVERY
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    if "policies:" in block
]


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[page.stem for page, _ in BLOCKS])
def test_a_configuration_in_a_page_is_one(page: Path, block: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(block)
    assert load_run(path).policies


def test_every_page_is_on_the_site() -> None:
    listed = re.findall(r"- (?:\w+: )?([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)
