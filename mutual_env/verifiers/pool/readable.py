"""What of the file system a worker still reads: the interpreter, its libraries, the verifiers, and nothing of yours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from mutual_env.verifiers.pool.landlock import outermost

_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/nix/store")
_FILES = (
    *("/etc/ld.so.cache", "/etc/localtime", "/dev/zero", "/dev/random", "/dev/urandom"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu"),
)
"""Of the machine, what an interpreter and numeric libraries look up."""
_LIBRARIES = ("site-packages", "dist-packages")


def paths(modules: Iterable[ModuleType], extra: Iterable[str] = ()) -> tuple[Path, ...]:
    """The system's libraries, the interpreter's, installed packages, and what these modules were loaded from.

    An entry of `sys.path` that is a project's own directory is not read as a whole: it may hold anything. Of it, the
    packages and files that were loaded when the worker was started stay readable; a verifier that needs more names it
    (`readable`), or imports it in `warm`.
    """
    libraries = [Path(p) for p in (*_SYSTEM, *_FILES, *_interpreter(), *_linked(), *_installed())]
    own = [Path(p) for module in modules for p in _files_of(module)]
    wanted = (*libraries, *own, *(Path(p) for p in extra))
    return outermost(path.resolve() for path in wanted if path.exists())


def visible(extra: Iterable[str] = ()) -> tuple[str, ...]:
    """What must exist for an interpreter with this one's modules to start: all of it readable, not all of it read.

    By the names that are used and by those that they lead to, for a link is no use without what it points at.
    """
    own = [path for module in list(sys.modules.values()) for path in _files_of(module)]
    names = [*_SYSTEM, *_FILES, *_interpreter(), *_linked(), *(os.path.abspath(p) for p in sys.path), *own, *extra]
    found = [Path(name) for name in names if os.path.exists(name) and not name.startswith(("/proc/", "/dev/"))]
    return tuple(str(path) for path in outermost(p for name in found for p in (name, name.resolve())))


def _interpreter() -> Iterator[str]:
    yield from {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, os.path.dirname(sys.executable)}


def _linked() -> Iterator[str]:
    yield from filter(os.path.isabs, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))


def _installed() -> Iterator[str]:
    for entry in filter(os.path.isabs, sys.path):
        if (
            os.path.isfile(entry)
            or any(name in Path(entry).parts for name in _LIBRARIES)
            or any(os.path.lexists(os.path.join(entry, name)) for name in ("os.py", "lib-dynload"))
        ):
            yield entry


def _files_of(module: ModuleType) -> Iterator[str]:
    """Where a module that is no part of another was loaded from: its directory if it is a package, else its file."""
    if "." in module.__name__:
        return
    folders = getattr(module, "__path__", None)
    if folders is not None:
        yield from (str(folder) for folder in folders)
    elif isinstance(origin := getattr(module, "__file__", None), str):
        yield origin
