"""Other ways to what `escapes` tries directly, by promise; and what the machine counts for all who use it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.hostile.canaries import AT_FDCWD, LIBC, Canaries, Tries, call, x86

MANY = 500
"""More of anything than a verifier needs, and no burden."""


def answered(number: int, *arguments: object) -> Callable[[], bool]:
    """Whether the kernel looked at the arguments, if only to find fault with them. By the number on x86-64."""
    refusals = errno.EPERM, errno.ENOSYS
    return lambda: os.uname().machine == "x86_64" and (call(number, *arguments) or ctypes.get_errno() not in refusals)


def to_files(at: Canaries) -> Tries:
    def by_path_descriptor() -> object:
        return os.open(f"/proc/self/fd/{os.open(at.secret, os.O_PATH)}", os.O_RDONLY)

    def by_link() -> object:
        os.symlink(at.secret, "link")
        return Path("link").read_bytes()

    def by_directory() -> object:
        return os.open("secret", os.O_RDONLY, dir_fd=os.open(at.directory, os.O_PATH))

    def by_going_there() -> object:
        here = os.open(".", os.O_PATH)
        try:
            os.chdir(at.directory)
            return Path("secret").read_bytes()
        finally:
            os.fchdir(here)

    how = struct.pack("QQQ", os.O_RDONLY, 0, 0)
    devices = ("/dev/mem", "/dev/kmsg", "/dev/fuse", "/dev/kvm", "/dev/userfaultfd", "/dev/ptmx", "/dev/tty")
    return {
        "by a path descriptor": by_path_descriptor,
        "by a link of its own": by_link,
        "by a directory's descriptor": by_directory,
        "by going there": by_going_there,
        "by the working directory": lambda: os.listdir("/proc/self/cwd/.."),
        "openat2": lambda: call(437, AT_FDCWD, at.secret.encode() + b"\0", how, len(how)),
        "kernel's messages": lambda: Path("/dev/kmsg").open("rb"),
        "other users' sockets": lambda: os.listdir("/run"),
        **{path: lambda path=path: os.open(path, os.O_RDWR) for path in devices},
    }


def to_writes(at: Canaries) -> Tries:
    def exchanged() -> object:
        Path("mine").write_text("x")
        return call(316, AT_FDCWD, b"mine\0", AT_FDCWD, at.readable.encode() + b"\0", 2)

    def linked() -> object:
        with open(at.readable, "rb") as file:
            source = f"/proc/self/fd/{file.fileno()}\0".encode()
            return call(265, AT_FDCWD, source, AT_FDCWD, b"linked again\0", 0x400)

    def reopened() -> object:
        with open(at.readable, "rb") as file:
            return os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY)

    settings = (
        *("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/self/oom_score_adj", "/proc/self/autogroup"),
        *("/proc/self/coredump_filter", "/proc/self/comm", "/proc/self/clear_refs", "/proc/self/loginuid"),
        *("/sys/fs/cgroup/cgroup.procs", "/sys/power/state", f"/proc/{at.process}/oom_score_adj"),
    )
    return {
        "exchange": exchanged,
        "link of a descriptor": linked,
        "opened again for writing": reopened,
        "emptied": lambda: os.open(at.readable, os.O_WRONLY | os.O_TRUNC),
        "file without a name": lambda: os.open(at.directory, os.O_TMPFILE | os.O_RDWR),
        "group of processes": lambda: os.mkdir("/sys/fs/cgroup/canary"),
        **{path: lambda path=path: os.open(path, os.O_WRONLY) for path in settings},
    }


def to_memory(at: Canaries) -> Tries:
    own = ctypes.create_string_buffer(16)
    piece = struct.pack("PN", ctypes.addressof(own), 0)
    return {
        "process_vm_writev": x86(311, at.process, piece, 1, piece, 1, 0),
        "process_madvise": answered(440, 0, piece, 1, 21, 0),
        "process_mrelease": answered(448, 0, 0),
        "list of futexes": x86(274, at.process, own, own),
        "memory, for writing": lambda: os.open(f"/proc/{at.process}/mem", os.O_RDWR),
        "page map": lambda: os.open(f"/proc/{at.process}/pagemap", os.O_RDONLY),
        "system calls": lambda: Path(f"/proc/{at.process}/syscall").read_bytes(),
        "stack": lambda: Path(f"/proc/{at.process}/stack").read_bytes(),
        "descriptors": lambda: os.listdir(f"/proc/{at.process}/fd"),
        "namespaces": lambda: os.readlink(f"/proc/{at.process}/ns/mnt"),
        "mapped files": lambda: os.listdir(f"/proc/{at.process}/map_files"),
    }


def to_metadata(at: Canaries) -> Tries:
    def hinted(command: int) -> Callable[[], object]:
        def attempt() -> object:
            with open(at.readable, "rb") as file:
                return fcntl.fcntl(file, command, struct.pack("Q", 2))

        return attempt

    return {"hint": hinted(1036), "hint of a descriptor": hinted(1038)}


def to_processes(_: Canaries) -> Tries:
    program = b"/bin/true\0"
    return {
        "execveat": answered(322, AT_FDCWD, program, 0, 0, 0x10000),
        "fork by its number": lambda: os.uname().machine == "x86_64" and LIBC.syscall(57) > 0,
        "clone with a parent's place": lambda: LIBC.syscall(56, 0x8000 | 17, 0, 0, 0, 0) > 0,
        "clone for a trace": lambda: LIBC.syscall(56, 0x2000 | 17, 0, 0, 0, 0) > 0,
    }


def to_privileges(_: Canaries) -> Tries:
    here = b"/\0"
    return {
        "fsopen": lambda: call(430, b"tmpfs\0", 0),
        "open_tree": lambda: call(428, AT_FDCWD, here, 1),
        "fspick": lambda: call(433, AT_FDCWD, here, 0),
        "move_mount": lambda: call(429, AT_FDCWD, here, AT_FDCWD, here, 0),
        "mount_setattr": lambda: call(442, AT_FDCWD, here, 0, bytes(32), 32),
        "statmount": lambda: call(457, bytes(24), bytes(512), 512, 0),
        "setns": lambda: LIBC.setns(os.open("/proc/self/ns/net", os.O_RDONLY), 0) == 0,
        "session of keys": x86(250, 1, 0),
        "swapoff": x86(168, here),
        "quotas": x86(179, 0x800007 << 8, 0, 0, bytes(128)),
        "ports": x86(173, 0x80, 1, 1),
        "a core file": lambda: resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096)),
        "more signals": lambda: resource.setrlimit(resource.RLIMIT_SIGPENDING, (4096, 4096)),
        "larger files": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40)),
        "a core for itself": x86(157, 62, 1, 0, 1, 0),
    }


def _timers() -> object:
    made = ctypes.create_string_buffer(8)
    return all(call(222, 1, 0, made) for _ in range(MANY))


def _signals() -> object:
    number = signal.SIGRTMIN + 3
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    for _ in range(MANY):
        os.kill(os.getpid(), number)
    return int(Path("/proc/self/status").read_text().partition("SigQ:")[2].partition("/")[0]) >= MANY


def _loner() -> object:
    """A thread that does nothing, on a stack of its own, and shares memory but no descriptors."""
    stack = mmap.mmap(-1, 1 << 16)
    top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + (1 << 15)
    idle = ctypes.cast(LIBC.pause, ctypes.c_void_p).value
    ctypes.memmove(top, struct.pack("QQ", idle or 0, idle or 0), 16)
    return os.uname().machine == "x86_64" and LIBC.syscall(56, 0x10900, ctypes.c_void_p(top), 0, 0, 0) > 0


def shares_of_the_machine(_: Canaries) -> Tries:
    def room() -> object:
        with open("room", "wb") as file:
            return call(285, file.fileno(), 0, 0, 4 << 20) and os.stat("room").st_blocks > 0

    def name() -> object:
        one, other = socket.socketpair()
        with one, other:
            return one.bind("\0mutual-env-canary") is None

    def flight() -> object:
        one, other = socket.socketpair()
        with one, other, open("flown", "wb") as file:
            return socket.send_fds(one, [b"x"], [file.fileno()])

    def pipes() -> object:
        return fcntl.fcntl(os.pipe()[0], 1031, 1 << 20)

    return {
        "timers": _timers,
        "signals that wait": _signals,
        "room on the disk": room,
        "name of a socket": name,
        "descriptors in flight": flight,
        "large pipes": pipes,
        "asynchronous contexts": x86(206, 64, ctypes.create_string_buffer(8)),
        "a thread with descriptors of its own": _loner,
        "a table of descriptors of its own": lambda: call(436, 900, 901, 2),
    }


DETOURS: Mapping[str, Callable[[Canaries], Tries]] = {
    "files of the user": to_files,
    "writes outside": to_writes,
    "memory of others": to_memory,
    "metadata of files": to_metadata,
    "processes": to_processes,
    "privileges": to_privileges,
    "shares of the machine": shares_of_the_machine,
}
