"""The inside of a worker process: verify what arrives, one item after the other, until the pool ends it."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from mutual_env.display import shown
from mutual_env.types import JSON, Task, Verdict, VerdictStatus
from mutual_env.verifiers.pool import kernel
from mutual_env.verifiers.pool.confinement import Cage, address_space, allow_cpu, confine
from mutual_env.verifiers.pool.watch import Watch
from mutual_env.verifiers.pool.wire import (
    DONE,
    LAST,
    MAX_DETAIL,
    MAX_VALUE,
    MEMORY,
    RETIRE,
    Frames,
    record,
    task_from_json,
    value_record,
    verdict_record,
)
from mutual_env.verifiers.spec import Verifier

_CPU_FACTOR = 2.0
Function: TypeAlias = Callable[[Any], JSON]


@dataclass(frozen=True, slots=True)
class Tools:
    """What a worker can do: verifiers by their ids, and functions by their "module:function"."""

    verifiers: dict[str, Verifier]
    functions: dict[str, Function]


def serve(connection: socket.socket, tools: Tools, cage: Cage, directory: Path, deadline: float) -> None:
    """Returns when the pool closes the connection; usually the process is killed before."""
    _detach(directory)
    confine(cage, directory)
    base = address_space()
    frames = Frames()
    batches = _Batches(connection, tools, deadline)
    while data := connection.recv(1 << 18):
        for message in frames.feed(data):
            done = batches.work_off(message)
            bloated = address_space() - base > cage.limits.memory_mb * (1 << 19)
            if done:
                connection.sendall(record(RETIRE if bloated or _has_children() else DONE))


class _Batches:
    """Works off batches, and reports over the same connection."""

    def __init__(self, connection: socket.socket, tools: Tools, deadline: float) -> None:
        self._connection, self._tools, self._deadline = connection, tools, deadline
        self._spent_at = -math.inf
        self._watch = Watch(self._report)

    def work_off(self, message: Mapping[str, Any]) -> bool:
        """False where memory ran out: the pool then ends this worker."""
        works = self._calls(message) if "call" in message else self._verifications(message)
        return all(self._answer(work) for work in works)

    def _calls(self, message: Mapping[str, Any]) -> Iterator[Callable[[], bytes]]:
        function = self._tools.functions[message["call"]]
        for item in message["items"]:
            yield partial(run, function, item)

    def _verifications(self, message: Mapping[str, Any]) -> Iterator[Callable[[], bytes]]:
        verifier = self._tools.verifiers[message["verifier"]]
        tasks = [task_from_json(fields) for fields in message["tasks"]]
        for index, text in message["items"]:
            if getattr(verifier, "runs_code", None) is None:  # it does not say: then that is watched
                self._watch.begin()
            yield partial(self._judged, verifier, tasks[index], text)

    def _answer(self, work: Callable[[], bytes]) -> bool:
        """Send the record that `work` returns."""
        if (spent := time.process_time()) > self._spent_at + self._deadline:
            allow_cpu(_CPU_FACTOR * self._deadline + 10)
            self._spent_at = spent
        try:
            answer = work()
        except MemoryError:
            self._connection.sendall(record(MEMORY))
            return False
        finally:
            self._watch.end()
        self._connection.sendall(answer)
        return True

    def _judged(self, verifier: Verifier, task: Task, text: str) -> bytes:
        verdict, odd = _judge(verifier, task, text, BaseException)
        if odd:
            self._report()
        return verdict_record(verdict)

    def _report(self) -> None:
        self._connection.sendall(record(LAST))


def judge(verifier: Verifier, task: Task, text: str) -> Verdict:
    """The verdict; what the verifier raises is recorded as an `error`, not passed on, but for MemoryError."""
    return _judge(verifier, task, text, Exception)[0]


def _judge(verifier: Verifier, task: Task, text: str, catch: type[BaseException]) -> tuple[Verdict, bool]:
    """The verdict, and whether it was reached in an odd way: by leaving the interpreter, or at the end of its stack."""
    start, odd = time.perf_counter(), False
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
        odd = not isinstance(cause, Exception) or isinstance(cause, RecursionError)
        verdict = Verdict.unscored("error", detail=_described(cause))
    return replace(verdict, elapsed=time.perf_counter() - start, detail=shown(verdict.detail)), odd


def run(function: Function, item: JSON) -> bytes:
    """The record of what the function returns for the item, or of how it failed."""
    start = time.perf_counter()
    try:
        text = json.dumps(function(item), allow_nan=False)
        if len(text) > MAX_VALUE:
            raise ValueError(f"it returned {len(text)} characters of JSON, {MAX_VALUE} are allowed")
    except MemoryError:
        raise
    except BaseException as cause:  # the boundary: whatever it raises is the answer
        status: VerdictStatus = "timeout" if isinstance(cause, TimeoutError) else "error"
        return value_record(status, _described(cause), time.perf_counter() - start)
    return value_record("ok", text, time.perf_counter() - start)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _described(cause: BaseException) -> str:
    try:
        message = str(cause)
    except Exception:
        message = "(its message raised too)"
    return f"{type(cause).__name__}: {message}"[:MAX_DETAIL]


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
