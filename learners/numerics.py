"""What the last digits of a run hang on: instruction set and threads of the numerical libraries.

Each of these libraries looks at the processor when it is loaded, and takes the widest instructions that it finds; wider
ones sum in another order. Their environment variables hold them to AVX2, which every x86-64 server processor since 2015
has. They are read once, so they must be set before NumPy and torch are loaded.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mutual_env.machine import cores
from mutual_env.types import JSON

PINNED, NATIVE = "avx2", "native"
INSTRUCTIONS = (PINNED, NATIVE)

_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "MKL_CBWR": "AVX2",  # one code path for all that have AVX2, whoever made the processor
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's matrix products
    # NumPy's own loops (exp and log above all), by their names up to 2.3 and from 2.4 on
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4",
}
_BEGUN_AGAIN = "MUTUAL_ENV_BEGUN_AGAIN"
_GIT_SECONDS = 10.0


def environment(instructions: str, threads: int = 0) -> dict[str, str]:
    """The variables that a process must be born with. `threads`: 0 says nothing of them. A processor that has no AVX2
    is left to itself."""
    counted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return {**(_AVX2 if instructions == PINNED and has_avx2() else {}), **(counted if threads else {})}


def begin_again(wanted: Mapping[str, str]) -> None:
    """Start this program anew in the environment that it should have been born with, unless it was: same process id,
    same arguments. Returns where nothing has to change."""
    missing = {name: value for name, value in wanted.items() if os.environ.get(name) != value}
    if missing and os.environ.get(_BEGUN_AGAIN) != str(os.getpid()):  # once is enough
        sys.stdout.flush()
        sys.stderr.flush()
        born_with = {**os.environ, **missing, _BEGUN_AGAIN: str(os.getpid())}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], born_with)


def has_avx2() -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any("avx2" in line.split() for line in described.splitlines() if line.startswith("flags"))


def in_force() -> dict[str, JSON]:
    """Of this process: processor, instruction set, threads, the commit of a checkout, the command."""
    found: dict[str, JSON] = {
        "command": shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
        "processor": _processor(),
        "instructions": level(),
        "pinned": {name: os.environ[name] for name in _AVX2 if name in os.environ},
        "threads": _threads(),
    }
    commit = _commit()
    return {**found, "commit": commit} if commit else found


def level() -> str:
    """What torch says, where it is loaded: it is the library that matters most."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        return str(torch.backends.cpu.get_cpu_capability()).lower()
    return PINNED if all(os.environ.get(name) == value for name, value in _AVX2.items()) else NATIVE


def _threads() -> int:
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() else cores()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _commit() -> str:
    """Of the checkout that this code is run from, `+` behind it where that was changed; empty for an installed one."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        head = _git(root, "rev-parse", "HEAD")
        return f"{head}+" if _git(root, "status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS).stdout.strip()
