"""A verifier that tries to break each promise of docs/verifiers.md, as the code that has taken a worker over would.

The text names an attempt; the verdict's `detail` lists what succeeded of it, and is empty where the promise held. The
task's metadata names the canaries: a process and files that the test made, and nothing else is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutual_env.types import Task, Verdict
from tests.hostile import detours
from tests.hostile.canaries import AT_FDCWD, LIBC, Canaries, Tries, call, succeeding, x86


@dataclass(frozen=True)
class Escape:
    id: str = "escape"
    inline: bool = False

    def verify(self, task: Task, text: str) -> Verdict:
        where = Canaries(**{name: task.metadata[name] for name in Canaries.__annotations__})  # type: ignore[arg-type]
        succeeded = succeeding({**ATTEMPTS, **OF_NAMESPACES, **OF_CONTAINERS}[text](where))
        return Verdict.scored(float(bool(succeeded)), correct=False, detail=", ".join(succeeded))


def limits_of_others(at: Canaries) -> Tries:
    each = {"cpu": resource.RLIMIT_CPU, "files": resource.RLIMIT_NOFILE, "size": resource.RLIMIT_FSIZE}
    return {
        f"prlimit {name}": lambda kind=kind: resource.prlimit(at.process, kind, (1, 1)) for name, kind in each.items()
    }


def priority_of_others(at: Canaries) -> Tries:
    return {
        "setpriority": lambda: os.setpriority(os.PRIO_PROCESS, at.process, 19),
        "own setpriority": lambda: os.setpriority(os.PRIO_PROCESS, 0, 19),
        "sched_setaffinity": lambda: os.sched_setaffinity(at.process, {0}),
        "own sched_setaffinity": lambda: os.sched_setaffinity(0, {0}),
        "sched_setscheduler": lambda: os.sched_setscheduler(at.process, os.SCHED_IDLE, os.sched_param(0)),
        "real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
        "sched_setparam": lambda: os.sched_setparam(at.process, os.sched_param(0)),
        "sched_setattr": x86(314, at.process, struct.pack("IIQiIQQQ", 48, 5, 0, 0, 0, 0, 0, 0), 0),
        "ioprio_set": x86(251, 1, at.process, 3 << 13),
    }


def signals_to_others(at: Canaries) -> Tries:
    return {
        "kill 0": lambda: os.kill(at.process, 0),
        "kill": lambda: os.kill(at.process, signal.SIGUSR1),
        "killpg": lambda: os.killpg(os.getpgid(at.process), signal.SIGUSR1),
        "parent": lambda: os.kill(os.getppid(), 0),
        "everybody": lambda: os.kill(-1, 0),
        "pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(at.process), signal.SIGUSR1),
        "tgkill": x86(234, at.process, at.process, int(signal.SIGUSR1)),
        "tkill": x86(200, at.process, int(signal.SIGUSR1)),
        "sigqueue": x86(129, at.process, int(signal.SIGUSR1), bytes(128)),
        "owner of a descriptor": lambda: fcntl.fcntl(os.pipe()[0], 8, at.process),
    }


def memory_of_others(at: Canaries) -> Tries:
    def read_of(name: str) -> Callable[[], bytes]:
        return lambda: Path(f"/proc/{at.process}/{name}").read_bytes()

    files = ("environ", "maps", "mem", "cmdline", "status", "stat", "auxv", "io")
    attach = {"ptrace": x86(101, 16, at.process, 0, 0), "seize": x86(101, 0x4206, at.process, 0, 0)}
    copy = {
        "process_vm_readv": x86(310, at.process, bytes(16), 1, bytes(16), 1, 0),
        "kcmp": x86(312, at.process, at.process, 0),
    }
    links = {f"link {n}": lambda n=n: os.readlink(f"/proc/{at.process}/{n}") for n in ("exe", "cwd", "root")}
    descriptors = {
        "link of a descriptor": lambda: os.readlink(f"/proc/{at.process}/fd/0"),
        "pidfd_getfd": lambda: call(438, os.pidfd_open(at.process), 0, 0),
    }
    return attach | copy | links | descriptors | {name: read_of(name) for name in files}


def files_of_the_user(at: Canaries) -> Tries:
    return {
        "secret": lambda: Path(at.secret).read_bytes(),
        "directory": lambda: os.listdir(at.directory),
        "home": lambda: os.listdir(os.path.expanduser(f"~{os.environ.get('USER', 'root')}")),
        "passwd": lambda: Path("/etc/passwd").read_bytes(),
        "temporary files": lambda: os.listdir("/tmp"),
        "other workers": lambda: os.listdir(".."),
        "by way of the root": lambda: Path(f"/proc/self/root/{at.secret}").read_bytes(),
        "by handle": x86(303, AT_FDCWD, at.secret.encode() + b"\0", bytes(136), bytes(4), 0),
        "watching": lambda: LIBC.inotify_init() >= 0,
    }


def writes_outside(at: Canaries) -> Tries:
    inside = Path("inside")
    inside.write_text("x")
    return {
        "create": lambda: Path(at.directory, "new").write_text("x"),
        "append": lambda: open(at.readable, "ab"),
        "truncate": lambda: os.truncate(at.readable, 0),
        "remove": lambda: os.unlink(at.readable),
        "rename out": lambda: os.rename(inside, Path(at.directory, "moved")),
        "rename in": lambda: os.rename(at.readable, "moved"),
        "link in": lambda: os.link(at.readable, "linked"),
        "link out": lambda: os.link(inside, Path(at.directory, "linked")),
        "symlink": lambda: os.symlink("x", Path(at.directory, "symlink")),
        "mkdir": lambda: os.mkdir(Path(at.directory, "made")),
        "mkfifo": lambda: os.mkfifo(Path(at.directory, "fifo")),
        "device": lambda: os.mknod("device", 0o020600, os.makedev(1, 1)),
        "shared memory": lambda: Path("/dev/shm/mutual-env-canary").write_text("x"),
    }


def metadata_of_files(at: Canaries) -> Tries:
    def by_descriptor(change: Callable[[int], object]) -> Callable[[], object]:
        def attempt() -> object:
            with open(at.readable, "rb") as file:
                return change(file.fileno())

        return attempt

    path = at.readable.encode() + b"\0"
    return {
        "chmod": lambda: os.chmod(at.readable, 0o640),
        "fchmod": by_descriptor(lambda handle: os.fchmod(handle, 0o640)),
        "fchmodat2": lambda: call(452, AT_FDCWD, path, 0o640, 0),
        "chown": lambda: os.chown(at.readable, os.getuid(), os.getgid()),
        "lchown": lambda: os.lchown(at.readable, os.getuid(), os.getgid()),
        "fchown": by_descriptor(lambda handle: os.fchown(handle, os.getuid(), os.getgid())),
        "utime": lambda: os.utime(at.readable, (1, 1)),
        "utime of a descriptor": by_descriptor(lambda handle: os.utime(handle, (1, 1))),
        "setxattr": lambda: os.setxattr(at.readable, "user.canary", b"x"),
        "setxattrat": lambda: call(463, AT_FDCWD, path, 0, b"user.canary\0", struct.pack("QII", 0, 0, 0), 16),
        "removexattr": lambda: os.removexattr(at.readable, "user.canary"),
        "flags": by_descriptor(lambda handle: fcntl.ioctl(handle, 0x40086602, struct.pack("l", 0x10))),
        "more flags": by_descriptor(lambda handle: fcntl.ioctl(handle, 0x401C5820, bytes(28))),
        "file_setattr": lambda: call(469, AT_FDCWD, path, bytes(24), 24, 0),
    }


def locks(at: Canaries) -> Tries:
    def lock(command: int, kind: int) -> Callable[[], object]:
        def attempt() -> object:
            with open(at.readable, "rb") as file:
                return fcntl.fcntl(file, command, struct.pack("hhqqi", kind, 0, 120, 1, 0))

        return attempt

    def flock() -> object:
        with open(at.readable, "rb") as file:
            return fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def lease() -> object:
        with open(at.readable, "rb") as file:
            return fcntl.fcntl(file, 1024, fcntl.F_RDLCK)

    return {
        "flock": flock,
        "F_SETLK": lock(fcntl.F_SETLK, fcntl.F_RDLCK),
        "F_SETLKW": lock(fcntl.F_SETLKW, fcntl.F_RDLCK),
        "F_OFD_SETLK": lock(37, fcntl.F_RDLCK),
        "lease": lease,
    }


def shared_objects(_: Canaries) -> Tries:
    return {
        "shmget": lambda: LIBC.shmget(0x6D75, 4096, 0o1600) >= 0,
        "msgget": lambda: LIBC.msgget(0x6D75, 0o1600) >= 0,
        "semget": lambda: LIBC.semget(0x6D75, 1, 0o1600) >= 0,
        "mq_open": x86(240, b"mutual-env-canary\0", 0o100 | 2, 0o600, 0),
        "add_key": x86(248, b"user\0", b"canary\0", b"x", 1, -3),
        "keyctl": x86(250, 0, -3, 1),
        "memfd_create": lambda: os.memfd_create("canary"),
        "memfd_secret": lambda: call(447, 0),
        "socket": lambda: socket.socket(socket.AF_UNIX).bind("\0mutual-env-canary"),
    }


def sockets(_: Canaries) -> Tries:
    families = {"INET": 2, "INET6": 10, "UNIX": 1, "NETLINK": 16, "VSOCK": 40, "ALG": 38, "PACKET": 17}
    kinds = {
        name: lambda family=family: socket.socket(family, socket.SOCK_RAW if family == 17 else 1)
        for name, family in families.items()
    }
    for name, kind in (("datagrams", socket.SOCK_DGRAM), ("packets", socket.SOCK_SEQPACKET)):  # may send anywhere
        kinds[f"pair of {name}"] = lambda kind=kind: socket.socketpair(socket.AF_UNIX, kind)
    return {**kinds, "io_uring": lambda: call(425, 1, bytes(120))}


def processes(_: Canaries) -> Tries:
    def fork() -> object:
        child = os.fork()
        if child == 0:
            os._exit(0)
        return os.waitpid(child, 0)

    return {
        "fork": fork,
        "subprocess": lambda: subprocess.run(["/bin/true"], check=True),
        "posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "exec": lambda: (
            os.execv("/nowhere", ["nowhere"]) if LIBC.execve(b"/bin\0", 0, 0) and ctypes.get_errno() != 1 else False
        ),
        "clone3": lambda: call(435, bytes(88), 88) and ctypes.get_errno() not in (1, 38),
        "new session": lambda: os.setsid(),
        "new group": lambda: os.setpgid(0, 0),
    }


def privileges(_: Canaries) -> Tries:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"] + (["CapBnd"] if os.geteuid() == 0 else [])
    wrong = {n: status[n] for n in sets if int(status[n], 16)}  # a user cannot shrink the last, and gains nothing by it
    wrong |= {n: status[n] for n, right in (("NoNewPrivs", "1"), ("Seccomp", "2")) if status[n] != right}
    return {
        **{f"{name} {value}": lambda: True for name, value in wrong.items()},
        "chroot": lambda: os.chroot("."),
        "sethostname": lambda: socket.sethostname("canary"),
        "unshare user": lambda: LIBC.unshare(0x10000000) == 0,
        "unshare mounts": lambda: LIBC.unshare(0x20000) == 0,
        "clone into a namespace": lambda: LIBC.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) > 0,
        "mount": lambda: LIBC.mount(b"none\0", b".\0", b"tmpfs\0", 0, 0) == 0,
        "setuid": lambda: os.setresuid(os.getuid(), os.getuid(), os.getuid()),
        "bpf": x86(321, 0, bytes(72), 72),
        "perf": x86(298, bytes(112), 0, -1, -1, 0),
        "userfaultfd": x86(323, 0),
        "syslog": x86(103, 10, 0, 0),
        "fanotify": x86(300, 0, 0),
        "personality": x86(135, 0x40000),
        "more memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
        "more files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),
    }


def outliving(_: Canaries) -> Tries:
    return {
        "no death signal": lambda: LIBC.prctl(1, 0, 0, 0, 0) == 0,
        "subreaper": lambda: LIBC.prctl(36, 1, 0, 0, 0) == 0,
        "not dumpable": lambda: LIBC.prctl(4, 0, 0, 0, 0) == 0,
        "ptracer": lambda: LIBC.prctl(0x59616D61, -1, 0, 0, 0) == 0,
        "old numbers": lambda: os.uname().machine == "x86_64" and call(0x40000000 | 39),
    }


def sight_of_others(at: Canaries) -> Tries:
    return {
        "listed": lambda: len([name for name in os.listdir("/proc") if name.isdigit()]) > 9,
        "asked for": lambda: os.getpgid(at.process),
        "session": lambda: os.getsid(os.getppid()) > 9,
        "name of the machine": lambda: Path("/proc/sys/kernel/hostname").read_text(),
    }


def changes_of_the_file_system(at: Canaries) -> Tries:
    """By what the kernel says of the mounts, for the worker itself may not write there in any case."""
    return {
        path: lambda path=path: not os.statvfs(path).f_flag & os.ST_RDONLY
        for path in ("/", "/usr", "/etc", "/tmp", "/var/tmp", "/home", at.directory)
        if os.path.exists(path)
    }


def sight_of_files(at: Canaries) -> Tries:
    places = {"secret": at.secret, "passwd": "/etc/passwd", "variable": "/var/log", "temporary": "/var/tmp"}
    return {name: lambda path=path: os.stat(path) for name, path in places.items()}


def honest_work(at: Canaries) -> Tries:
    """What must stay possible; here a name in `detail` is a failure of it."""

    def thread() -> None:
        threading.Thread(target=print).start()

    def mapped() -> None:
        with open("mapped", "w+b") as file:
            file.write(bytes(4096))
            file.flush()
            mmap.mmap(file.fileno(), 4096).close()

    work: Mapping[str, Callable[[], Any]] = {
        "read what was allowed": lambda: Path(at.readable).read_bytes(),
        "write in its directory": lambda: Path("own").write_text("x"),
        "rename in its directory": lambda: os.rename("own", "other"),
        "import a module": lambda: __import__("wave"),
        "thread": thread,
        "pair of streams": socket.socketpair,
        "random numbers": lambda: os.urandom(8),
        "map a file": mapped,
        "own facts": lambda: Path("/proc/self/statm").read_text(),
        "time zones": lambda: __import__("zoneinfo").ZoneInfo("Europe/Paris"),
        "temporary file": lambda: __import__("tempfile").TemporaryFile(),
        "abort signal handler": lambda: signal.raise_signal(signal.SIGCONT),
    }
    return {name: lambda done=done: _fails(done) for name, done in work.items()}


def _fails(work: Callable[[], object]) -> bool:
    with contextlib.suppress(Exception):
        work()
        return False
    return True


def promised(level: str) -> dict[str, Callable[[Canaries], Tries]]:
    """What a level promises, with all that weaker ones do."""
    own = {"namespaces": OF_NAMESPACES, "container": {**OF_NAMESPACES, **OF_CONTAINERS}}
    return {**ATTEMPTS, **own.get(level, {})}


def _none(_: Canaries) -> Tries:
    return {}


OF_NAMESPACES: Mapping[str, Callable[[Canaries], Tries]] = {
    "sight of others": sight_of_others,
    "changes of the file system": changes_of_the_file_system,
}
OF_CONTAINERS: Mapping[str, Callable[[Canaries], Tries]] = {"sight of files": sight_of_files}
DIRECT: Mapping[str, Callable[[Canaries], Tries]] = {
    "limits of others": limits_of_others,
    "priority of others": priority_of_others,
    "signals to others": signals_to_others,
    "memory of others": memory_of_others,
    "files of the user": files_of_the_user,
    "writes outside": writes_outside,
    "metadata of files": metadata_of_files,
    "locks": locks,
    "shared objects": shared_objects,
    "sockets": sockets,
    "processes": processes,
    "privileges": privileges,
    "outliving": outliving,
    "honest work": honest_work,
}
ATTEMPTS: Mapping[str, Callable[[Canaries], Tries]] = {
    promise: lambda at, promise=promise: {  # type: ignore[misc]
        name: attempt for part in (DIRECT, detours.DETOURS) for name, attempt in part.get(promise, _none)(at).items()
    }
    for promise in [*DIRECT, *(detours.DETOURS.keys() - DIRECT.keys())]
}
