"""How far workers are kept from the rest of the machine: levels with names, each one holding what the one before holds.

process      bounds on memory, time, files; an environment and a directory of its own: what every system has
confined     each worker gives up privileges, foreign files and most system calls (Landlock, seccomp)
namespaces   all workers see no process, network, IPC but their own, and a read-only file system
container    they see only the files that verifiers need, brought in by bubblewrap or nsjail

The strongest that the machine can do is chosen, unless one is asked for by name.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mutual_env.errors import ConfigError, UnknownNameError
from mutual_env.verifiers.pool import containers, directories, kernel, landlock, namespaces, readable, seccomp
from mutual_env.verifiers.pool.containers import Place

_TRY_SECONDS = 20.0


class Level(Protocol):
    """One way of keeping workers in. `confines`: each worker also ties its own hands, when it starts. `own_processes`:
    process ids inside are not those outside."""

    name: str
    confines: bool
    own_processes: bool

    def missing(self) -> str:
        """Why this machine cannot do it, with the remedy; empty where it can. Tried, not looked up."""

    def command(self, python: Sequence[str], place: Place) -> list[str]:
        """How the fork server is started, given how Python would be."""

    def enter(self, place: Place) -> None:
        """Called by the fork server before it does anything else."""


class Process:
    name, confines, own_processes = "process", False, False

    def missing(self) -> str:
        return ""

    def command(self, python: Sequence[str], place: Place) -> list[str]:
        return list(python)

    def enter(self, place: Place) -> None:
        pass


class Confined:
    name, confines, own_processes = "confined", True, False

    def missing(self) -> str:
        if sys.platform != "linux":
            return f"{sys.platform} has neither Landlock nor seccomp: use Linux"
        if not landlock.version():
            return "the kernel has no Landlock: use Linux 5.13 or newer, with landlock among its security modules"
        if not seccomp.is_available():
            return "the kernel takes no seccomp filter here: it must allow them, on x86-64 or ARM64"
        return ""

    def command(self, python: Sequence[str], place: Place) -> list[str]:
        return list(python)

    def enter(self, place: Place) -> None:
        pass


class Namespaces:
    name, confines, own_processes = "namespaces", True, True

    def missing(self) -> str:
        if problem := Confined().missing():
            return problem
        with tempfile.TemporaryDirectory(prefix=directories.PREFIX) as directory:
            problem = _tried([sys.executable, "-I", "-S", namespaces.__file__, directory])
        remedy = (
            "let users have namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns; in Docker --security-opt seccomp=unconfined "
            "--security-opt systempaths=unconfined), on Linux 5.12 or newer"
        )
        return f"{problem}: {remedy}" if problem else ""

    def command(self, python: Sequence[str], place: Place) -> list[str]:
        return _cleared_away_after(python, place)

    def enter(self, place: Place) -> None:
        namespaces.enter(str(place.directory), network=place.network)


class Container:
    name, confines, own_processes = "container", True, True

    def missing(self) -> str:
        return Confined().missing() or _means()[1]

    def command(self, python: Sequence[str], place: Place) -> list[str]:
        means, problem = _means()
        if means is None:
            raise ConfigError(problem)
        return _cleared_away_after(means.command(python, place), place)

    def enter(self, place: Place) -> None:
        pass


@functools.cache
def _means() -> tuple[containers.Means | None, str]:
    """The first program that can build a container here; without one, what each lacks."""
    problems = []
    for means in containers.MEANS:
        problem = _tried_as(means)
        if not problem:
            return means, ""
        problems.append(problem)
    return None, ", and ".join(problems)


def _tried_as(means: containers.Means) -> str:
    if not means.program():
        return f"there is no {means.name}: {means.remedy}"
    with tempfile.TemporaryDirectory(prefix=directories.PREFIX) as directory:
        place = Place(Path(directory), readable.visible(), network=False)
        wanted = f"import os; os.stat({__file__!r}); open('tried', 'w')"
        problem = _tried(means.command([sys.executable, "-I", "-S", "-c", wanted], place))
    return f"{means.name} does not start here ({problem}): it needs what `namespaces` needs" if problem else ""


LEVELS: tuple[Level, ...] = (Process(), Confined(), Namespaces(), Container())
"""The strongest last."""


def level_named(name: str) -> Level:
    for level in LEVELS:
        if level.name == name:
            return level
    raise UnknownNameError.of("isolation level", name, [level.name for level in LEVELS])


def choose(name: str | None = None) -> Level:
    """The level of that name, refused where this machine cannot do it; without a name, the strongest that it can."""
    if name is None:
        return next(level for level in reversed(LEVELS) if not _missing(level.name))
    level = level_named(name)
    if problem := _missing(name):
        strongest = choose().name
        raise ConfigError(
            f"isolation {name!r} cannot be had on this machine: {problem}; or ask for {strongest!r}, which it can do"
        )
    return level


def isolation_report(name: str | None = None) -> dict[str, Any]:
    """The level that a pool of that isolation works at here, and what of each level: empty, or why it cannot be had."""
    return {"level": choose(name).name, "missing": {level.name: _missing(level.name) for level in LEVELS}}


@functools.cache
def _missing(name: str) -> str:
    """A machine is asked once in a process."""
    return level_named(name).missing()


def _tried(command: list[str]) -> str:
    """What a command had to say where it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TRY_SECONDS, env={"PATH": os.defpath})
    except (OSError, subprocess.TimeoutExpired) as cause:
        return str(cause)
    said = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (said[-1] if said else f"exit status {done.returncode}")


def outer_pid(started: int, inner: int) -> int:
    """The number outside of a process below `started` that has the number `inner` in namespaces of its own; -1 where
    it is gone."""
    for pid in kernel.descendants(started):
        numbers = kernel.of_process(pid, "status").partition(b"\nNSpid:")[2].split(b"\n")[0].split()
        if len(numbers) > 1 and int(numbers[-1]) == inner:
            return pid
    return -1


def _cleared_away_after(command: Sequence[str], place: Place) -> list[str]:
    """What is inside cannot remove the directory that is brought in for it; a process that stays outside does."""
    return [sys.executable, "-I", "-S", directories.__file__, str(place.directory), *command]
