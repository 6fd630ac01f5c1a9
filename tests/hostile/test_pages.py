"""What a model wrote adds no tag and no attribute to a report, wherever it is recorded."""

from __future__ import annotations

import base64
import gzip
import json
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.hostile.fuzz_config import told
from tests.hostile.recorded import a_run, put_into

MARKUP = (
    "</script><script>alert(1)</script>",
    "<script src=//evil></script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "</pre></code></div></section></details>",
    "<!--",
    "--!><b>",
    "]]><b>",
    "<![CDATA[<b>]]>",
    "<?php <b> ?>",
    "<!doctype html><b>",
    '"><b x="',
    "'><b x='",
    "` onmouseover=alert(1) `",
    '" autofocus onfocus=alert(1) x="',
    "&lt;b&gt;",
    "&#60;b&#62;",
    "&#x3c;b>",
    "<b\0>",
    "<\0b>",
    "<b\u2028>",
    "<ſcript>",
    "＜script＞",
    "<a href=javascript:alert(1)>x</a>",
    "<meta http-equiv=refresh content=0>",
    "<base href=//evil>",
    "<iframe srcdoc='<b>'>",
    "<style>@import'//evil'</style>",
    "<template><b></template>",
    "<math><mi//xlink:href=x>",
    "</title><b>",
    "</textarea><b>",
    "</noscript><b>",
    "{{7*7}}",
    "${7*7}",
    "{%b%}",
    "<%=b%>",
    "\r\n\r\n<b>",
    "<form action=//evil><input name=nodes>",
    "<div id=rounds>",
    "<pre id=recorded>",
    "data:text/html,<b>",
    "<object data=//evil>",
    "<link rel=stylesheet href=//evil>",
)


class Page(HTMLParser):
    """Which attributes each tag has anywhere, and what stands in the element `recorded`."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.shape: dict[str, set[str]] = defaultdict(set)
        self.ids: list[str] = []
        self.recorded = ""
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shape[tag] |= {name for name, _ in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self._inside = ("id", "recorded") in attrs

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.recorded += data
            self._inside = False


def reported(directory: Path) -> Page:
    code, said = told(["report", str(directory)])
    assert code == 0, said
    return Page((directory / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run(tmp_path_factory.mktemp("runs"))


def test_markup_of_models_is_text_in_a_report(run: Path) -> None:
    plain = reported(run)
    put_into(run, "".join(MARKUP))
    page = reported(run)
    assert page.shape == plain.shape
    assert sorted(page.ids) == sorted(plain.ids)
    assert page.shape["script"] == set()
    lines = gzip.decompress(base64.b64decode(page.recorded)).decode().splitlines()
    assert any(MARKUP[0] in str(json.loads(line)) for line in lines)  # for the script, which makes it text
