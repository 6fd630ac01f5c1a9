"""The filter of system calls that a worker ties its own hands with: a program of the kernel's packet filter.

Refused are, with EPERM: what reaches other processes (tracing, their memory, limits, priority and signals), new
namespaces and mounts, changes of metadata (mode, owner, times, extended attributes, flags), what outlasts the process
(IPC, keys, locks, memory files), what is counted for the whole machine, settings of the machine, and leaving the
process group. Where `processes` is False, also every way to start a process or another program (threads stay possible,
if they share all that threads share); where `network` is False, every new socket, and all that a pair of connected
ones could do but carry bytes. An ioctl, a command of fcntl or a family of sockets that is not listed is refused too.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import struct
import sys
from collections.abc import Iterable

from mutual_env.verifiers.pool import kernel
from mutual_env.verifiers.pool.syscalls import (
    ALWAYS,
    JUDGED_BY_ARGUMENT,
    NEWEST,
    WITHOUT_NETWORK,
    WITHOUT_PROCESSES,
)

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Which column of the tables is the machine's, and what the kernel calls it."""
_SET_SECCOMP, _MODE_FILTER = 22, 2
_X32 = 0x40000000
_CLONE_NAMESPACES = 0x7E020000
_CLONE_AS_A_THREAD = 0x10F00
"""Memory, file system, descriptors, handlers and group are shared, as every thread library asks. A thread with a table
of descriptors of its own would have as many open files again, and nobody would see them."""
_CLOSE_RANGE_UNSHARE = 2
_IOCTLS = {
    "FIOCLEX": 0x5451,
    "FIONCLEX": 0x5450,
    "FIONBIO": 0x5421,
    "FIONREAD": 0x541B,
    "TCGETS": 0x5401,
    "TIOCGWINSZ": 0x5413,
}
"""All that Python, its library and numeric libraries ask of a descriptor."""
_FCNTLS = {
    "F_DUPFD": 0,
    "F_GETFD": 1,
    "F_SETFD": 2,
    "F_GETFL": 3,
    "F_SETFL": 4,
    "F_DUPFD_CLOEXEC": 1030,
    "F_GETPIPE_SZ": 1032,
}
"""Not the commands for locks, leases, owners and notices, nor for larger pipes and for hints that a file keeps."""
_PRCTLS = {
    "PR_SET_PDEATHSIG": 1,
    "PR_SET_DUMPABLE": 4,
    "PR_SET_MM": 35,
    "PR_SET_CHILD_SUBREAPER": 36,
    "PR_SCHED_CORE": 62,
    "PR_SET_PTRACER": 0x59616D61,
}
_STREAMS = tuple(1 | flags for flags in (0, 0x800, 0x80000, 0x80800))
"""SOCK_STREAM, whatever its descriptor is like. A pair of datagrams may send to any socket that has a path."""
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}

_LOAD, _SKIP, _EQUAL, _ABOVE, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, (16, 24, 32)  # offsets in struct seccomp_data, of the low halves
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000


def is_available() -> bool:
    """Whether this kernel takes filters of a machine that the tables know: asked for nothing, it finds fault with the
    pointer."""
    if _architecture() is None:
        return False
    return not kernel.prctl(_SET_SECCOMP, _MODE_FILTER) and ctypes.get_errno() == errno.EFAULT


def refuse_calls(*, processes: bool, network: bool) -> bool:
    """From now on, for good, the calls above fail. Says whether the kernel agreed."""
    program = _filter(processes=processes, network=network)
    if program is None:
        return False
    code = ctypes.create_string_buffer(program.replace(_OWN_PID, struct.pack("=I", os.getpid())))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    return kernel.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.create_string_buffer(header))


def prepare(*, processes: bool, network: bool) -> None:
    """Work out here what each process forked from here would otherwise work out again."""
    _filter(processes=processes, network=network)


_OWN_PID = struct.pack("=I", 0x50494421)
"""Stands in the filter where a process writes its own number."""


