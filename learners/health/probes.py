"""What a verifier's worker is asked by `mutual-env doctor`: to hang, and to try what a worker should not be able to."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mutual_env.types import Task, Verdict


class Hang:
    """Never ends: the pool must kill it."""

    id = "doctor-hang"
    inline = False

    def verify(self, task: Task, text: str) -> Verdict:
        while True:
            time.sleep(1.0)


class Escape:
    """Tries each of these, and says which went through."""

    id = "doctor-escape"
    inline = False

    def verify(self, task: Task, text: str) -> Verdict:
        went = [name for name, attempt in ATTEMPTS.items() if _goes_through(attempt)]
        return Verdict.scored(float(len(went)), correct=False, detail=", ".join(went) or "nothing")


def _write_elsewhere() -> None:
    with tempfile.NamedTemporaryFile(dir="/var/tmp"):
        pass


def _read_users() -> None:
    Path("/etc/passwd").read_bytes()


def _open_socket() -> None:
    with socket.socket(socket.AF_INET) as opened:
        opened.bind(("127.0.0.1", 0))


def _start_process() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


ATTEMPTS: dict[str, Callable[[], None]] = {
    "write into /var/tmp": _write_elsewhere,
    "read /etc/passwd": _read_users,
    "open a socket": _open_socket,
    "start a process": _start_process,
}


def _goes_through(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except (OSError, RuntimeError):
        return False
    return True
