"""The inside of a worker process: verify what arrives, one item after the other, until the pool ends it."""

from __future__ import annotations

import math
import os
import resource
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mutual_env.types import Task, Verdict
from mutual_env.verifiers.pool import kernel
from mutual_env.verifiers.pool.confinement import Cage, address_space, allow_cpu, confine
from mutual_env.verifiers.pool.wire import DONE, MAX_DETAIL, MEMORY, RETIRE, VERDICT, Frames, record, task_from_json
from mutual_env.verifiers.spec import Verifier

_CPU_FACTOR = 2.0


def serve(
    connection: socket.socket, verifiers: Mapping[str, Verifier], cage: Cage, directory: Path, deadline: float
) -> None:
    """Returns when the pool closes the connection; usually the process is killed before."""
    _detach(directory)
    confine(cage, directory)
    base = address_space()
    frames = Frames()
    while data := connection.recv(1 << 18):
        for message in frames.feed(data):
            done = _verify_batch(connection, verifiers[message["verifier"]], message, deadline)
            bloated = address_space() - base > cage.limits.memory_mb * (1 << 19)
            if done:
                connection.sendall(record(RETIRE if bloated or _has_children() else DONE))


def _verify_batch(connection: socket.socket, verifier: Verifier, message: Mapping[str, Any], deadline: float) -> bool:
    """False where memory ran out: the pool then ends this worker."""
    tasks = [task_from_json(fields) for fields in message["tasks"]]
    spent_at = -math.inf
    for index, text in message["items"]:
        if (spent := time.process_time()) > spent_at + deadline:
            allow_cpu(_CPU_FACTOR * deadline + 10)
            spent_at = spent
        try:
            verdict = judge(verifier, tasks[index], text, catch=BaseException)
        except MemoryError:
            connection.sendall(record(MEMORY))
            return False
        connection.sendall(record(VERDICT, verdict))
    return True


def judge(verifier: Verifier, task: Task, text: str, *, catch: type[BaseException] = Exception) -> Verdict:
    """The verdict; what the verifier raises is recorded as an `error`, not passed on, but for MemoryError."""
    start = time.perf_counter()
    try:
        answer: object = verifier.verify(task, text)
        if isinstance(answer, Verdict):
            verdict = answer
        else:
            what = f"it returned {answer!r:.80}, which is no Verdict: return Verdict.scored(reward, correct=...)"
            verdict = Verdict.unscored("error", detail=what)
    except MemoryError:
        raise
    except catch as cause:
        verdict = Verdict.unscored("error", detail=f"{type(cause).__name__}: {_message(cause)}"[:MAX_DETAIL])
    return replace(verdict, elapsed=time.perf_counter() - start)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _message(cause: BaseException) -> str:
    try:
        return str(cause)
    except Exception:
        return "(its message raised too)"


def _detach(directory: Path) -> None:
    """Leave nothing of the parent's within reach: streams, environment, signal handlers."""
    os.setpgid(0, 0)
    kernel.die_with_parent()
    os.chdir(directory)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    os.environ["HOME"] = os.environ["TMPDIR"] = str(directory)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_CPU)[1]))
