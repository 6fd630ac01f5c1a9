"""What a worker process may use, and how it gives up the rest."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from mutual_env.errors import InvalidInputError
from mutual_env.verifiers.pool import kernel, landlock, readable, seccomp

THREADS = 64
_NO_CORE = 1
"""Byte. No core file is that small; and of 0 the kernel takes no notice where it hands cores to a program."""
_QUEUED = 64
"""Signals that wait and timers: their number is the user's, so a worker could use up what others need."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker process may use, beyond what it needs to start.

    memory_mb   address space on top of the warmed-up interpreter's
    file_mb     size of each file it writes, all of them in its temporary directory
    disk_mb     size of all that lies there; looked at ten times a second, so more can be written in between
    open_files  descriptors
    processes   processes it may start; 0: none (threads are not processes)
    network     whether it may open sockets
    readable    files and directories that it may read, beside Python, its libraries and the verifiers' own modules
    """

    memory_mb: int = 1024
    file_mb: int = 8
    disk_mb: int = 64
    open_files: int = 64
    processes: int = 0
    network: bool = False
    readable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("memory_mb", 64), ("file_mb", 0), ("disk_mb", 0), ("open_files", 16), ("processes", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InvalidInputError(
                    f"VerifierPool.{name} must be a whole number of at least {least}, got {value!r}"
                )
        object.__setattr__(self, "readable", tuple(self.readable))
        if not all(isinstance(path, str) and os.path.isabs(path) for path in self.readable):
            raise InvalidInputError(f"VerifierPool.readable must be absolute paths, got {self.readable!r}")


@dataclass(frozen=True, slots=True)
class Cage:
    """Limits, and what of them could be worked out before a worker is forked."""

    limits: Limits
    readable: tuple[Path, ...]
    confines: bool

    @classmethod
    def prepare(cls, limits: Limits, *, confines: bool) -> Cage:
        """Call where the modules are loaded that workers need, and again when there are more. `confines`: the limits
        are not all, privileges and foreign files are given up too."""
        seccomp.prepare(processes=limits.processes > 0, network=limits.network)
        return cls(limits, readable.paths(list(sys.modules.values()), limits.readable), confines)


def confine(cage: Cage, directory: Path) -> None:
    """Apply the limits to this process for good. What the platform lacks is left out: see `kernel`."""
    limits, megabyte = cage.limits, 1 << 20
    _lower("RLIMIT_CORE", _NO_CORE)
    _lower("RLIMIT_AS", address_space() + limits.memory_mb * megabyte)
    _lower("RLIMIT_FSIZE", limits.file_mb * megabyte)
    _lower("RLIMIT_NOFILE", limits.open_files)
    _lower("RLIMIT_SIGPENDING", _QUEUED)
    if os.geteuid() != 0:  # the kernel exempts root, whose threads the fork server counts
        _lower("RLIMIT_NPROC", _threads_of_user() + THREADS + limits.processes)
    if cage.confines:
        _give_up_the_rest(cage, directory)


def _give_up_the_rest(cage: Cage, directory: Path) -> None:
    limits = cage.limits
    kernel.renounce_privileges()
    known = (*cage.readable, Path("/proc/self"))
    reach = landlock.Reach(directory, known, programs=limits.processes > 0, network=limits.network)
    landlock.confine(reach)
    seccomp.refuse_calls(processes=limits.processes > 0, network=limits.network)


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
