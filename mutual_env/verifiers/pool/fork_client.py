"""The pool's side of the fork server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mutual_env.errors import VerificationError
from mutual_env.types import JSON
from mutual_env.verifiers.pool import kernel, readable
from mutual_env.verifiers.pool.confinement import Limits
from mutual_env.verifiers.pool.directories import PREFIX, remove_stale, remove_tree
from mutual_env.verifiers.pool.isolation import Level, Place, outer_pid
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
        remove_stale(Path(tempfile.gettempdir()))
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.control, theirs = socket.socketpair()
        linked = {"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if "LD_LIBRARY_PATH" in os.environ else {}
        path = [entry or os.getcwd() for entry in sys.path]
        place = Place(self.root, readable.visible(limits.readable), limits.network)
        self._level = level
        self._log = self.root / "fork-server.log"
        with theirs, self._log.open("wb") as log, _own_handle() as pool:
            given = [theirs.fileno(), pool, str(self.root), limits.network, level.name, path]
            python = [sys.executable, "-s", "-P", "-c", _BOOT, json.dumps(given)]
            self._process = subprocess.Popen(
                level.command(python, place),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_ENVIRONMENT, **linked, "HOME": str(self.root), "TMPDIR": str(self.root)},
                cwd=self.root,
                pass_fds=[theirs.fileno(), *([pool] if pool >= 0 else [])],
                start_new_session=True,
            )
        self._frames = Frames()

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, what: Mapping[str, JSON]) -> None:
        self._order({"order": "load", **what})

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
            raise VerificationError(f"the fork server of the verifier pool ended unexpectedly. {tail}".strip())
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
