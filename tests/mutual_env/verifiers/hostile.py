"""A verifier that does what its text says: everything a worker must survive. Imported by name in the workers."""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mutual_env.types import Task, Verdict


@dataclass(frozen=True)
class Hostile:
    """Texts "number:N" are answered with reward N; any other names a misdeed, with an argument after the colon."""

    id: str = "hostile"
    inline: bool = False

    def verify(self, task: Task, text: str) -> Verdict:
        deed, _, argument = text.partition(":")
        if deed == "number":
            return Verdict.scored(float(argument), correct=float(argument) == float(task.answer))
        return DEEDS[deed](argument)


@dataclass(frozen=True)
class Unloadable:
    id: str = "unloadable"
    inline: bool = False

    def warm(self) -> None:
        raise RuntimeError("the library it needs is broken")

    def verify(self, task: Task, text: str) -> Verdict:
        raise AssertionError


def _told(what: object) -> Verdict:
    return Verdict.scored(0.5, correct=False, detail=str(what)[:400])


def _raise(_: str) -> Verdict:
    raise ValueError("this verifier raises")


def _spin(_: str) -> Verdict:
    while True:
        pass


def _sleep(seconds: str) -> Verdict:
    time.sleep(float(seconds or 3600))
    return _told("slept")


def _work(seconds: str) -> Verdict:
    end = time.process_time() + float(seconds)
    while time.process_time() < end:
        pass
    return _told("worked")


def _ignore_sigterm(_: str) -> Verdict:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(1)


def _exit_at_once(_: str) -> Verdict:
    os._exit(3)


def _exit_politely(_: str) -> Verdict:
    sys.exit("bye")


def _flood(_: str) -> Verdict:
    for _ in range(200):
        print("x" * 100_000)
        os.write(1, b"y" * 100_000)
        os.write(2, b"z" * 100_000)
    return _told("flooded")


def _allocate(_: str) -> Verdict:
    return _told(len(bytearray(10 * 2**30)))


def _leak(megabytes: str) -> Verdict:
    _KEPT.append(bytearray(int(megabytes) * 2**20))
    return _told("leaked")


def _segfault(_: str) -> Verdict:
    ctypes.string_at(0)
    raise AssertionError("unreachable")


def _fork_children(count: str) -> Verdict:
    """A bounded bomb: at most 50 children, each in a session of its own if it can, asleep for 30 s."""
    for _ in range(min(50, int(count))):
        if os.fork() == 0:
            with contextlib.suppress(OSError):
                os.setsid()
            time.sleep(30)
            os._exit(0)
    return _told("forked")


def _hang_with_children(count: str) -> Verdict:
    _fork_children(count)
    return _sleep("")


def _run_program(_: str) -> Verdict:
    return _told(subprocess.run(["/bin/echo", "hello"], capture_output=True, text=True, check=True).stdout.strip())


def _write_big_file(_: str) -> Verdict:
    with open("big", "wb") as file:
        for _ in range(100):
            file.write(b"x" * 2**20)
    return _told("written")


def _write_outside(path: str) -> Verdict:
    Path(path).write_text("here")
    return _told("written")


def _leave_files(_: str) -> Verdict:
    directory = Path("a/b")
    directory.mkdir(parents=True)
    (directory / "file").write_text("x")
    (directory / "closed").mkdir(mode=0)
    (directory / "read only").mkdir(mode=0o500)
    return _told(os.getcwd())


def _write_many(megabytes: str) -> Verdict:
    for i in range(int(megabytes)):
        Path(f"file-{i}").write_bytes(bytes(1 << 20))
        time.sleep(0.05)
    return _told("written")


def _write_removed(megabytes: str) -> Verdict:
    """What has no name any more is in no directory."""
    held = []
    for i in range(int(megabytes)):
        held.append(open(f"file-{i}", "wb", buffering=0))  # noqa: SIM115
        os.unlink(f"file-{i}")
        held[-1].write(bytes(1 << 20))
        time.sleep(0.05)
    time.sleep(2)
    return _told("written")


