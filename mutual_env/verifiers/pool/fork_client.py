"""The pool's side of the fork server."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mutual_env.errors import VerificationError
from mutual_env.types import JSON
from mutual_env.verifiers.pool.confinement import Limits
from mutual_env.verifiers.pool.directories import PREFIX, remove_stale, remove_tree
from mutual_env.verifiers.pool.wire import Frames, frame

_BOOT = (
    "import json, sys; fd, parent, root, path = json.loads(sys.argv[1]); sys.path[:] = path; "
    "from mutual_env.verifiers.pool.fork_server import main; main(fd, parent, root)"
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
_CLOSE_SECONDS = 10.0


class ForkClient:
    """Starts, asks and ends the fork server. Calls return at once; `replies` reads what it answered."""

    def __init__(self) -> None:
        remove_stale(Path(tempfile.gettempdir()))
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.control, theirs = socket.socketpair()
        linked = {"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if "LD_LIBRARY_PATH" in os.environ else {}
        path = [entry or os.getcwd() for entry in sys.path]
        arguments = json.dumps([theirs.fileno(), os.getpid(), str(self.root), path])
        self._log = self.root / "fork-server.log"
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-c", _BOOT, arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_ENVIRONMENT, **linked, "HOME": str(self.root), "TMPDIR": str(self.root)},
                cwd=self.root,
                pass_fds=[theirs.fileno()],
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

    def close(self) -> None:
        """End it, and with it every worker; leave no file."""
        self.control.close()
        until = time.monotonic() + _CLOSE_SECONDS
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_CLOSE_SECONDS)
        remove_tree(self.root)
