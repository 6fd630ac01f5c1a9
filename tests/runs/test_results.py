"""Runs read back: curves, totals, and spreads over seeds."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from learners.report.tables import comparison, curves
from learners.run.config import PolicyConfig, RunConfig, SuiteConfig
from learners.run.directory import RunDirectory
from learners.run.lines import JsonLines, read_lines
from learners.run.results import Spread, read_run, read_spans, read_suite
from mutual_env.errors import ConfigError, StorageError


def suite(tmp_path: Path) -> SuiteConfig:
    base = RunConfig(rounds=2, policies={"ada": PolicyConfig(), "bob": PolicyConfig()})
    arms = {"alone": {}, "sgt": {"sharing.strategy": "sgt"}}
    return SuiteConfig("pair", str(tmp_path), [0, 1], totals=["share/rescued"], base=base, arms=arms)


def test_a_run_is_read_as_curves_and_totals(tmp_path: Path, write_run) -> None:
    run = read_run(write_run(tmp_path / "r", [0.0, 0.5]).path)
    assert run.evaluations["ada"]["accuracy/<b>&sort"] == ((0, 0.0), (1, 0.5))
    assert run.metrics["bob"]["reward"] == ((0, 0.0), (1, 0.5))
    assert (run.total("ada", "share/rescued"), run.total("ada", "nothing")) == (4.0, 0.0)
    assert (run.rounds, run.seconds, run.finished) == (2, 1.0, True)
    assert run.processor == ()  # a run of an earlier version does not say


def test_a_suite_compares_arms_over_seeds(tmp_path: Path, write_run) -> None:
    config = suite(tmp_path)
    for arm, ends in {"alone": (0.2, 0.4), "sgt": (0.8, 0.6)}.items():
        for seed, end in enumerate(ends):
            write_run(tmp_path / "pair" / arm / f"seed_{seed}", [0.1, end], part="sort")
    results = read_suite(config)
    assert results.measures() == ["accuracy", "accuracy/sort"]
    assert results.before("ada", "accuracy/sort").values == (0.1, 0.1)
    # 0.8 and 0.6: mean 0.7, sample deviation |0.8 - 0.6| / sqrt 2
    after = results.after("sgt", "ada", "accuracy/sort")
    assert after.mean == pytest.approx(0.7)
    assert after.deviation == pytest.approx(0.2 / math.sqrt(2))
    assert str(after) == "0.70 ± 0.14"
    assert [s.mean for _, s in results.mean_curve("alone", "bob", "accuracy/sort")] == pytest.approx([0.1, 0.3])
    data = json.loads(results.as_json())
    assert data["rows"][1]["after"]["sgt"] == [0.8, 0.6]
    assert data["totals"]["share/rescued"]["sgt"]["ada"] == [4.0, 4.0]


def test_long_names_of_arms_are_whole_in_80_columns(tmp_path: Path, write_run) -> None:
    config = suite(tmp_path)
    config.arms = {"alone": {}, "a-name-of-some-length": {}}
    config.totals = ["share/rescued", "reward"]
    for arm in config.arms:
        for seed in config.seeds:
            write_run(tmp_path / "pair" / arm / f"seed_{seed}", [0.1, 0.2], part="sort")
    console = Console(width=80, file=io.StringIO())
    console.print(comparison(read_suite(config)))
    printed = console.file.getvalue()
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    first, other = curves(read_suite(config)).plain.splitlines()[:2]
    assert first.rindex(" ") == other.rindex(" ")


def test_a_spread_of_nothing_is_not_a_number() -> None:
    assert math.isnan(Spread.of([]).mean)


def test_a_line_that_is_still_being_written_is_left_for_the_next_look(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2')
    assert list(read_lines(path)) == [{"a": 1}]


@pytest.mark.parametrize(("key", "value"), [("share", "half"), ("share", {}), ("outcome", 3), ("began", "then")])
def test_what_a_lease_may_lack_is_checked_where_it_stands(tmp_path: Path, write_run, key: str, value: object) -> None:
    run = write_run(tmp_path / "r", [0.0])
    lease = {"type": "span", "policy": "ada", "phase": "sampling", "devices": ["cpu"], "requested": 0.0, "began": 0.5}
    lease["ended"] = 1.5
    with run.timings.open("a") as file:
        file.write(json.dumps(lease) + "\n")
    assert [span.ran for span in read_spans(run.path)] == [1.0]
    with run.timings.open("a") as file:
        file.write(json.dumps({**lease, key: value}) + "\n")
    with pytest.raises(StorageError, match=f"'{key}' must be"):
        read_spans(run.path)


def test_lines_are_cut_back_to_a_position_and_written_again(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "x.jsonl")
    lines.append({"round": 0})
    position = lines.position()
    lines.append({"round": 1, "lost": True})
    lines.cut(position)
    lines.append({"round": 1, "loss": math.nan})
    assert list(read_lines(tmp_path / "x.jsonl")) == [{"round": 0}, {"round": 1, "loss": None}]
    with pytest.raises(StorageError, match="is shorter than its checkpoint says"):
        lines.cut(10_000)


def test_a_run_is_never_overwritten_and_never_written_twice_at_once(tmp_path: Path, write_run) -> None:
    run = write_run(tmp_path / "r", [0.0])
    with pytest.raises(ConfigError, match="already holds a run"):
        RunDirectory.create(run.path, "", {})
    with run.locked(), pytest.raises(StorageError, match="being written by another process"), run.locked():
        pass


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"is not a run directory: it has no run\.json"):
        RunDirectory.open(tmp_path)
