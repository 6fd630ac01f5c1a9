"""What Linux offers an unprivileged process to tie its own hands, through prctl; and what it says of a process.

Every function says whether the kernel agreed; on another system, or where a container forbids it, that is False.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import signal
import struct
import sys
from collections.abc import Iterator

_PDEATHSIG, _SET_DUMPABLE, _CHILD_SUBREAPER, _NO_NEW_PRIVS = 1, 4, 36, 38
_CAPBSET_DROP, _CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
_CAPABILITY_VERSION, _MOST_CAPABILITIES = 0x20080522, 64


def adopt_orphans() -> bool:
    """Processes whose parent died below this one become its children, however they detached themselves."""
    return prctl(_CHILD_SUBREAPER, 1)


def die_with_parent() -> bool:
    return prctl(_PDEATHSIG, signal.SIGKILL)


def hide_from_tracers() -> bool:
    """No process of the same user can attach to this one, read its memory or its environment; nor does it leave a core
    dump. That shuts out debuggers and sampling profilers too, but for root's."""
    return prctl(_SET_DUMPABLE, 0)


def renounce_privileges() -> bool:
    """No program started from here gains rights by a set-user-id bit or as root; this process keeps no capability."""
    agreed = prctl(_NO_NEW_PRIVS, 1)
    if sys.platform != "linux":
        return False
    for capability in range(_MOST_CAPABILITIES):  # fails where there is none left to drop, and above the last
        prctl(_CAPBSET_DROP, capability)
    prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    header, none = struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24)
    return agreed and libc().capset(header, none) == 0


def children(pid: int) -> list[int]:
    """Live or dead processes whose parent is the first thread of this one, the eldest first."""
    return [int(child) for child in of_process(pid, f"task/{pid}/children").split()]


def descendants(pid: int) -> Iterator[int]:
    """The process and all below it, the youngest of each family first."""
    waiting = [pid]
    while waiting:
        yield (found := waiting.pop())
        waiting += children(found)


def prctl(option: int, argument: int, pointer: object = 0) -> bool:
    if sys.platform != "linux":
        return False
    return bool(libc().prctl(option, argument, pointer, 0, 0) == 0)


@functools.cache
def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def of_process(pid: int | str, name: str) -> bytes:
    """The file of this name that Linux keeps of a process; empty where there is none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read()
    return b""
