"""One process writes to a directory at a time. The lock is the kernel's: it dies with the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mutual_env.errors import StorageError, WrongPathError

NAME = ".lock"
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)  # not the fault of the path
_GLANCE_SECONDS = 0.5  # somebody who looks whether a lock is held holds it for a moment


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held."""

    path: Path
    descriptor: int

    def check(self) -> None:
        """Raise where the directory was removed or replaced meanwhile: what is there now is somebody else's."""
        if not _is_at(self.descriptor, self.path):
            raise StorageError(f"{self.path.parent} was removed or replaced while it was being written to")


@contextmanager
def locked(directory: Path, *, make: bool = False) -> Iterator[Lock]:
    """The lock of this directory, or StorageError. `make`: it need not be there yet, and goes again if left empty."""
    descriptor, made = _open(directory, make=make)
    try:
        _take(directory, descriptor)
        yield Lock(directory / NAME, descriptor)
    finally:
        if made and _is_at(descriptor, directory / NAME) and [p.name for p in directory.iterdir()] == [NAME]:
            (directory / NAME).unlink()
            directory.rmdir()
        os.close(descriptor)


def is_locked(directory: Path) -> bool:
    """Whether a process is writing to it."""
    try:
        descriptor = os.open(directory / NAME, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _open(directory: Path, *, make: bool) -> tuple[int, bool]:
    """The lock's descriptor, and whether the directory is new."""
    try:
        made = make and not directory.exists()
        if made:
            directory.mkdir(parents=True, exist_ok=True)
        return os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), made
    except OSError as error:
        if error.errno == errno.ELOOP and (directory / NAME).is_symlink():
            raise StorageError(f"{directory / NAME} is a link: a run keeps its files itself; remove it") from error
        wrong = StorageError if error.errno in _PASSING else WrongPathError
        raise wrong(f"{directory} cannot be written to: {error.strerror}; choose another directory") from error
    except ValueError as error:  # a NUL in the name
        raise WrongPathError(f"{str(directory)!r} cannot be a directory: {error}") from error


def _take(directory: Path, descriptor: int) -> None:
    ends = time.monotonic() + _GLANCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > ends:
                raise StorageError(
                    f"{directory} is being written by another process: wait for it, or stop it"
                ) from error
            time.sleep(_GLANCE_SECONDS / 10)
            continue
        if not _is_at(descriptor, directory / NAME):
            raise StorageError(f"{directory} was removed or replaced at this very moment: try again")
        return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.lstat()
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
