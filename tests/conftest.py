"""The digits that tests count in, and what they cost in processor time: `pytest --processor-times 20` prints the twenty
dearest and the whole.

Wall time says little on a machine that does other things too, and nothing about a test that waits. A test's processor
time is that of the process it runs in and of every process that it started and waited for.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PINNED = "import json; from learners.numerics import environment; print(json.dumps(environment('avx2', 1)))"
NAME = "processor seconds"
NATIVE = ("openrlhf", "vllm")  # their kernels for bfloat16 want wider instructions
started = pytest.StashKey[float]()
collected = pytest.StashKey[float]()


def processor_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class ProcessorTimes:
    """Every test's seconds, from this process or from those of pytest-xdist, which send it with the report."""

    def __init__(self, shown: int, file: Path | None) -> None:
        self.shown, self.file = shown, file
        self.seconds: Counter[str] = Counter()
        self.workers: list[tuple[float, float]] = []  # until the first test, and in all

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self.seconds[report.nodeid] += sum(value for name, value in report.user_properties if name == NAME)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.workers.append(node.workeroutput[NAME])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        workers = self.workers or [(config.stash.get(collected, 0.0), processor_seconds())]
        before, whole = (sum(column) for column in zip(*workers, strict=True))
        terminalreporter.section("processor times")
        for test, seconds in self.seconds.most_common(self.shown):
            terminalreporter.write_line(f"{seconds:8.2f} s  {test}")
        parts = f"{sum(self.seconds.values()):.1f} s in tests, {before:.1f} s until the first one"
        terminalreporter.write_line(f"{whole:8.2f} s  in all: {parts}")
        if self.file is not None:
            self.file.write_text("".join(f"{seconds:.3f} {test}\n" for test, seconds in self.seconds.most_common()))


def pin() -> None:
    """Tests count in the digits of a run, so that both are the same, and no run that they start has to begin again.
    Another process is asked how, since NumPy must not be loaded here before, nor by the other `conftest.py`."""
    asked = subprocess.run([sys.executable, "-c", PINNED], capture_output=True, text=True, check=True, timeout=60)
    os.environ.update(json.loads(asked.stdout))


if "PYTEST_XDIST_WORKER" not in os.environ and not any(map(find_spec, NATIVE)):
    pin()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processor-times", type=int, metavar="N", help="print the N tests that cost most, and the whole")
    parser.addoption("--processor-times-file", type=Path, metavar="FILE", help="with it: write every test's seconds")


def pytest_configure(config: pytest.Config) -> None:
    shown = config.getoption("processor_times")
    if shown is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(ProcessorTimes(shown, config.getoption("processor_times_file")))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported and collected stays to the end. A full garbage collection would look through all of it every
    time, for half a second, and some tests ask for dozens."""
    gc.collect()
    gc.freeze()
    session.config.stash[collected] = processor_seconds()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # a worker of pytest-xdist
        session.config.workeroutput[NAME] = (session.config.stash.get(collected, 0.0), processor_seconds())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    item.stash[started] = processor_seconds()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    try:
        yield
    finally:
        item.user_properties.append((NAME, processor_seconds() - item.stash[started]))
