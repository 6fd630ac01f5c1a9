"""What an attempt to escape may touch, and how one is made: the canaries, and raw calls of the kernel."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass

Tries = dict[str, Callable[[], object]]
LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100


@dataclass(frozen=True)
class Canaries:
    """A process of the same user with a secret in its environment, a file with a secret, a file that may be read, and
    a directory of the user's."""

    process: int
    secret: str
    readable: str
    directory: str


def succeeding(attempts: Tries) -> list[str]:
    return [name for name, attempt in attempts.items() if _succeeds(attempt)]


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        answer = attempt()
    except (OSError, ValueError, RuntimeError):
        return False
    return answer is not False


def call(number: int, *arguments: object) -> bool:
    """A raw system call: whether the kernel did it."""
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return bool(LIBC.syscall(ctypes.c_long(number), *plain) >= 0)


def x86(number: int, *arguments: object) -> Callable[[], bool]:
    """The same by the number that x86-64 gives it; elsewhere an attempt that fails."""
    return lambda: os.uname().machine == "x86_64" and call(number, *arguments)
