"""Misdeeds on the real pool: each ends with its own verdict, changes no other's, leaves nothing behind (see `pool`)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mutual_env.types import Task, Verdict
from mutual_env.verifiers import VerifierPool

MakePool = Callable[..., VerifierPool]
OTHERS = 12


def among_others(verifiers: VerifierPool, task: Task, deed: str) -> Verdict:
    """The verdict on a deed, in the middle of honest items whose verdicts must be as ever."""
    items = [(task, f"number:{i}") for i in range(OTHERS)]
    items.insert(OTHERS // 2, (task, deed))
    verdicts = verifiers.verify("hostile:Hostile", items)
    verdict = verdicts.pop(OTHERS // 2)
    assert [(v.reward, v.correct, v.status) for v in verdicts] == [(i, i == 7, "ok") for i in range(OTHERS)]
    return verdict


@pytest.mark.parametrize(
    ("deed", "status", "detail"),
    [
        ("raise", "error", "ValueError: this verifier raises"),
        ("exit_politely", "error", "SystemExit: bye"),
        ("exit_at_once", "crash", "exit status 3"),
        ("segfault", "crash", "signal SIGSEGV"),
        ("recurse", "error", "RecursionError"),
        ("flood", "ok", "flooded"),
        ("allocate", "error", "more than 256 MB"),
        ("write_big_file", "error", "File too large"),
        ("return_nan", "error", "Verdict.reward must be finite, got nan"),
        ("return_number", "error", "it returned 1.0, which is no Verdict"),
        ("long_detail", "ok", "\N{SNOWMAN}"),
        ("use_threads", "ok", "[0, 1, 2, 3]"),
        ("fork:50", "error", "PermissionError"),
        ("run_program", "error", "PermissionError"),
        ("connect", "error", "PermissionError"),
        ("kill_parent", "error", "PermissionError"),
        ("forge", "crash", "no record"),
    ],
)
def test_a_misdeed_has_a_verdict_of_its_own(pool: MakePool, task: Task, deed: str, status: str, detail: str) -> None:
    verdict = among_others(pool(2, memory_mb=256), task, deed)
    assert verdict.status == status
    assert detail in verdict.detail


@pytest.mark.parametrize("deed", ["spin", "sleep", "ignore_sigterm"])
def test_a_hang_ends_at_its_deadline(pool: MakePool, task: Task, deed: str) -> None:
    verifiers = pool(2, deadline=0.5)
    start = time.monotonic()
    verdict = among_others(verifiers, task, deed)
    assert verdict.status == "timeout"
    assert verdict.detail == "no verdict within the deadline of 0.5 s"
    assert verdict.elapsed >= 0.5
    assert (
        time.monotonic() - start < 30
    )  # a bound, not a speed: a spinning item's time stands still while it has no core
    assert verifiers.counters.timeouts == 1


def test_a_fork_bomb_that_hangs_is_ended_with_all_its_children(pool: MakePool, task: Task) -> None:
    verdict = among_others(pool(2, deadline=0.5, processes=60), task, "hang_with_children:40")
    assert verdict.status == "timeout"


def test_children_that_an_item_leaves_behind_are_ended(pool: MakePool, task: Task) -> None:
    verifiers = pool(1, processes=60)
    assert among_others(verifiers, task, "fork:20").detail == "forked"
    assert among_others(verifiers, task, "number:7").correct


def test_more_processes_than_allowed_bring_the_worker_down(pool: MakePool, task: Task) -> None:
    verdict = among_others(pool(1, deadline=10.0, processes=10), task, "hang_with_children:50")
    assert verdict.status in (
        "crash",
        "error",
    )  # `error` where the kernel refuses the fork, as it does for a plain user
    assert "10 are allowed" in verdict.detail or "BlockingIOError" in verdict.detail


def test_more_threads_than_allowed_bring_the_worker_down(pool: MakePool, task: Task) -> None:
    verdict = among_others(pool(1, deadline=20.0), task, "crowd:300")
    if os.geteuid() == 0:  # whom the kernel lets start any number
        assert verdict.status == "crash"
        assert "threads at once, 64 are allowed" in verdict.detail
    else:
        assert (verdict.status, verdict.detail) == ("error", "RuntimeError: can't start new thread")


def test_programs_and_sockets_can_be_allowed(pool: MakePool, task: Task) -> None:
    verifiers = pool(1, processes=10, network=True)
    assert among_others(verifiers, task, "run_program").detail == "hello"
    assert "ConnectionRefusedError" in among_others(verifiers, task, "connect").detail


def test_no_file_is_written_outside_the_workers_directory(pool: MakePool, task: Task, tmp_path: Path) -> None:
    target = tmp_path / "outside"
    verdict = among_others(pool(1), task, f"write_outside:{target}")
    assert verdict.status == "error"
    assert "[Errno " in verdict.detail  # it is refused, or the directory is not there at all
    assert not target.exists()


def test_files_inside_are_allowed_and_removed(pool: MakePool, task: Task) -> None:
    verifiers = pool(1)
    directory = Path(among_others(verifiers, task, "leave_files").detail)
    assert directory.exists()
    verifiers.close()
    assert not directory.exists()


def test_the_parents_secrets_are_out_of_sight(pool: MakePool, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN_OF_TEST", "hunter2")
    own, path = json.loads(among_others(pool(1), task, "read_environment:SECRET_TOKEN_OF_TEST").detail)
    assert own is None
    assert path == "/bin:/usr/bin"


def test_memory_that_others_leaked_is_not_blamed_on_an_item(pool: MakePool, task: Task) -> None:
    # one worker of 256 MB: 150 leaked, then 150 wanted. Together too much, each alone fine, in whatever worker it lands
    verdicts = pool(1, memory_mb=256).verify("hostile:Hostile", [(task, "leak:150"), (task, "leak:151")])
    assert [v.detail for v in verdicts] == ["leaked", "leaked"]


def test_many_misdeeds_at_once_leave_the_honest_items_alone(pool: MakePool, task: Task) -> None:
    verifiers = pool(2, deadline=0.3, memory_mb=256)
    deeds = ["exit_at_once", "spin", "segfault", "sleep", "allocate", "raise"] * 2
    items = [(task, f"number:{i}") for i in range(120)]
    for place, deed in enumerate(deeds):
        items.insert(10 * place, (task, deed + ":" if place < 6 else deed))
    verdicts = verifiers.verify("hostile:Hostile", items)
    honest = [v.reward for (_, text), v in zip(items, verdicts, strict=True) if text.startswith("number")]
    assert honest == list(range(120))
    assert [verdicts[10 * place].status for place in range(6)] == [
        "crash",
        "timeout",
        "crash",
        "timeout",
        "error",
        "error",
    ]
    assert verifiers.restarts >= 8
