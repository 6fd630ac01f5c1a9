"""However a run or a suite is ended, nothing of it stays: no process, no temporary state, no untrue status."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from numpy.random import Generator

from learners.aside import Aside
from learners.run.directory import RunDirectory
from mutual_env.seeding import generator
from mutual_env.verifiers.pool import directories
from tests.runs.test_resume import whole
from tests.tiers import rest_long

CONFIG = """
name: r
rounds: 1000000
env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 3, options: {digits: 1}}
policies:
  ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+="}}}
  bob: {learner: tabular, options: {tokenizer: {kind: pair, alphabet: "0123456789+=", merges: ["01"]}}}
checkpoint: {every: 3}
resources: {executor: EXECUTOR}
"""
WAIT_SECONDS = 60.0
KILLS = int(os.environ.get("MUTUAL_ENV_KILLS", "100"))


@pytest.fixture(autouse=True)
def hangups_are_heard() -> Iterator[None]:
    """Whoever started the tests with nohup hands its deafness on to all that they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Place:
    """Where something runs whose processes and temporary files are to be found again."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary, self._mark = path, path / "tmp", uuid.uuid4().hex
        self.temporary.mkdir()

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TMPDIR": str(self.temporary), "MUTUAL_ENV_TEST_MARK": self._mark}
        command = [sys.executable, "-m", "learners.cli", *map(str, arguments)]
        with (self.path / "log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def processes(self) -> list[int]:
        """Whoever carries the mark, children of children too."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self._mark.encode() in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def left(self) -> list[str]:
        """Of temporary files: folders and sockets too."""
        return sorted(path.name for path in self.temporary.iterdir())

    def left_for_good(self) -> list[str]:
        """But for what the next pool of this user removes, once it is ten minutes old."""
        for path in self.temporary.glob(f"{directories.PREFIX}*"):
            os.utime(path, (0, 0))
        directories.remove_stale(self.temporary)
        return self.left()


def shared_memory() -> set[str]:
    """What POSIX and System V keep of processes that are gone, by names that others on this machine do not use."""
    posix = {path.name for path in Path("/dev/shm").glob("*mutual-env*")} if Path("/dev/shm").is_dir() else set()
    listed = [Path("/proc/sysvipc") / kind for kind in ("shm", "sem", "msg")]
    return posix | {f"{p.name} {line}" for p in listed if p.is_file() for line in p.read_text().splitlines()[1:]}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def wait_until(true: Callable[[], object], why: str = "") -> None:
    ends = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < ends, why
        time.sleep(0.05)


def run_file(place: Place, executor: str, **changes: str) -> Path:
    text = CONFIG.replace("EXECUTOR", executor)
    for old, new in changes.items():
        text = text.replace(f"{old}: 1000000", f"{old}: {new}")
    path = place.path / "run.yaml"
    path.write_text(f"{text}output: {place.path}\n")
    return path


def has_written(directory: Path) -> bool:
    metrics = directory / "metrics.jsonl"
    return metrics.is_file() and metrics.stat().st_size > 2000


@pytest.mark.parametrize(
    ("number", "whom"),
    rest_long([(signal.SIGTERM, "the process"), (signal.SIGTERM, "its group"), (signal.SIGHUP, "its group")], quick=1),
)
def test_a_signal_ends_a_run_and_all_that_belongs_to_it(place: Place, number: signal.Signals, whom: str) -> None:
    process = place.start("train", run_file(place, "processes"), "--quiet")
    wait_until(lambda: has_written(place.path / "r"))
    assert len(place.processes()) >= 3
    (os.kill if whom == "the process" else os.killpg)(process.pid, number)
    assert process.wait(timeout=WAIT_SECONDS) == 128 + number
    assert RunDirectory(place.path / "r").read_info()["status"].startswith("stopped after ")
    wait_until(lambda: not place.processes())
    assert place.left() == []
    log = (place.path / "log").read_text()
    assert "goes on from its last checkpoint" in log
    assert "Traceback" not in log


def test_a_run_that_ignores_hangups_from_the_start_goes_on_ignoring_them(place: Place) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        process = place.start("train", run_file(place, "serial"), "--quiet")
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_until(lambda: has_written(place.path / "r"))
    process.send_signal(signal.SIGHUP)
    size = (place.path / "r" / "metrics.jsonl").stat().st_size
    wait_until(lambda: (place.path / "r" / "metrics.jsonl").stat().st_size > size)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=WAIT_SECONDS) == 128 + signal.SIGTERM


def killed_and_resumed(place: Place, times: int) -> None:
    """Kill runs of worker processes at random moments, so many that were going on; nothing outlives the kills, each
    last resume clears up, and what was written is what a run that nobody killed has written."""
    path = run_file(place, "processes", rounds="60")
    process = place.start("train", path, "name=undisturbed", "resources.executor=serial", "--quiet")
    assert process.wait(timeout=WAIT_SECONDS) == 0
    undisturbed = whole(place.path / "undisturbed")
    kept = shared_memory()
    rng = generator("endings", times)
    directory = place.path / "r"
    kills = 0
    while kills < times or directory.is_dir():
        goes_on = (directory / "run.json").is_file()
        process = place.start("train", *(["--resume", directory] if goes_on else [path]), "--quiet")
        if kills < times:
            wait_for_a_moment(process, directory / "metrics.jsonl", rng)
            process.send_signal([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP][int(rng.integers(3))])
        code = process.wait(timeout=WAIT_SECONDS)
        wait_until(lambda: not place.processes(), "a worker outlived its run")
        if code != 0:
            assert kills < times, (place.path / "log").read_text()[-2000:]
            assert not directory.is_dir() or RunDirectory(directory).status() != "running"
            kills += 1
            continue
        assert RunDirectory(directory).status() == "finished"
        assert place.left_for_good() == []
        hidden = [path.name for path in directory.rglob(".*")]
        assert sorted(hidden) == [".exchange", ".exchange", ".lock"]
        assert whole(directory) == undisturbed
        shutil.rmtree(directory)
    assert shared_memory() <= kept


