"""A suite: every arm over every seed, each run in a process of its own, watched through the files that it writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from learners import registry
from learners.numerics import environment
from learners.placement import showing
from learners.resources import Supply
from learners.run import lock
from learners.run.config import RunConfig, SuiteConfig, arm_config, load_suite, to_yaml
from learners.run.directory import WARM_STARTS, RunDirectory
from learners.run.growth import check_growth
from learners.run.lock import locked
from learners.run.processes import Process, Start, starting
from learners.run.results import SuiteResults, read_suite, run_path
from learners.run.slots import Slots
from learners.run.tail import reached
from learners.sealed import write_whole
from mutual_env.errors import StorageError, UnknownNameError

POLL_SECONDS = 0.25
LONGEST_RUN_SECONDS = 24 * 3600.0
STOP_SECONDS = 20.0
SUITE = "suite.yaml"


@dataclass(frozen=True, slots=True)
class Progress:
    """One run of the suite, as far as its files tell: waiting, starting, running, finished or failed; rounds done of
    how many; tokens a second of the last one (0: not known)."""

    arm: str
    seed: int
    state: str
    rounds: int
    total: int
    pace: float = 0.0


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some arms and seeds of a suite; none named: all."""

    arms: Sequence[str] = ()
    seeds: Sequence[int] = ()

    def of(self, config: SuiteConfig) -> tuple[list[str], list[int]]:
        for arm in self.arms:
            if arm not in config.arms:
                raise UnknownNameError.of("arm", arm, config.arms)
        for seed in self.seeds:
            if seed not in config.seeds:
                raise UnknownNameError.of("seed", str(seed), [str(known) for known in config.seeds])
        return [*(self.arms or config.arms)], [*(self.seeds or config.seeds)]


WatchSuite = Callable[[Sequence[Progress]], None]


@dataclass(slots=True)
class Member:
    """One arm under one seed. `failure`: why its process ended before it was done; `done`: it was seen to be
    finished."""

    arm: str
    seed: int
    path: Path
    rounds: int
    samples: int = 0
    process: Process | None = None
    began: float = 0.0
    failure: str = ""
    done: bool = False

    @classmethod
    def of(cls, suite: SuiteConfig, arm: str, seed: int, asked: RunConfig) -> Member:
        samples = asked.env.prompts_per_round * asked.env.group_size
        return cls(arm, seed, run_path(suite, arm, seed), asked.rounds, samples)

    @property
    def log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def finished(self) -> bool:
        """Of as many rounds as the suite asks for now. Hundreds are asked several times a second, each until it is."""
        self.done = self.done or self._says_finished()
        return self.done

    def _says_finished(self) -> bool:
        try:
            info = RunDirectory(self.path).read_info()
        except StorageError:
            return False
        config = info.get("config")
        return info.get("status") == "finished" and (not isinstance(config, dict) or config["rounds"] >= self.rounds)

    def progress(self) -> Progress:
        if self.process is None and self.finished:
            return Progress(self.arm, self.seed, "finished", self.rounds, self.rounds)
        state = "failed" if self.failure else "running" if self.process else "waiting"
        if not RunDirectory(self.path).info.is_file():
            return Progress(self.arm, self.seed, "starting" if self.process else state, 0, self.rounds)
        now = reached(self.path, self.samples)
        return Progress(self.arm, self.seed, state, now.rounds, self.rounds, now.pace)


def run_suite(
    config: SuiteConfig,
    *,
    replace: bool = False,
    accept_changes: bool = False,
    watch: WatchSuite | None = None,
    only: Chosen | None = None,
) -> SuiteResults:
    """Run what is not finished yet; a run that was begun before goes on from its checkpoint. A run that fails does not
    keep the others from running: the results say which it was, and why. `only`: a part of the suite now, the rest at
    another time."""
    root = Path(config.output) / config.name
    arms, seeds = (only or Chosen()).of(config)
    asked = {arm: arm_config(config, arm, seeds[0]) for arm in arms}
    members = [Member.of(config, arm, seed, asked[arm]) for seed in seeds for arm in arms]
    with locked(root, make=True):
        if replace and (root / SUITE).is_file():
            _clear(root)
        keep_config(root, config)
        flags = ["--accept-changes"] if accept_changes else []
        _run_all(config, members, [str(root / SUITE), *flags], watch)
        results = read_suite(config, [member.failure for member in members if member.failure])
        write_whole(root / "results.json", results.as_json() + "\n")
    return results


