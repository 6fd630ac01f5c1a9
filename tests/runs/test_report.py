"""Reports are one self-contained, well-formed HTML file, whatever the policies wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from learners.report import write_run_report, write_suite_report
from learners.report.chart import Line, line_chart
from learners.report.tables import comparison
from learners.run.config import PolicyConfig, RunConfig, SuiteConfig
from learners.run.results import read_suite

WORDS = ("so", "we", "add", "the", "apples", "and", "take", "away", "what", "was", "eaten")
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
    assert page.tags["figure"] == 3
    assert "1 metrics that never changed" in page.text
    assert "timeout" in page.text


def test_what_a_policy_wrote_is_never_markup_and_nothing_is_fetched(tmp_path: Path, write_run) -> None:
    html = write_run_report(write_run(tmp_path / "r", [0.0]).path).read_text()
    # one script, the report's own, which alone may run: everything else that looks like one is text
    assert re.findall(r"<script[^>]*>(.{0,12})", html) == ['"use strict"']
    digest = base64.b64encode(
        hashlib.sha256(html.split("<script>")[1].split("</script>")[0].encode()).digest()
    ).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in html
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
    assert page.tags["figure"] == 4
    assert page.tags["polygon"] == 8
    assert "2 arms, 2 seeds, 2 rounds" in page.text


def test_a_suite_that_has_begun_says_of_how_many_seeds_its_values_are(tmp_path: Path, write_run) -> None:
    base = RunConfig(rounds=2, policies={"ada": PolicyConfig(), "bob": PolicyConfig()})
    config = SuiteConfig("pair", str(tmp_path), [0, 1, 2, 3, 4], base=base, arms={"alone": {}, "sgt": {}})
    for arm, seeds in (("alone", 2), ("sgt", 2)):
        for seed in range(seeds):
            write_run(tmp_path / "pair" / arm / f"seed_{seed}", [0.1, 0.25])
    assert read_suite(config).seeds == "2 of 5 seeds"
    write_run(tmp_path / "pair" / "sgt" / "seed_2", [0.1, 0.25])
    results = read_suite(config)
    assert "2 arms, 2 to 3 of 5 seeds" in parsed(write_suite_report(results)).text
    assert "over 2 to 3 of 5 seeds" in str(comparison(results).title)


def test_a_chart_of_one_point_of_equal_values_and_of_thousands_of_points_is_drawn() -> None:
    assert "<svg" in line_chart("one", [Line("a", [(0, 1.0)])])
    assert "<svg" in line_chart("flat", [Line("a", [(0, 0.0), (1, 0.0)])])
    many = line_chart("many", [Line("a", [(i, i * 0.1) for i in range(10_000)])])
    assert len(re.findall(r"\d+\.\d,\d+\.\d", many.split('class="line c0 raw"')[1].split("/>")[0])) == 240
    assert line_chart("none", [Line("a", [])]) == ""


def test_ten_lines_are_told_apart() -> None:
    chart = line_chart("ten", [Line(f"arm {i}", [(0, 0.1), (1, 0.2)], [0.1, 0.1]) for i in range(10)])
    for what in ('<polyline class="line ', 'class="key ', '<line class="line '):  # the line, its label, a piece of it
        classes = [part.split('"')[0] for part in chart.split(what)[1:]]
        assert len(classes) == len(set(classes)) == 10
    assert "band" not in chart


@pytest.mark.long
def test_a_report_of_a_thousand_rounds_is_made_in_seconds_and_stays_small(tmp_path: Path, write_run) -> None:
    run = write_run(tmp_path / "r", [0.5])
    numbers = random.Random(0)
    with run.metrics.open("a") as metrics, run.samples.open("w") as samples, run.lessons.open("w") as lessons:
        for round_ in range(1000):
            for policy, other in (("ada", "bob"), ("bob", "ada")):
                where = {"round": round_, "policy": policy}
                values = {f"part/{i}": numbers.random() for i in range(40)}
                metrics.write(json.dumps({**where, "metrics": values}) + "\n")
                texts = [" ".join(numbers.choices(WORDS, k=40)) for _ in range(32)]
                groups = [
                    {
                        "task": f"t{i}",
                        "prompt": f"prompt {i}",
                        "answer": "1",
                        "completions": [[t, 0.0, "ok", False, 40, "", 0.1] for t in texts[4 * i : 4 * i + 4]],
                    }
                    for i in range(8)
                ]
                samples.write(json.dumps({**where, "groups": groups, "right": [0, 4] * 4, "left_out": 0}) + "\n")
                lesson = {
                    "author": other,
                    "task": "t1",
                    "text": texts[0],
                    "advantage": 1,
                    "weight": 0.1,
                    "loss": "L",
                    "correction": "C",
                }
                flow = {policy: [32, 32, 1.0], other: [1, 1, 0.1]}
                lessons.write(
                    json.dumps({**where, "flow": flow, "dropped": {}, "lessons": [lesson], "left_out": 0}) + "\n"
                )
    began = time.process_time()
    report = write_run_report(run.path)
    assert time.process_time() - began < 10
    assert report.stat().st_size < 5_000_000
    page = parsed(report)
    assert "spread evenly" in page.text
    assert "ada → bob" in page.text
