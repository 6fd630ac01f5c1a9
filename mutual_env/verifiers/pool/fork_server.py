"""The fork server: a process that has imported the verifiers once, and forks a worker in milliseconds whenever one is
needed.

It owns the workers: it alone ends and reaps them, so a process id is never signalled after it may have been given away.
It adopts what they leave behind, ends it, and removes their directories. When the pool's process is gone, it does so
for all and ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mutual_env.verifiers.pool import kernel
from mutual_env.verifiers.pool.confinement import THREADS, Cage, Limits
from mutual_env.verifiers.pool.containers import Place
from mutual_env.verifiers.pool.directories import Footprint, hold, remove_tree
from mutual_env.verifiers.pool.isolation import level_named
from mutual_env.verifiers.pool.wire import Frames, frame
from mutual_env.verifiers.pool.worker import Tools, serve
from mutual_env.verifiers.spec import VerifierSpec, build, hook, load_function

_IDLE_TICK, _TICK, _SHORT_TICK = 0.5, 0.1, 0.05
_SWEEP_SECONDS = 5.0


def main(control_fd: int, pool: int, root: str, network: bool, level_name: str) -> None:
    """Serve the pool at the other end of the control socket until it closes, or the process is gone whose handle `pool`
    is (-1: that is found out by its children having another parent)."""
    level, parent = level_named(level_name), os.getppid()
    level.enter(Place(Path(root), (), network))
    kernel.adopt_orphans()
    control = socket.socket(fileno=control_fd)
    server = ForkServer(control, pool, Path(root), confines=level.confines)
    frames = Frames()
    try:
        while pool >= 0 or os.getppid() == parent:
            ready, _, _ = select.select([control.fileno(), *server.pool], [], [], server.tick)
            server.watch()
            if pool in ready:
                break
            if not ready:
                continue
            data, handles, _, _ = socket.recv_fds(control, 1 << 16, 64)
            if not data:
                break
            server.handles += handles
            for message in frames.feed(data):
                server.obey(message)
    finally:
        server.end_all()


class ForkServer:
    """The workers, and what the pool asks to be done with them."""

    def __init__(self, control: socket.socket, pool: int, root: Path, *, confines: bool) -> None:
        self.handles: list[int] = []
        self._control = control
        self._root = root
        self._confines = confines
        self.pool = [pool] if pool >= 0 else []
        self._held = hold(root)
        self._tools = Tools({}, {})
        self._workers: dict[int, Footprint] = {}
        self._faults: dict[int, str] = {}
        self._processes = 0
        self._cages: dict[Limits, Cage] = {}
        self._born = 0

    @property
    def tick(self) -> float:
        """Seconds between two looks at what the workers have started and written."""
        if not self._workers:
            return _IDLE_TICK
        return _SHORT_TICK if self._processes else _TICK

    def watch(self) -> None:
        """End adopted processes, and workers with too many processes or threads (against root, the kernel holds no
        limit) or with too many bytes on the disk."""
        now = time.monotonic()
        self.sweep(now)
        for pid, footprint in self._workers.items():
            if pid not in self._faults and (fault := footprint.check(now, pid) or _crowd(pid)):
                self._condemn(pid, fault)
        if self._processes and self._workers:
            for pid, members in _group_sizes().items():
                if pid in self._workers and members > self._processes + 1:
                    self._condemn(pid, f"it had {members - 1} processes at once, {self._processes} are allowed")

    def _condemn(self, pid: int, fault: str) -> None:
        self._faults[pid] = fault
        _signal(pid, signal.SIGKILL)

    def obey(self, message: Mapping[str, Any]) -> None:
        order = message["order"]
        if order == "load":
            self._load(message)
        elif order == "fork":
            self._fork(Limits(**message["limits"]), float(message["deadline"]), self.handles.pop(0))
        elif order == "end":
            self._end(int(message["pid"]))
        elif message["pid"] in self._workers:  # once it is gone, its process id may be another's
            _signal(message["pid"], {"pause": signal.SIGSTOP, "resume": signal.SIGCONT}[order])

    def _load(self, message: Mapping[str, Any]) -> None:
        try:
            self._take_up(message)
        except BaseException as cause:  # the boundary: the pool must hear how an import failed
            problem = "".join(traceback.format_exception(cause))[-2000:].strip()
            self._control.sendall(frame({"loaded": message["id"], "problem": problem}))
            return
        self._cages.clear()  # there are new modules to read
        gc.collect()
        gc.freeze()  # what is here now is never collected, so collections in the workers do not copy its pages
        self._control.sendall(frame({"loaded": message["id"], "problem": None}))

    def _take_up(self, message: Mapping[str, Any]) -> None:
        if "function" in message:
            function = load_function(message["function"])
            _warm(function, self.handles.pop(0) if message["file"] else None)
            self._tools.functions[message["id"]] = function
        else:
            verifier = build(VerifierSpec(message["name"], message["options"]), message["target"])
            _warm(verifier)
            self._tools.verifiers[message["id"]] = verifier

    def _fork(self, limits: Limits, deadline: float, handle: int) -> None:
        self._born += 1
        self._processes = limits.processes
        directory = self._root / f"worker-{self._born}"
        directory.mkdir(mode=0o700)
        if limits not in self._cages:
            self._cages[limits] = Cage.prepare(limits, confines=self._confines)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._control.close()
                connection = socket.socket(fileno=handle)
                for other in (self._held, *self.pool, *self.handles):
                    os.close(other)
                serve(connection, self._tools, self._cages[limits], directory, deadline)
                code = 0
            finally:
                os._exit(code)
        os.close(handle)
        self._workers[pid] = Footprint(directory, limits.disk_mb << 20, limits.file_mb << 20)
        self._control.sendall(frame({"forked": pid}))

    def _end(self, pid: int) -> None:
        footprint = self._workers.pop(pid)
        status = _kill_and_reap(pid)
        self.sweep(time.monotonic() + _SWEEP_SECONDS)
        remove_tree(footprint.directory)
        code = os.waitstatus_to_exitcode(status)
        self._control.sendall(frame({"ended": pid, "code": code, "why": self._faults.pop(pid, "")}))

    def sweep(self, until: float) -> None:
        """End adopted processes. One that forks faster than this can follow is taken up again at the next call."""
        while strays := [pid for pid in kernel.children(os.getpid()) if pid not in self._workers]:
            for pid in strays:
                _kill_and_reap(pid)
            if time.monotonic() >= until:
                return

    def end_all(self) -> None:
        for pid in list(self._workers):
            self._workers.pop(pid)
            _kill_and_reap(pid)
        self.sweep(time.monotonic() + _SWEEP_SECONDS)
        remove_tree(self._root)


def _warm(tool: object, file: int | None = None) -> None:
    warm = hook(tool, "warm")
    if file is None:
        if warm is not None:
            warm()
        return
    try:
        if warm is not None:
            warm(file)
    finally:
        os.close(file)


def _signal(pid: int, number: signal.Signals) -> None:
    for kill in (os.killpg, os.kill):  # the group first; by itself where it left, or did not yet found, its group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, number)


def _kill_and_reap(pid: int) -> int:
    _signal(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _crowd(pid: int) -> str | None:
    """What is wrong with the number of its threads."""
    with contextlib.suppress(IndexError):  # it ended meanwhile
        threads = int(kernel.of_process(pid, "stat").rpartition(b") ")[2].split()[17])
        if threads > THREADS + 1:
            return f"it had {threads} threads at once, {THREADS} are allowed"
    return None


def _group_sizes() -> Counter[int]:
    """How many processes each process group has."""
    groups: Counter[int] = Counter()
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdigit():
            with contextlib.suppress(ProcessLookupError):
                groups[os.getpgid(int(name))] += 1
    return groups