def _run_all(
    config: SuiteConfig, members: Sequence[Member], arguments: Sequence[str], watch: WatchSuite | None
) -> None:
    processes = config.processes or os.cpu_count() or 1
    waiting = {f"{m.arm}/{m.seed}": m for m in in_turn(members, processes) if not m.finished}
    supply, born_with = Supply.local(), _environment(config, processes)
    slots = Slots(waiting, processes, _gpus(config), supply)
    running: dict[str, Member] = {}
    with starting(_modules(config), born_with, forks=len(waiting) > 1 and not supply.gpus) as start:
        try:
            while waiting or running:
                for name, gpus in slots.next():
                    running[name] = waiting.pop(name)
                    _start(running[name], start, arguments, {**born_with, **showing(gpus)})
                time.sleep(POLL_SECONDS)
                for name in [name for name, member in running.items() if _ended(member)]:
                    del running[name]
                    slots.give_back(name)
                if watch is not None:
                    watch([member.progress() for member in members])
        finally:
            _stop(list(running.values()))


def in_turn(members: Sequence[Member], processes: int) -> list[Member]:
    """As many seeds at a time as there are processes, arm after arm: what the runs of one seed have in common (see
    `WARM_STARTS`) is then made by the first of them, and not by several at the same time."""
    seeds = list(dict.fromkeys(member.seed for member in members))
    arms = list(dict.fromkeys(member.arm for member in members))
    return sorted(members, key=lambda m: (seeds.index(m.seed) // processes, arms.index(m.arm), seeds.index(m.seed)))


def _modules(config: SuiteConfig) -> list[str]:
    """What the runs will load."""
    base = config.base
    policies = [*base.policies.values(), *base.teachers.values(), *base.seats.values()]
    return ["learners.commands.train", *sorted({registry.module(policy.learner) for policy in policies})]


def _gpus(config: SuiteConfig) -> float:
    """That a run takes, where there are some."""
    if config.gpus is not None:
        return config.gpus
    return float(any(policy.learner != "tabular" for policy in config.base.policies.values()))


def _clear(root: Path) -> None:
    """Remove an earlier suite of this name, unless one of its runs is still being written."""
    with ExitStack() as stack:
        for info in root.glob("*/*/run.json"):
            stack.enter_context(locked(info.parent))
        for path in root.iterdir():
            if path.name != lock.NAME:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def keep_config(root: Path, config: SuiteConfig) -> Path:
    """The suite's own copy of its configuration; one of another configuration is not written over, but for more seeds,
    arms and rounds."""
    kept, resolved = root / SUITE, to_yaml(config)
    if kept.is_file() and kept.read_bytes() != resolved.encode():
        check_growth(root, load_suite(kept), config)
    write_whole(kept, resolved)
    return kept


def _environment(config: SuiteConfig, processes: int) -> dict[str, str]:
    """What every run is born with: as many threads as leave the others theirs, unless the configuration counts them,
    and the weights that runs of one seed start from."""
    resources = config.base.resources
    threads = resources.threads or max(1, (os.cpu_count() or 1) // processes)
    kept = str((Path(config.output) / config.name / "warm_starts").resolve())
    own = {WARM_STARTS: kept, "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **environment(resources.instructions, threads), **own}


def _start(member: Member, start: Start, arguments: Sequence[str], environment: dict[str, str]) -> None:
    """`arguments` name the suite's own copy of its configuration: what becomes of the original does not matter."""
    member.path.parent.mkdir(parents=True, exist_ok=True)
    words = ["train", *arguments, f"--arm={member.arm}", f"--seed={member.seed}", "--quiet", "--continue"]
    member.process = start(words, member.log, environment)
    member.began = time.monotonic()


def _ended(member: Member) -> bool:
    assert member.process is not None
    code = member.process.poll()
    if code is None and time.monotonic() - member.began > LONGEST_RUN_SECONDS:
        _stop([member])
        member.failure = f"{member.path} ran for over {LONGEST_RUN_SECONDS:.0f} s and was ended"
    elif code is None:
        return False
    elif code != 0:
        tail = member.log.read_text(errors="replace").strip().splitlines()[-3:]
        member.failure = f"{member.path} ended with exit code {code}: {' / '.join(tail)} (whole log: {member.log})"
    member.process = None
    return True


def _stop(members: Sequence[Member]) -> None:
    """All of them at once: each saves what it has."""
    alive = [member.process for member in members if member.process is not None and member.process.poll() is None]
    for process in alive:
        process.terminate()
    ends = time.monotonic() + STOP_SECONDS
    for process in alive:
        try:
            process.wait(timeout=max(0.1, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=STOP_SECONDS)
