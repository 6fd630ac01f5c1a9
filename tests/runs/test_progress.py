"""What a person or a log is told while a run goes on."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from learners.report.progress import RunProgress
from learners.run.config import RunConfig
from learners.run.trackers import TrackedRun


def told(console: Console, *, rounds: int = 40) -> None:
    config = RunConfig(rounds=rounds)
    names = ("a-policy-of-a-long-name", "another-of-a-long-name", "a-third-one")
    with RunProgress(config, quiet=False, console=console) as progress:
        progress.started(TrackedRun("run", Path(), {}, names, rounds, 0))
        progress.measured(0, {name: {"eval/accuracy": 0.1} for name in names})
        for done in range(1, rounds + 1):
            progress.entered("sampling")
            progress.measured(done, {name: {"reward/mean": 0.25, "length/tokens": 4.0} for name in names})
        progress.measured(rounds, {name: {"eval/accuracy": 0.5} for name in names})
        progress.finished("finished")


def test_a_log_gets_whole_lines_with_a_clock_however_narrow_it_is() -> None:
    written = io.StringIO()
    told(Console(file=written, width=40))
    lines = written.getvalue().splitlines()
    assert len(lines) == 12  # ten rounds, two evaluations
    assert all(re.match(r"\d\d:\d\d:\d\d  round \d+/40  ", line) for line in lines)
    assert all(line.count("0.250") == 3 for line in lines if "reward" in line)
    assert "evaluated a-policy-of-a-long-name 0.500" in lines[-1]
    assert "tokens/s" in lines[1]


def test_a_terminal_sees_phase_pace_and_time_left() -> None:
    written = io.StringIO()
    told(Console(file=written, width=160, force_terminal=True))
    assert "tokens/s" in written.getvalue()
    assert "round 4/40" not in written.getvalue()  # the bar alone
