"""What a worker process may use, and how it gives up the rest.

This bounds accidents and careless attacks. It is no sandbox: a worker runs as the user, and reads what the user can
read.
"""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from mutual_env.errors import InvalidInputError
from mutual_env.verifiers.pool import kernel

_THREADS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker process may use, beyond what it needs to start.

    memory_mb   address space on top of the warmed-up interpreter's
    file_mb     size of each file it writes, all of them in its temporary directory
    open_files  descriptors
    processes   processes it may start; 0: none (threads are not processes)
    network     whether it may open sockets
    """

    memory_mb: int = 1024
    file_mb: int = 8
    open_files: int = 64
    processes: int = 0
    network: bool = False

    def __post_init__(self) -> None:
        for name, least in (("memory_mb", 64), ("file_mb", 0), ("open_files", 16), ("processes", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InvalidInputError(
                    f"VerifierPool.{name} must be a whole number of at least {least}, got {value!r}"
                )


def prepare(limits: Limits) -> None:
    """Make `confine` quicker in the processes that are forked from this one."""
    kernel.prepare(processes=limits.processes > 0, network=limits.network)


def confine(limits: Limits, directory: Path) -> None:
    """Apply the limits to this process for good. What the platform lacks is left out: see `kernel`."""
    kernel.renounce_privileges()
    kernel.confine_writes(directory, network=limits.network)
    megabyte = 1 << 20
    _lower("RLIMIT_CORE", 0)
    _lower("RLIMIT_AS", address_space() + limits.memory_mb * megabyte)
    _lower("RLIMIT_FSIZE", limits.file_mb * megabyte)
    _lower("RLIMIT_NOFILE", limits.open_files)
    if os.geteuid() != 0:  # the kernel exempts root; `refuse_calls` exempts nobody
        _lower("RLIMIT_NPROC", _threads_of_user() + _THREADS + limits.processes)
    kernel.refuse_calls(processes=limits.processes > 0, network=limits.network)


def allow_cpu(seconds: float) -> None:
    """Have the kernel end this process after so many more seconds of its own CPU time: for when nobody is left to do
    it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def address_space() -> int:
    """Bytes of address space in use; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    return int(kernel.of_process("self", "statm").split()[0]) * resource.getpagesize()


def _lower(name: str, value: int) -> None:
    kind = getattr(resource, name, None)
    if kind is None:
        return
    hard = resource.getrlimit(kind)[1]
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    try:
        resource.setrlimit(kind, (bound, bound))
    except (ValueError, OSError):  # macOS refuses some values of RLIMIT_AS; the other limits still hold
        if sys.platform == "linux":
            raise


def _threads_of_user() -> int:
    """What RLIMIT_NPROC counts: the user's threads, not the worker's."""
    if sys.platform != "linux":
        return 1024
    owned = 0
    for process in os.scandir("/proc"):
        if process.name.isdigit():
            try:
                if process.stat().st_uid == os.getuid():
                    owned += len(os.listdir(f"/proc/{process.name}/task"))
            except OSError:  # it ended meanwhile
                continue
    return owned
