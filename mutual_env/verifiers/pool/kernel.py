"""What Linux offers an unprivileged process to tie its own hands: prctl, seccomp and Landlock, called through ctypes.

Every function says whether the kernel agreed; on another system, or where a container forbids it, that is False.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
import signal
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

_PDEATHSIG, _SECCOMP, _CHILD_SUBREAPER, _NO_NEW_PRIVS = 1, 22, 36, 38


def adopt_orphans() -> bool:
    """Processes whose parent died below this one become its children, however they detached themselves."""
    return _prctl(_CHILD_SUBREAPER, 1)


def die_with_parent() -> bool:
    return _prctl(_PDEATHSIG, signal.SIGKILL)


def renounce_privileges() -> bool:
    """No program started from here gains rights by a set-user-id bit; what follows below needs this."""
    return _prctl(_NO_NEW_PRIVS, 1)


def _prctl(option: int, argument: int, pointer: object = 0) -> bool:
    if sys.platform != "linux":
        return False
    return bool(_libc().prctl(option, argument, pointer, 0, 0) == 0)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def of_process(pid: int | str, name: str) -> bytes:
    """The file of this name that Linux keeps of a process; empty where there is none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read()
    return b""


# -- Landlock: no file is created, changed or removed outside one directory --------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # remove and make, of every kind of file
_BIND_AND_CONNECT, _UNIX_AND_SIGNALS = 3, 3


def confine_writes(directory: Path, *, network: bool) -> bool:
    """From now on this process changes files only under `directory`, cannot look into or signal processes outside, and
    (kernel 6.7 and later, `network` False) opens no TCP connection. Reading is not restricted."""
    version = _syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    rights = _CHANGES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    sizes = {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}  # of the structure that this version knows
    attributes = struct.pack("QQQ", rights, 0 if network else _BIND_AND_CONNECT, _UNIX_AND_SIGNALS)
    attributes = attributes[: sizes.get(version, 24)]
    ruleset = _syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        allowed = {directory: rights, Path(os.devnull): rights & (_WRITE_FILE | _TRUNCATE)}
        return all(_allow(ruleset, path, right) for path, right in allowed.items()) and (
            _syscall(_RESTRICT_SELF, ruleset, 0) == 0
        )
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> bool:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, handle), 0) == 0
    finally:
        os.close(handle)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    if sys.platform != "linux":
        return -1
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(_libc().syscall(ctypes.c_long(number), *plain))


# -- seccomp: system calls that a verifier has no use for --------------------------------------------------------------

_ARCHITECTURES: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {"clone": 56, "fork": 57, "vfork": 58, "setpgid": 109, "setsid": 112, "socket": 41, "ptrace": 101}
        | {"process_vm_readv": 310, "process_vm_writev": 311, "unshare": 272, "setns": 308},
    ),
    "aarch64": (
        0xC00000B7,
        {"clone": 220, "setpgid": 154, "setsid": 157, "socket": 198, "ptrace": 117}
        | {"process_vm_readv": 270, "process_vm_writev": 271, "unshare": 97, "setns": 268},
    ),
}
_IO_URING_SETUP, _CLONE3, _CLONE_THREAD, _X32 = 425, 435, 0x10000, 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000


def refuse_calls(*, processes: bool, network: bool) -> bool:
    """From now on these calls fail with EPERM: leaving the process group or the session, tracing, new namespaces,
    io_uring; where `processes` is False, every way to start a process (threads stay possible); where `network` is
    False, every new socket."""
    program = _filter(processes=processes, network=network)
    if program is None:
        return False
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    return _prctl(_SECCOMP, 2, ctypes.create_string_buffer(header))


def prepare(*, processes: bool, network: bool) -> None:
    """Work out here what each process forked from here would otherwise work out again."""
    _filter(processes=processes, network=network)


@functools.cache
def _filter(*, processes: bool, network: bool) -> bytes | None:
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return None
    architecture, numbers = _ARCHITECTURES[platform.machine()]
    kept = {"clone"} | ({"fork", "vfork"} if processes else set()) | ({"socket"} if network else set())
    denied = [number for name, number in numbers.items() if name not in kept]
    refuse = _instruction(_RETURN, _REFUSE | errno.EPERM)
    code = [_instruction(_LOAD, _ARCHITECTURE), _instruction(_EQUAL, architecture, 1, 0), _instruction(_RETURN, _KILL)]
    code += [_instruction(_LOAD, _NUMBER), _instruction(_AT_LEAST, _X32, 0, 1), refuse]
    for number in [*denied, _IO_URING_SETUP]:
        code += [_instruction(_EQUAL, number, 0, 1), refuse]
    if not processes:  # clone3 keeps its flags where a filter cannot read them; without it the C library uses clone
        code += [_instruction(_EQUAL, _CLONE3, 0, 1), _instruction(_RETURN, _REFUSE | errno.ENOSYS)]
        code += [_instruction(_EQUAL, numbers["clone"], 0, 3), _instruction(_LOAD, _FIRST_ARGUMENT)]
        code += [_instruction(_ANY_BIT, _CLONE_THREAD, 1, 0), refuse]
    return b"".join([*code, _instruction(_RETURN, _ALLOW)])


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
