"""Reports are one self-contained, well-formed HTML file, whatever the policies wrote."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from learners.report import write_run_report, write_suite_report
from learners.report.chart import Line, line_chart
from learners.run.config import PolicyConfig, RunConfig, SuiteConfig
from learners.run.results import read_suite

VOID = {"meta", "br", "line", "circle", "polygon", "polyline"}


class Checked(HTMLParser):
    """Every tag is closed in order; counts tags and keeps text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: dict[str, int] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] in VOID and self.open[-1] != tag:
            self.open.pop()
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(path: Path) -> Checked:
    page = Checked()
    page.feed(path.read_text())
    assert [tag for tag in page.open if tag not in VOID] == []
    return page


def test_a_run_report_shows_curves_times_samples_and_configuration(tmp_path: Path, write_run) -> None:
    run = write_run(tmp_path / "r", [0.0, 0.5, 1.0])
    page = parsed(write_run_report(run.path))
    for heading in (
        "Held-out accuracy",
        "Training",
        "What they wrote",
        "Configuration and versions",
    ):
        assert heading in page.text
    # accuracy and accuracy/<part> held out, reward in training; share/rescued is 2 throughout, so it is no chart
    assert page.tags["svg"] == 3
    assert "1 metrics that never changed" in page.text
    assert "timeout" in page.text


def test_what_a_policy_wrote_is_never_markup_and_nothing_is_fetched(tmp_path: Path, write_run) -> None:
    html = write_run_report(write_run(tmp_path / "r", [0.0]).path).read_text()
    assert "<script" not in html
    assert "<b>&sort" not in html
    assert re.findall(r'(?:src|href)="', html) == []


def test_a_run_without_evaluations_has_a_report_too(tmp_path: Path, write_run) -> None:
    run = write_run(tmp_path / "r", [])
    assert "Held-out accuracy" not in parsed(write_run_report(run.path)).text


def test_a_suite_report_compares_the_arms(tmp_path: Path, write_run) -> None:
    base = RunConfig(rounds=2, policies={"ada": PolicyConfig(), "bob": PolicyConfig()})
    config = SuiteConfig(
        "pair", str(tmp_path), [0, 1], totals=["share/rescued"], base=base, arms={"alone": {}, "sgt": {}}
    )
    for arm in config.arms:
        for seed in config.seeds:
            write_run(tmp_path / "pair" / arm / f"seed_{seed}", [0.1, 0.25 + seed / 2], part="sort")
    page = parsed(write_suite_report(read_suite(config)))
    # 0.25 and 0.75 over two seeds: 0.50 ± 0.35
    assert "0.50 ± 0.35" in page.text
    assert page.tags["svg"] == 4
    assert page.tags["polygon"] == 8


def test_a_chart_of_one_point_of_equal_values_and_of_thousands_of_points_is_drawn() -> None:
    assert "<svg" in line_chart("one", [Line("a", [(0, 1.0)])])
    assert "<svg" in line_chart("flat", [Line("a", [(0, 0.0), (1, 0.0)])])
    many = line_chart("many", [Line("a", [(i, i * 0.1) for i in range(10_000)])])
    assert many.count("<circle") == 240
    assert line_chart("none", [Line("a", [])]) == ""
