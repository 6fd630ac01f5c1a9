"""Tries every escape in a pool of its own, as whoever runs this, and prints as JSON what succeeded.

`python -m tests.hostile.promises DIRECTORY LEVEL`; the directory is an empty one that this user may write.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from mutual_env.types import Task
from mutual_env.verifiers import VerifierPool
from tests.hostile.escapes import promised

SECRET = "hunter2-canary"


def main(directory: Path, level: str) -> dict[str, str]:
    user = directory / "user"
    user.mkdir()
    (user / "secret").write_text(SECRET)
    readable = user / "readable"
    readable.write_text("readable")
    readable.chmod(0o600)
    before = _state(readable)
    canary = subprocess.Popen(["/bin/sleep", "600"], env={"SECRET": SECRET}, start_new_session=True)
    try:
        where = {
            "process": canary.pid,
            "secret": str(user / "secret"),
            "readable": str(readable),
            "directory": str(user),
        }
        task = Task("canaries", "", "", where)
        with VerifierPool(1, deadline=20.0, remember=0, readable=[str(readable)], isolation=level) as pool:
            verdicts = pool.verify("tests.hostile.escapes:Escape", [(task, text) for text in promised(level)])
        found = {
            t: v.detail if v.reward is not None else f"{v.status}: {v.detail}"
            for t, v in zip(promised(level), verdicts, strict=True)
        }
        found["process"] = "" if canary.poll() is None else f"the canary ended with {canary.returncode}"
        found["files"] = "" if _state(readable) == before else "the file was changed"
        found["names"] = ", ".join(sorted({p.name for p in user.iterdir()} - {"secret", "readable"}))
        return found
    finally:
        canary.send_signal(signal.SIGKILL)
        canary.wait()


def _state(path: Path) -> tuple[object, ...]:
    seen = path.stat()
    return path.read_bytes(), seen.st_mode, seen.st_uid, seen.st_mtime_ns, seen.st_nlink, os.listxattr(path)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
