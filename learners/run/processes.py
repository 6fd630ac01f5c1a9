"""The processes of a suite's runs: each started by itself, or forked from one that has loaded what all of them need."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, Protocol

LOAD_SECONDS = 300.0
ANSWER_SECONDS = 60.0
_POLL_SECONDS = 0.05
_LOST = 70  # the exit code of a run whose fork server is gone: nobody else could have told it


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    def poll(self) -> int | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float) -> int: ...


class Start(Protocol):
    def __call__(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
        """`mutual-env` with these words, which ends when this process does. It writes to the end of `log`."""


@contextmanager
def starting(modules: Sequence[str], environment: Mapping[str, str], *, forks: bool) -> Iterator[Start]:
    """How runs are started in here. `modules`, `environment`: what all of them load and are born with. `forks`: whether
    they may be forked where that is safe; the drivers of GPUs do not survive it."""
    if not forks or sys.platform != "linux":
        yield spawned
        return
    server = _ForkServer(modules, environment)
    try:
        yield server.start if server.forks() else spawned
    finally:
        server.close()


def spawned(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """Modules in the working directory do not matter (`-P`): they may have names like ours."""
    command = [sys.executable, "-P", "-m", "learners.cli", *words, f"--parent={os.getpid()}"]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=dict(environment))


class _ForkServer:
    """This side of `learners.run.fork_server`."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._codes: dict[str, int] = {}
        self._started = 0
        command = [sys.executable, "-P", "-m", "learners.run.fork_server", *modules]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=self._environment, text=True)

    def forks(self) -> bool:
        """Whether runs can be forked there. Waits until everything is loaded."""
        return self._answer(LOAD_SECONDS).get("forks") is True

    def start(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
        self._started += 1
        key = str(self._started)
        own = {name: value for name, value in environment.items() if self._environment.get(name) != value}
        self._ask({"start": key, "words": [*words], "log": str(log.absolute()), "environment": own})
        return _Forked(self, key)

    def signal(self, key: str, number: int) -> None:
        self._ask({"signal": key, "number": number})

    def code(self, key: str) -> int | None:
        """A run's exit code; None: it goes on."""
        if key not in self._codes:
            self._ask({"ended": True})
            self._codes.update(self._answer(ANSWER_SECONDS))
        if self._process.poll() is not None:
            self._codes.setdefault(key, _LOST)
        return self._codes.get(key)

    def close(self) -> None:
        """Runs that go on are told to end."""
        self._process.kill()
        self._process.wait(timeout=ANSWER_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # what it was not alive to read
                if pipe is not None:
                    pipe.close()

    def _ask(self, request: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `code` says so
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def _answer(self, seconds: float) -> dict[str, Any]:
        """Nothing where the server is gone, or hangs: then it is ended."""
        assert self._process.stdout is not None
        heard, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if heard else ""
        if not line:
            self._process.kill()
            self._process.wait(timeout=ANSWER_SECONDS)
            return {}
        answer: dict[str, Any] = json.loads(line)
        return answer


class _Forked:
    def __init__(self, server: _ForkServer, key: str) -> None:
        self._server, self._key = server, key

    def poll(self) -> int | None:
        return self._server.code(self._key)

    def terminate(self) -> None:
        self._server.signal(self._key, SIGTERM)

    def kill(self) -> None:
        self._server.signal(self._key, SIGKILL)

    def wait(self, timeout: float) -> int:
        ends = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > ends:
                raise subprocess.TimeoutExpired(f"run {self._key}", timeout)
            time.sleep(_POLL_SECONDS)
        return code
