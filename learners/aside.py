"""Temporary folders that outlive nobody: one whose process was killed is removed by the next process that makes one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

_OWNER = ".owner"
_NEW = "new-"
_NEW_SECONDS = 3600.0  # a folder is new until its owner has locked it, which takes no time


class Aside:
    """A folder of this process, for as long as it holds the lock in it. `close` removes it."""

    def __init__(self, prefix: str, directory: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir() if directory is None else directory)
        made = Path(tempfile.mkdtemp(prefix=_NEW + prefix, dir=parent))
        self._descriptor = os.open(made / _OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self.path = made.rename(parent / made.name.removeprefix(_NEW))
        _sweep(parent, prefix, now=self.path.lstat().st_mtime)

    def close(self) -> None:
        if self._descriptor >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.close()


def _sweep(parent: Path, prefix: str, now: float) -> None:
    """Remove the folders of this user that nobody holds."""
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # gone already, or made by somebody else meanwhile
            if _is_ours(path) and _is_left(path):
                shutil.rmtree(path, ignore_errors=True)
    for path in parent.glob(f"{_NEW}{prefix}*"):
        with contextlib.suppress(OSError):
            if _is_ours(path) and now - path.lstat().st_mtime > _NEW_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _is_ours(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _is_left(path: Path) -> bool:
    descriptor = os.open(path / _OWNER, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