@functools.cache
def _filter(*, processes: bool, network: bool) -> bytes | None:
    machine = _architecture()
    if machine is None:
        return None
    column, architecture = machine
    numbers = {name: pair[column] for name, pair in JUDGED_BY_ARGUMENT.items()}
    tables = [ALWAYS, *([] if processes else [WITHOUT_PROCESSES]), *([] if network else [WITHOUT_NETWORK])]
    refused = [pair[column] for table in tables for pair in table.values()]
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    code += [_step(_AT_LEAST, _X32, 0, 1), _answer(errno.EPERM), _step(_ABOVE, NEWEST, 0, 1), _answer(errno.ENOSYS)]
    code += _refuse_all(number for number in refused if number is not None)
    for name, rule in _rules(processes=processes, network=network).items():
        code += [_step(_EQUAL, numbers[name], 0, len(rule)), *rule]
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def _refuse_all(numbers: Iterable[int]) -> list[bytes]:
    """One step a number, and one answer for up to 200: a jump is at most 255 steps long."""
    listed, code = sorted(numbers), []
    for start in range(0, len(listed), 200):
        part = listed[start : start + 200]
        code += [_step(_EQUAL, number, len(part) - place, 0) for place, number in enumerate(part)]
        code += [_step(_SKIP, 1), _answer(errno.EPERM)]
    return code


def _rules(*, processes: bool, network: bool) -> dict[str, list[bytes]]:
    """What becomes of a call whose number was matched; each rule ends with an answer."""
    first, second, third = _ARGUMENT
    return {
        "clone": _if_any_bit(_CLONE_NAMESPACES) + ([_allow()] if processes else _unless_thread()),
        "clone3": [_answer(errno.ENOSYS)],  # its flags lie where a filter cannot read; libraries use clone instead
        "socketpair": [_allow()] if network else _unless_equal(first, _FAMILIES["AF_UNIX"]) + _only(second, _STREAMS),
        "socket": _only(first, _FAMILIES.values() if network else ()),
        "prlimit64": _only(first, (0,)),
        "kill": [_allow()] if processes else _only(first, _OWN),
        "tgkill": [_allow()] if processes else _only(first, _OWN),
        "ioctl": _only(second, _IOCTLS.values()),
        "fcntl": _only(second, _FCNTLS.values()),
        "close_range": [*_if_any_bit(_CLOSE_RANGE_UNSHARE, third), _allow()],
        "fallocate": [_answer(errno.EOPNOTSUPP)],  # room for nothing, faster than anyone looks; libraries write instead
        "prctl": _none_of(first, _PRCTLS.values()),
    }


_OWN = (struct.unpack("=I", _OWN_PID)[0],)


def _only(offset: int, values: Iterable[int]) -> list[bytes]:
    listed = list(values)
    steps = [_step(_EQUAL, value, len(listed) - place, 0) for place, value in enumerate(listed)]
    return [_step(_LOAD, offset), *steps, _answer(errno.EPERM), _allow()]


def _none_of(offset: int, values: Iterable[int]) -> list[bytes]:
    listed = list(values)
    steps = [_step(_EQUAL, value, len(listed) - place, 0) for place, value in enumerate(listed)]
    return [_step(_LOAD, offset), *steps, _allow(), _answer(errno.EPERM)]


def _unless_equal(offset: int, value: int) -> list[bytes]:
    return [_step(_LOAD, offset), _step(_EQUAL, value, 1, 0), _answer(errno.EPERM)]


def _if_any_bit(bits: int, offset: int = _ARGUMENT[0]) -> list[bytes]:
    return [_step(_LOAD, offset), _step(_ANY_BIT, bits, 0, 1), _answer(errno.EPERM)]


def _unless_thread() -> list[bytes]:
    """What was loaded are the flags of clone."""
    whole = _CLONE_AS_A_THREAD
    return [_step(_AND, whole), _step(_EQUAL, whole, 0, 1), _allow(), _answer(errno.EPERM)]


def _allow() -> bytes:
    return _step(_RETURN, _ALLOW)


def _answer(error: int) -> bytes:
    return _step(_RETURN, _REFUSE | error)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _architecture() -> tuple[int, int] | None:
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        return None
    return _ARCHITECTURES.get(platform.machine())