def wait_for_a_moment(process: subprocess.Popen[bytes], metrics: Path, rng: Generator) -> None:
    """Some while it starts or clears up after the last, some while it goes on."""
    seconds = float(rng.uniform(0.1, 1.5))
    if rng.random() < 0.7:
        size = metrics.stat().st_size if metrics.is_file() else 0
        wait_until(
            lambda: process.poll() is not None or (metrics.is_file() and metrics.stat().st_size != size), "it stands"
        )
        seconds /= 3
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)


@pytest.mark.long
def test_kills_at_random_moments_leave_nothing(place: Place) -> None:
    killed_and_resumed(place, 2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_at_random_moments_leave_nothing(place: Place) -> None:
    """`make soak`."""
    killed_and_resumed(place, KILLS)


SUITE = """
name: s
seeds: [0, 1]
processes: 2
base:
  rounds: ROUNDS
  env: {id: mutual/arithmetic-v0, group_size: 4, prompts_per_round: 3, options: {digits: 1}}
  policies: {ada: {learner: tabular, options: {tokenizer: {kind: char, alphabet: "0123456789+="}}}}
  evaluation: {every: 2, prompts: 4}
  checkpoint: {every: 2}
arms: ARMS
"""


def suite_file(place: Place, rounds: int, arms: str = "{alone: {sharing.strategy: independent}}") -> Path:
    path = place.path / "suite.yaml"
    path.write_text(SUITE.replace("ROUNDS", str(rounds)).replace("ARMS", arms) + f"output: {place.path}\n")
    return path


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL, pytest.param(signal.SIGHUP, marks=pytest.mark.long)]
)
def test_whatever_ends_a_suite_ends_its_runs(place: Place, number: signal.Signals) -> None:
    members = [place.path / "s" / "alone" / f"seed_{seed}" for seed in (0, 1)]
    process = place.start("suite", suite_file(place, 1_000_000), "--quiet")
    wait_until(lambda: all(map(has_written, members)))
    process.send_signal(number)
    code = process.wait(timeout=WAIT_SECONDS)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    wait_until(lambda: not place.processes())
    assert [RunDirectory(member).read_info()["status"].split(" after")[0] for member in members] == ["stopped"] * 2


@pytest.mark.long
def test_a_suite_whose_run_goes_on_is_not_replaced(place: Place) -> None:
    first = place.start("suite", suite_file(place, 1_000_000), "--quiet")
    member = place.path / "s" / "alone" / "seed_0"
    wait_until(lambda: has_written(member))
    again = place.start("suite", suite_file(place, 2), "--quiet", "--replace")
    assert again.wait(timeout=WAIT_SECONDS) == 1
    assert "s is being written by another process" in (place.path / "log").read_text()
    assert first.poll() is None
    # and where only one of its runs is left, as after a kill of the suite alone
    first.send_signal(signal.SIGTERM)
    first.wait(timeout=WAIT_SECONDS)
    with RunDirectory(member).locked():
        again = place.start("suite", suite_file(place, 2), "--quiet", "--replace")
        assert again.wait(timeout=WAIT_SECONDS) == 1
    assert "seed_0 is being written by another process" in (place.path / "log").read_text()
    assert member.is_dir()
    again = place.start("suite", suite_file(place, 2), "--quiet", "--replace")
    assert again.wait(timeout=WAIT_SECONDS) == 0
    assert RunDirectory(member).status() == "finished"


@pytest.mark.long
def test_a_run_that_fails_does_not_keep_the_others_of_its_suite_from_running(place: Place) -> None:
    arms = "{bad: {policies.ada.options.tokenizer.alphabet: xy}, good: {}}"
    process = place.start("suite", suite_file(place, 2, arms), "--quiet")
    assert process.wait(timeout=WAIT_SECONDS) == 1
    log = (place.path / "log").read_text()
    for seed in (0, 1):
        assert RunDirectory(place.path / "s" / "good" / f"seed_{seed}").status() == "finished"
        assert f"error: {place.path}/s/bad/seed_{seed} ended with exit code 1" in log
    assert "characters outside the alphabet" in log
    assert (place.path / "s" / "report.html").is_file()


def test_a_temporary_folder_whose_process_is_gone_is_removed_by_the_next_and_no_other_is(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from learners.aside import Aside\n"
        "Aside('mutual-env-state-', Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    with Aside("mutual-env-state-", tmp_path) as mine:
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=WAIT_SECONDS, check=False)
        foreign = tmp_path / "mutual-env-state-foreign"
        foreign.mkdir()
        (tmp_path / "mutual-env-state-link").symlink_to(foreign)
        assert len(list(tmp_path.iterdir())) == 4
        with Aside("mutual-env-state-", tmp_path) as second:
            left = {mine.name, second.name, foreign.name, "mutual-env-state-link"}
            assert {path.name for path in tmp_path.iterdir()} == left
    assert {path.name for path in tmp_path.iterdir()} == {foreign.name, "mutual-env-state-link"}