def _write_mapped(megabytes: str) -> Verdict:
    held = []
    for i in range(int(megabytes)):
        with open(f"file-{i}", "w+b") as file:
            file.write(bytes(1 << 20))
            file.flush()
            held.append(mmap.mmap(file.fileno(), 1 << 20))
        os.unlink(f"file-{i}")
        time.sleep(0.05)
    time.sleep(2)
    return _told("written")


def _write_glimpsed(megabytes: str) -> Verdict:
    """Of each file a page stays mapped, and no name and no descriptor."""
    held = []
    for i in range(int(megabytes)):
        with open(f"file-{i}", "w+b") as file:
            file.write(bytes(1 << 20))
            file.flush()
            held.append(mmap.mmap(file.fileno(), mmap.PAGESIZE))
        os.unlink(f"file-{i}")
        time.sleep(0.05)
    time.sleep(2)
    return _told("written")


def _nest(depth: str) -> Verdict:
    for _ in range(int(depth)):
        os.mkdir("d")
        os.chdir("d")
    time.sleep(10)
    return _told("nested")


def _orphan(_: str) -> Verdict:
    """Asks not to be ended with its parent, then does nothing for an hour."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None, use_errno=True).prctl(1, 0)
    time.sleep(3600)
    return _told("nobody came")


def _stop(_: str) -> Verdict:
    os.kill(os.getpid(), signal.SIGSTOP)
    return _told("went on")


def _read_environment(name: str) -> Verdict:
    found = [os.environ.get(name), os.getenv("PATH")]
    near = range(max(1, os.getpid() - 300), os.getpid())  # which there are it may not be told
    for pid in (os.getppid(), *near):
        try:
            if name.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(f"in process {pid}")
        except OSError:
            continue
    return _told(json.dumps(found[:3]))


def _connect(_: str) -> Verdict:
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", 9))
    return _told("connected")


def _kill_parent(_: str) -> Verdict:
    os.kill(os.getppid(), signal.SIGKILL)
    return _told("killed")


def _use_threads(_: str) -> Verdict:
    seen: list[int] = []
    threads = [threading.Thread(target=seen.append, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _told(sorted(seen))


def _crowd(count: str) -> Verdict:
    threading.stack_size(1 << 16)
    for _ in range(min(500, int(count))):
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    return _sleep("30")


def _return_nan(_: str) -> Verdict:
    return Verdict.scored(float("nan"), correct=False)


def _return_number(_: str) -> Verdict:
    return 1.0  # type: ignore[return-value]


def _long_detail(_: str) -> Verdict:
    return Verdict.scored(1.0, correct=True, detail="\N{SNOWMAN}" * 10**6)


def _forge(_: str) -> Verdict:
    """Write to every descriptor what could pass for an answer, or for a pickle."""
    for handle in range(3, 64):
        try:
            os.write(handle, b"\xff" * 4096)
        except OSError:
            continue
    return _sleep("")


def _recurse(_: str) -> Verdict:
    return _recurse(_)


_KEPT: list[bytearray] = []
DEEDS: dict[str, Callable[[str], Verdict]] = {
    "raise": _raise,
    "spin": _spin,
    "sleep": _sleep,
    "work": _work,
    "ignore_sigterm": _ignore_sigterm,
    "exit_at_once": _exit_at_once,
    "exit_politely": _exit_politely,
    "flood": _flood,
    "allocate": _allocate,
    "leak": _leak,
    "segfault": _segfault,
    "fork": _fork_children,
    "hang_with_children": _hang_with_children,
    "run_program": _run_program,
    "write_big_file": _write_big_file,
    "write_outside": _write_outside,
    "leave_files": _leave_files,
    "write_many": _write_many,
    "write_removed": _write_removed,
    "write_mapped": _write_mapped,
    "write_glimpsed": _write_glimpsed,
    "nest": _nest,
    "orphan": _orphan,
    "stop": _stop,
    "read_environment": _read_environment,
    "connect": _connect,
    "kill_parent": _kill_parent,
    "use_threads": _use_threads,
    "crowd": _crowd,
    "return_nan": _return_nan,
    "return_number": _return_number,
    "long_detail": _long_detail,
    "forge": _forge,
    "recurse": _recurse,
}


def read(path: str) -> str:
    """Called by name in a worker."""
    return Path(path).read_text()
