"""The pool's side of the fork server."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mutual_env.errors import VerificationError
from mutual_env.lean import LEAN
from mutual_env.types import JSON
from mutual_env.verifiers.pool import kernel, readable
from mutual_env.verifiers.pool.confinement import Limits
from mutual_env.verifiers.pool.containers import Place
from mutual_env.verifiers.pool.directories import PREFIX, remove_stale, remove_tree
from mutual_env.verifiers.pool.isolation import Level, outer_pid
from mutual_env.verifiers.pool.wire import Frames, frame

_BOOT = (
    "import json, sys; *given, path = json.loads(sys.argv[1]); sys.path[:] = path; "
    "from mutual_env.verifiers.pool.fork_server import main; main(*given)"
)
_ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""All that a worker finds in its environment, beside its own HOME and TMPDIR."""
_CLOSE_SECONDS = 15.0


class ForkClient:
    """Starts, asks and ends the fork server. Calls return at once; `replies` reads what it answered."""

    def __init__(self, limits: Limits, level: Level) -> None:
        _check_system()
        remove_stale(Path(tempfile.gettempdir()))
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.control, theirs = socket.socketpair()
        linked = {"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if "LD_LIBRARY_PATH" in os.environ else {}
        path = [entry or os.getcwd() for entry in sys.path]
        self._level = level
        self._log = self.root / "fork-server.log"
        with theirs, self._log.open("wb") as log, _own_handle() as pool:
            handles = (theirs.fileno(), *([pool] if pool >= 0 else []))
            place = Place(self.root, readable.visible(limits.readable), limits.network, handles)
            given = [theirs.fileno(), pool, str(self.root), limits.network, level.name, path]
            python = [sys.executable, "-s", "-P", *LEAN, "-c", _BOOT, json.dumps(given)]
            self._process = self._started(
                level.command(python, place),
                stdout=log,
                stderr=log,
                env={**_ENVIRONMENT, **linked, "HOME": str(self.root), "TMPDIR": str(self.root)},
                pass_fds=handles,
            )
        self._frames = Frames()

    def _started(self, command: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=self.root, start_new_session=True, **how)
        except OSError as error:
            remove_tree(self.root)
            raise VerificationError(f"the verifier pool cannot start a process: {error}{_hint(str(error))}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, what: Mapping[str, JSON], file: str = "") -> None:
        """Of the file, where there is one, the fork server gets a descriptor: it may not see the file itself."""
        message: dict[str, JSON] = {"order": "load", "file": bool(file), **what}
        if not file:
            self._order(message)
            return
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._order(message, handle)
        finally:
            os.close(handle)

    def fork(self, limits: Limits, deadline: float) -> socket.socket:
        """The pool's end of a connection to a new worker; its process id arrives as a reply, in the order of calls."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._order({"order": "fork", "limits": dataclasses.asdict(limits), "deadline": deadline}, theirs.fileno())
        ours.setblocking(False)
        return ours

    def end(self, pid: int) -> None:
        self._order({"order": "end", "pid": pid})

    def pause(self, pid: int) -> None:
        self._order({"order": "pause", "pid": pid})

    def resume(self, pid: int) -> None:
        self._order({"order": "resume", "pid": pid})

    def _order(self, message: JSON, *handles: int) -> None:
        order = frame(message)
        with contextlib.suppress(ConnectionError):  # that the server is gone is found out by reading
            sent = socket.send_fds(self.control, [order], handles) if handles else 0
            self.control.sendall(order[sent:])

    def replies(self) -> list[dict[str, Any]]:
        """What has arrived; call when the control socket is readable."""
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self.control.recv(1 << 16)
        if not data:
            tail = self._log.read_text(errors="replace")[-1000:].strip() if self._log.exists() else ""
            ended = f"the fork server of the verifier pool ended unexpectedly{_hint(tail)}. {tail}"
            raise VerificationError(ended.strip())
        return list(self._frames.feed(data))

    def outer_pid(self, pid: int) -> int:
        """What the system calls a process that the fork server calls so."""
        return outer_pid(self._process.pid, pid) if self._level.own_processes else pid

    def close(self) -> None:
        """End it, and with it every worker; leave no file."""
        self.control.close()
        until = time.monotonic() + _CLOSE_SECONDS
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            for pid in list(kernel.descendants(self._process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(_CLOSE_SECONDS)
        remove_tree(self.root)


def _check_system() -> None:
    if sys.platform == "linux" and not kernel.of_process("self", "statm"):
        raise VerificationError(
            "the verifier pool cannot watch its workers: there is no /proc here; mount it (mount -t proc proc /proc)"
        )


def _hint(said: str) -> str:
    many = f"[Errno {errno.EAGAIN}]" in said
    return ": this user has as many processes as it may (ulimit -u)" if many else ""


@contextlib.contextmanager
def _own_handle() -> Iterator[int]:
    """A descriptor of this process, by which another one hears of its end; -1 where the system has none."""
    if sys.platform != "linux":
        yield -1
        return
    handle = os.pidfd_open(os.getpid())
    try:
        yield handle
    finally:
        os.close(handle)
