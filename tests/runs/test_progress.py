"""What a person or a log is told while a run goes on: in a real terminal of any width, and in a file."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from learners.report.progress import RunProgress, SuiteProgress, per_second
from learners.run.config import RunConfig, SuiteConfig
from learners.run.suite import Progress as RunState
from learners.run.tail import TAIL_BYTES, reached
from learners.run.trackers import TrackedRun

ROOT = Path(__file__).parents[2]
NAMES = ("a-policy-of-a-long-name", "another-of-a-long-name", "a-third-one", "a-fourth", "a-fifth")
SUITE = SuiteConfig("many", seeds=[0, 1, 2], arms={"alone": {}, "an-arm-of-quite-a-long-name": {}})


def told(console: Console, *, rounds: int = 40) -> None:
    with RunProgress(RunConfig(rounds=rounds), quiet=False, console=console) as progress:
        progress.started(TrackedRun("run", Path(), {}, NAMES, rounds, 0))
        progress.measured(0, {name: {"eval/accuracy": 0.1} for name in NAMES})
        for done in range(1, rounds + 1):
            progress.entered("sampling")
            progress.measured(done, {name: {"reward/mean": 0.25, "length/tokens": 4.0} for name in NAMES})
        progress.measured(rounds, {name: {"eval/accuracy": 0.5} for name in NAMES})
        progress.finished("finished")


def states(first: str, second: str, rounds: int) -> list[RunState]:
    """Of six runs: two are as said, the others wait."""
    keys = [(arm, seed) for seed in SUITE.seeds for arm in SUITE.arms]
    of = {keys[0]: first, keys[1]: second}
    return [
        RunState(arm, seed, of.get((arm, seed), "waiting"), rounds if (arm, seed) in of else 0, 40, 99.0)
        for arm, seed in keys
    ]


def told_of_a_suite(console: Console) -> None:
    with SuiteProgress(SUITE, quiet=False, console=console) as progress:
        for first, second, rounds in (
            ("starting", "waiting", 0),
            ("running", "starting", 20),
            ("finished", "failed", 40),
        ):
            progress(states(first, second, rounds))


def in_a_terminal(function: str, width: int, height: int = 20) -> list[str]:
    """Every line that a real terminal of this size was sent, without colours and movements."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    script = f"from rich.console import Console; import tests.runs.test_progress as t; t.{function}(Console())"
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment = {**kept, "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment
    ) as process:
        os.close(theirs)
        sent = b""
        while part := _read(ours):
            sent += part
        assert process.wait(60) == 0, sent.decode()
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent.decode())
    return [line.rstrip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.parametrize("width", [80, 40])
def test_a_terminal_sees_bar_phase_pace_and_every_policy_whatever_its_width(width: int) -> None:
    lines = in_a_terminal("told", width)
    assert max(map(len, lines)) <= width
    assert any(re.fullmatch(r"run ━.* 40/40", line) for line in lines)
    assert any(re.match(r"finished  [\d,.]+ tokens/s$", line) for line in lines)
    for name in NAMES:
        assert any(re.fullmatch(rf"{name}\s+0\.250\s+0\.500", line) for line in lines)
    assert not any("round 4/40" in line for line in lines)  # the bar alone


def test_a_low_terminal_says_how_many_policies_it_has_no_room_for() -> None:
    lines = in_a_terminal("told", 80, height=8)
    assert "and 2 more" in lines
    assert not any(line.startswith("a-fifth") for line in lines)


@pytest.mark.parametrize("width", [80, 40])
def test_a_terminal_sees_a_suites_bar_and_those_runs_that_go_on(width: int) -> None:
    lines = in_a_terminal("told_of_a_suite", width)
    assert max(map(len, lines)) <= width
    assert any(re.match(r"many\s+━.* 80/240 .*left$", line) for line in lines)
    assert lines[-1] == "1 finished, 4 waiting, 1 failed"


def test_a_log_gets_whole_lines_with_a_clock_however_narrow_it_is() -> None:
    written = io.StringIO()
    told(Console(file=written, width=40))
    lines = written.getvalue().splitlines()
    assert len(lines) == 12  # ten rounds, two evaluations
    assert all(re.match(r"\d\d:\d\d:\d\d  round \d+/40  ", line) for line in lines)
    assert all(line.count("0.250") == 5 for line in lines if "reward" in line)
    assert "evaluated a-policy-of-a-long-name 0.500" in lines[-1]
    assert "tokens/s" in lines[1]


def test_a_log_of_a_suite_has_a_line_for_each_beginning_and_each_end() -> None:
    written = io.StringIO()
    told_of_a_suite(Console(file=written, width=40))
    lines = [line.split("  ")[1:] for line in written.getvalue().splitlines()]
    assert [line[:2] for line in lines] == [
        ["seed 0, alone", "starting"],
        ["seed 0, an-arm-of-quite-a-long-name", "starting"],
        ["seed 0, alone", "finished"],
        ["seed 0, an-arm-of-quite-a-long-name", "failed"],
    ]
    assert lines[2][2] == "40 rounds, 1 of 6 runs finished"


def write_lines(path: Path, lines: Sequence[Mapping[str, object]], end: str = "") -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + end)


def test_how_far_a_run_has_come_is_read_from_the_ends_of_its_files(tmp_path: Path) -> None:
    assert reached(tmp_path, 8).rounds == 0
    metrics: list[Mapping[str, object]] = [
        {"round": at, "policy": name, "metrics": {"length/tokens": 3.0, "x" * 200: 1.0}}
        for at in range(300)
        for name in ("ada", "bob")
    ]
    write_lines(tmp_path / "metrics.jsonl", metrics, end='{"round": 300, "pol')
    write_lines(tmp_path / "timings.jsonl", [{"type": "round", "round": 299, "seconds": 2.0}, {"type": "span"}])
    assert (tmp_path / "metrics.jsonl").stat().st_size > TAIL_BYTES
    now = reached(tmp_path, 8)
    # 3 tokens a sample, 8 samples, two policies, in two seconds
    assert (now.rounds, now.pace) == (300, 24.0)
    write_lines(tmp_path / "metrics.jsonl", [*metrics, {"round": 300, "policy": "ada", "evaluation": {}}])
    assert reached(tmp_path, 8).rounds == 300


def test_a_pace_below_one_token_a_second_is_no_standstill() -> None:
    assert [per_second(x) for x in (0.42, 9.94, 12.3, 4567.0)] == [
        "0.42 tokens/s",
        "9.94 tokens/s",
        "12 tokens/s",
        "4,567 tokens/s",
    ]
