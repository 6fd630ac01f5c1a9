"""Whether what is installed can be imported: tried in processes of their own, which a broken library may take down."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from signal import Signals

LONGEST_SECONDS = 300.0
_TRY = """
import importlib, json, os, sys
told = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # libraries print when they are imported
for name in sys.argv[1:]:
    print(json.dumps([name, "begun"]), file=told, flush=True)
    try:
        importlib.import_module(name)
        problem = ""
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}"
    print(json.dumps([name, problem]), file=told, flush=True)
"""


def broken(modules: Sequence[str]) -> dict[str, str]:
    """Of these, the ones that cannot be imported, and why: an exception, or a signal that ended the process."""
    found: dict[str, str] = {}
    left = [*modules]
    while left:
        told = dict(_tried(left))
        found |= {name: problem for name, problem in told.items() if problem}
        left = left[len(told) :] if told else []
    return found


def _tried(modules: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Of as many as one process gets to: the last may be the one that it ended with."""
    command = [sys.executable, "-P", "-c", _TRY, *modules]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONGEST_SECONDS, check=False)
        printed, ended = done.stdout, _ending(done.returncode)
    except subprocess.TimeoutExpired as late:
        printed, ended = late.stdout or b"", f"not imported within {LONGEST_SECONDS:.0f} s"
    for line in printed.splitlines():
        name, problem = json.loads(line)
        yield name, ended if problem == "begun" else problem


def _ending(code: int) -> str:
    return f"the process was ended by {Signals(-code).name}" if code < 0 else f"the process ended with {code}"
