"""Directories that hostile code wrote into: how much lies in them, and how they are removed, whatever it left.

Nothing here follows a link, and nothing calls itself once for each level of nesting. Imports nothing of ours: it is
also run as a program, `DIRECTORY COMMAND ...`, which removes the directory when the command has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PREFIX = "mutual-env-verifiers-"
MAX_ENTRIES, MAX_DEPTH = 10_000, 64
_STALE_SECONDS = 600.0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove a directory and all it holds; what the user may not remove stays.

    Each directory found inside is first moved up, next to the one that held it, under a number. So none has to be
    reached through others: no path grows long, and no more than three are open at a time.
    """
    with contextlib.suppress(OSError):
        heap = Path(tempfile.mkdtemp(prefix=PREFIX, dir=path.parent))
        try:
            os.rename(path, heap / "0")
            with _opened(heap) as handle:
                _remove_numbered(handle)
        finally:
            os.rmdir(heap)


def _remove_numbered(heap: int) -> None:
    waiting, numbers = ["0"], 1
    while waiting:
        name = waiting.pop()
        with contextlib.suppress(OSError), _made_own(name, heap) as directory:
            for entry, is_directory in _entries(directory):
                with contextlib.suppress(OSError):
                    if is_directory:
                        _make_own(entry, directory)
                        os.rename(entry, str(numbers), src_dir_fd=directory, dst_dir_fd=heap)
                        waiting.append(str(numbers))
                        numbers += 1
                    else:
                        os.unlink(entry, dir_fd=directory)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=heap)


def _entries(directory: int) -> list[tuple[str, bool]]:
    with os.scandir(directory) as found:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]


@contextlib.contextmanager
def _made_own(name: str, parent: int) -> Iterator[int]:
    """A directory that may have been closed to its owner, opened."""
    _make_own(name, parent)
    with _opened(name, parent) as handle:
        yield handle


def _make_own(name: str, parent: int) -> None:
    """Let its owner read, change and enter a directory. By its own inode: a link of that name is not followed."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if stat.S_IMODE(os.fstat(handle).st_mode) & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _opened(path: str | Path, parent: int | None = None) -> Iterator[int]:
    handle = os.open(path, _DIRECTORY, dir_fd=parent)
    try:
        yield handle
    finally:
        os.close(handle)


# -- how much is in one ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Footprint:
    """What a worker's directory may hold, looked at from time to time: `check` says what it holds too much of.
    `max_file`: what one file may hold, which the kernel sees to.

    A look costs a look at every entry, so the next one comes after twenty times its length at the earliest.
    """

    directory: Path
    max_bytes: int
    max_file: int
    due: float = 0.0

    def check(self, now: float, process: int) -> str | None:
        """`process` writes there; what it has removed and holds open counts too."""
        if now < self.due:
            return None
        found = _Count(bytes=_removed_bytes(self.directory, process, self.max_file))
        with contextlib.suppress(OSError), _opened(self.directory) as handle:
            found.add(handle, 0)
        self.due = now + 20 * (time.monotonic() - now)
        if found.bytes > self.max_bytes:
            return f"it wrote more than the {self.max_bytes >> 20} MB that its directory may hold"
        if found.entries > MAX_ENTRIES:
            return f"it made more than {MAX_ENTRIES} files"
        return f"it nested directories more than {MAX_DEPTH} deep" if found.depth > MAX_DEPTH else None


@dataclass(slots=True)
class _Count:
    bytes: int = 0
    entries: int = 0
    depth: int = 0

    def add(self, directory: int, depth: int) -> None:
        self.depth = max(self.depth, depth)
        if self.depth > MAX_DEPTH:
            return
        with os.scandir(directory) as found:
            for entry in found:
                self.entries += 1
                if self.entries > MAX_ENTRIES:
                    return
                with contextlib.suppress(OSError):  # it was removed meanwhile, or cannot be entered: then it is empty
                    self.bytes += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        with _opened(entry.name, directory) as inner:
                            self.add(inner, depth + 1)


def _removed_bytes(directory: Path, process: int, max_file: int) -> int:
    """Of files that had a name in the directory, and take room as long as the process has them open or mapped. How
    much of one is mapped says nothing of its size: without a descriptor, it counts as the largest that it could be."""
    within = os.fsencode(directory) + b"/"
    sizes: dict[tuple[int, int], int] = {}
    folder = f"/proc/{process}"
    with contextlib.suppress(OSError):  # it ended meanwhile, or the system has no /proc
        for name in os.listdir(f"{folder}/fd"):
            with contextlib.suppress(OSError):
                facts = os.stat(f"{folder}/fd/{name}")
                if stat.S_ISREG(facts.st_mode) and not facts.st_nlink:
                    sizes[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
        with open(f"{folder}/maps", "rb") as mapped:
            for line in mapped:
                if line.endswith(b" (deleted)\n") and within in line:
                    _, _, _, device, inode, *_ = line.split(maxsplit=5)
                    major, minor = (int(part, 16) for part in device.split(b":"))
                    sizes.setdefault((os.makedev(major, minor), int(inode)), max_file)
    return sum(sizes.values())


# -- what pools left behind that were ended with all their processes ---------------------------------------------------


def hold(path: Path) -> int:
    """A descriptor that says, for as long as it is open, that this directory is in use."""
    handle = os.open(path, _DIRECTORY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def remove_stale(directory: Path) -> None:
    """Remove what pools of this user made in `directory` and nobody holds any more."""
    with contextlib.suppress(OSError):
        for path in [path for path in directory.iterdir() if path.name.startswith(PREFIX)]:
            with contextlib.suppress(OSError):
                if _is_stale(path):
                    remove_tree(path)


def _is_stale(path: Path) -> bool:
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or time.time() - facts.st_mtime < _STALE_SECONDS:
        return False
    with _opened(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def main() -> None:
    directory, *command = sys.argv[1:]
    ended = subprocess.Popen(command, close_fds=False)
    os.closerange(3, 1024)  # the connection to the pool is the command's alone
    code = ended.wait()
    remove_tree(Path(directory))
    sys.exit(code & 0xFF)


if __name__ == "__main__":
    main()
