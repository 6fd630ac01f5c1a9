"""A suite: every arm over every seed, each run in a process of its own, watched through the files that it writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from learners.run.config import SuiteConfig, to_yaml
from learners.run.directory import RunDirectory
from learners.run.results import SuiteResults, read_run, read_suite, run_path
from mutual_env.errors import ConfigError, DeadlineExceededError, TrainingError

POLL_SECONDS = 0.25
LONGEST_RUN_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Progress:
    """One run of the suite, as far as its files tell."""

    arm: str
    seed: int
    state: str
    rounds: int


WatchSuite = Callable[[Sequence[Progress]], None]


@dataclass(slots=True)
class _Member:
    arm: str
    seed: int
    path: Path
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0

    @property
    def finished(self) -> bool:
        run = RunDirectory(self.path)
        return run.info.is_file() and run.read_info().get("status") == "finished"

    def progress(self) -> Progress:
        if not RunDirectory(self.path).info.is_file():
            return Progress(self.arm, self.seed, "starting" if self.process else "waiting", 0)
        rounds = _last_round(self.path)
        state = "finished" if self.finished else "running" if self.process else "waiting"
        return Progress(self.arm, self.seed, state, rounds)


def run_suite(
    file: Path,
    overrides: Sequence[str],
    config: SuiteConfig,
    *,
    replace: bool = False,
    watch: WatchSuite | None = None,
) -> SuiteResults:
    """Run what is not finished yet; a run that was begun before goes on from its checkpoint."""
    root = Path(config.output) / config.name
    if replace and (root / "suite.yaml").is_file():
        shutil.rmtree(root)
    _keep_config(root, config)
    members = [_Member(arm, seed, run_path(config, arm, seed)) for seed in config.seeds for arm in config.arms]
    waiting = [member for member in members if not member.finished]
    running: list[_Member] = []
    try:
        while waiting or running:
            while waiting and len(running) < _processes(config):
                running.append(_start(waiting.pop(0), file, overrides, _processes(config)))
            time.sleep(POLL_SECONDS)
            running = [member for member in running if not _ended(member)]
            if watch is not None:
                watch([member.progress() for member in members])
    finally:
        for member in running:
            _stop(member)
    results = read_suite(config)
    (root / "results.json").write_text(results.as_json() + "\n")
    return results


def _keep_config(root: Path, config: SuiteConfig) -> None:
    root.mkdir(parents=True, exist_ok=True)
    kept, resolved = root / "suite.yaml", to_yaml(config)
    if kept.is_file() and kept.read_text() != resolved:
        raise ConfigError(f"{root} holds a suite of another configuration: give --replace, or another `name`")
    kept.write_text(resolved)


def _processes(config: SuiteConfig) -> int:
    return config.processes or os.cpu_count() or 1


def _start(member: _Member, file: Path, overrides: Sequence[str], processes: int) -> _Member:
    command = [sys.executable, "-m", "learners.cli", "train", str(file), *overrides]
    command += ["--arm", member.arm, "--seed", str(member.seed), "--quiet", "--continue"]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    member.path.parent.mkdir(parents=True, exist_ok=True)
    with member.path.with_suffix(".log").open("ab") as log:
        member.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"},
        )
    member.began = time.monotonic()
    return member


def _ended(member: _Member) -> bool:
    assert member.process is not None
    code = member.process.poll()
    if code is None:
        if time.monotonic() - member.began > LONGEST_RUN_SECONDS:
            raise DeadlineExceededError(f"{member.path} ran for over {LONGEST_RUN_SECONDS:.0f} s")
        return False
    if code != 0:
        log = member.path.with_suffix(".log")
        tail = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise TrainingError(f"{member.path} ended with exit code {code}: {' / '.join(tail)} (whole log: {log})")
    member.process = None
    return True


def _stop(member: _Member) -> None:
    if member.process is None or member.process.poll() is not None:
        return
    member.process.terminate()
    try:
        member.process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        member.process.kill()


def _last_round(path: Path) -> int:
    try:
        return read_run(path).rounds
    except (OSError, ValueError):  # written to at this very moment: the next look will do
        return 0
