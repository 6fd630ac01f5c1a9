"""Namespaces of its own for the fork server and its workers: users, processes, mounts, network, IPC, the host's name.

What is in one sees no process, interface, or shared object from outside, and a file system that is read-only but for
one directory. Needs no privileges where the kernel lets a user have a user namespace. Imports nothing of ours: it is
also run as a program, to find out whether the machine can do it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Callable, Iterator

_NEW_MOUNTS, _NEW_CGROUP, _NEW_NAME, _NEW_IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_NEW_USERS, _NEW_PROCESSES, _NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
_BIND, _RECURSIVE, _PRIVATE, _NO_SUID, _NO_DEVICES, _NO_PROGRAMS = 0x1000, 0x4000, 0x40000, 2, 4, 8
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_READ_ONLY, _MOUNT_NO_SUID = 1, 2


def enter(writable: str, *, network: bool) -> None:
    """Returns in a new process, the first one of its namespaces, which ends with all others in it. The process that
    called waits for it and ends as it ends; only `writable` can be written to. OSError where the kernel refuses."""
    users = _maps() if os.geteuid() == 0 else {"uid_map": _one(os.geteuid()), "gid_map": _one(os.getegid())}
    flags = _NEW_USERS | _NEW_MOUNTS | _NEW_PROCESSES | _NEW_IPC | _NEW_NAME | _NEW_CGROUP
    with _mapped_from_outside(users) as mapped:
        _check(_libc().unshare(flags | (0 if network else _NEW_NETWORK)), "unshare")
        mapped()
    child = os.fork()
    if child:
        _wait_for(child)
    _rearrange_mounts(writable)


def _one(number: int) -> str:
    return f"{number} {number} 1"


def _maps() -> dict[str, str]:
    """Everybody that root knows stays who he is: else root could not read what others own."""
    found = {}
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}") as file:
            ranges = [line.split() for line in file]
        found[name] = "\n".join(f"{inside} {inside} {count}" for inside, _, count in ranges)
    return found


@contextlib.contextmanager
def _mapped_from_outside(users: dict[str, str]) -> Iterator[Callable[[], None]]:
    """What is yielded is to be called after the new namespace was entered. Maps of more than oneself are written by a
    process that stayed outside."""
    helper, go = (0, -1) if os.geteuid() != 0 else _start_helper(users)

    def mapped() -> None:
        if helper:
            os.write(go, b"!")
            if os.waitpid(helper, 0)[1] == 0:
                return
        _write_maps("self", users if not helper else {"uid_map": _one(0), "gid_map": _one(0)})

    try:
        yield mapped
    finally:
        if helper:
            os.close(go)


def _start_helper(users: dict[str, str]) -> tuple[int, int]:
    parent = os.getpid()
    wait, go = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(go)
        code = 1
        with contextlib.suppress(OSError):
            if os.read(wait, 1):
                _write_maps(str(parent), users, deny=False)
                code = 0
        os._exit(code)
    os.close(wait)
    return helper, go


def _write_maps(process: str, users: dict[str, str], *, deny: bool = True) -> None:
    if deny:  # who is not root may map groups only if he cannot leave one that something is forbidden to
        with open(f"/proc/{process}/setgroups", "w") as file:
            file.write("deny")
    for name, content in users.items():
        with open(f"/proc/{process}/{name}", "w") as file:
            file.write(content)


def _wait_for(child: int) -> None:
    os.closerange(3, 1024)  # the connection to the pool is the child's alone
    status = os.waitpid(child, 0)[1]
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _rearrange_mounts(writable: str) -> None:
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    _set_attributes("/", _AT_RECURSIVE, set_=_READ_ONLY | _MOUNT_NO_SUID)
    _mount(writable, writable, None, _BIND)
    _set_attributes(writable, 0, clear=_READ_ONLY)
    _mount("proc", "/proc", "proc", _NO_SUID | _NO_DEVICES | _NO_PROGRAMS)
    os.chdir(writable)  # by way of the new mount


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    plain = [None if part is None else os.fsencode(part) for part in (source, target, kind)]
    _check(_libc().mount(*plain, ctypes.c_ulong(flags), None), f"mount on {target}")


def _set_attributes(path: str, flags: int, *, set_: int = 0, clear: int = 0) -> None:
    attributes = struct.pack("QQQQ", set_, clear, 0, 0)
    numbers = [ctypes.c_long(n) for n in (_MOUNT_SETATTR, _AT_FDCWD)]
    _check(
        _libc().syscall(*numbers, os.fsencode(path), ctypes.c_long(flags), attributes, ctypes.c_long(32)),
        f"mount_setattr of {path}",
    )


def _check(answer: int, what: str) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """With a directory as the argument: enter, and say on stderr what did not work."""
    try:
        enter(sys.argv[1], network=False)
        with open("tried", "w"):
            pass
        os.unlink("tried")
    except OSError as cause:
        sys.exit(str(cause))


if __name__ == "__main__":
    main()
