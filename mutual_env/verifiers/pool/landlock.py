"""Landlock: which files a process may read, change and run from now on, whatever its user may."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mutual_env.verifiers.pool import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))  # of every kind of file
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
_BIND_AND_CONNECT, _UNIX_AND_SIGNALS = 3, 3
_ATTRIBUTE_BYTES = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}
"""Size of the structure that this version knows, where it is not 24."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What stays within reach.

    own       one directory in which everything is allowed
    readable  files and directories with all they hold
    programs  whether files in `readable` may be run
    network   whether TCP connections may be opened
    """

    own: Path
    readable: tuple[Path, ...] = ()
    programs: bool = False
    network: bool = False


def version() -> int:
    """Of the kernel's Landlock; 0 where there is none."""
    return max(0, _syscall(_CREATE_RULESET, None, 0, 1))


def confine(reach: Reach) -> bool:
    """From now on, for good, only what is within reach can be opened; processes outside cannot be looked into or (from
    Linux 6.12) signalled, and no TCP connection is opened (from 6.7). Says whether the kernel agreed."""
    known = version()
    if not known:
        return False
    rights = _rights(known)
    reading = (_READ_FILE | _READ_DIR | (_EXECUTE if reach.programs else 0)) & rights
    with _ruleset(rights, known, network=reach.network) as rules:
        if rules < 0 or not _allow(rules, reach.own, rights if reach.programs else rights & ~_EXECUTE):
            return False
        _allow(rules, Path(os.devnull), (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights)
        for path in reach.readable:
            _allow(rules, path, reading)
        return _syscall(_RESTRICT_SELF, rules, 0) == 0


def _rights(known: int) -> int:
    rights = _EXECUTE | _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_AND_MAKE
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        rights |= right if known >= since else 0
    return rights


@contextmanager
def _ruleset(rights: int, known: int, *, network: bool) -> Iterator[int]:
    attributes = struct.pack("QQQ", rights, 0 if network else _BIND_AND_CONNECT, _UNIX_AND_SIGNALS)
    attributes = attributes[: _ATTRIBUTE_BYTES.get(known, 24)]
    rules = _syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        yield rules
    finally:
        if rules >= 0:
            os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> bool:
    """False where there is no such path: then nothing of it can be reached, as before."""
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= _OF_A_FILE
        return _syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, handle), 0) == 0
    finally:
        os.close(handle)


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Without those that lie in others of them, and without repetitions: each rule costs every start of a worker."""
    kept: list[Path] = []
    for path in sorted(set(paths), key=lambda p: (len(p.parts), p)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return tuple(kept)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    if sys.platform != "linux":
        return -1
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(kernel.libc().syscall(ctypes.c_long(number), *plain))
