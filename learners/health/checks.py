"""What `mutual-env doctor` looks at. Nothing is fetched, and nothing is left behind."""

from __future__ import annotations

import fcntl
import importlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from learners.health.extras import DISTRIBUTION, Extra, extras, module
from learners.health.imports import broken
from learners.health.probes import ATTEMPTS
from learners.run.directory import versions
from mutual_env.types import Task
from mutual_env.verifiers import VerifierPool, isolation_report

State: TypeAlias = Literal["good", "note", "bad"]
GIB = 2**30
HANG_SECONDS = 1.0  # a deadline that a hung verifier is given
KILLED_WITHIN = 30.0  # seconds, on a machine that is busy with other things
NOT_IMPORTED = {"dev", "docs", "browser", "published-tokenizers"}  # tools, and packages whose files alone are read
LEAST_DISK, LEAST_SHARED, LEAST_MEMORY = 5 * GIB, GIB, 4 * GIB


@dataclass(frozen=True, slots=True)
class Finding:
    """`remedy` says what to do; it is empty where all is well."""

    check: str
    state: State
    says: str
    remedy: str = ""


def findings(directory: Path) -> Iterator[Finding]:
    """One after the other, each as soon as it is known. `directory` is where runs will be written."""
    anew = f"pip install --force-reinstall {DISTRIBUTION}"
    inline = "until it works use verifiers that run inline (exact, numeric)"
    yield from looked("versions", _versions, anew)
    yield from looked("processor", _processor, "mount /proc and /sys: it is read there")
    yield from looked("memory", _memory, "mount /proc: it is read there")
    yield from looked("packages", _packages, anew)
    yield from looked("verifier pool", _pool, inline)
    yield from looked("isolation", _isolation, inline)
    yield from looked("place", lambda: place(directory), "name another --output")


def looked(what: str, look: Callable[[], Iterator[Finding]], remedy: str) -> Iterator[Finding]:
    """What is so broken that looking at it fails is a finding too, with this remedy."""
    try:
        yield from look()
    except Exception as error:  # a boundary: that is what is looked for
        yield Finding(what, "bad", f"looking at it failed: {type(error).__name__}: {error}", remedy)


def place(directory: Path) -> Iterator[Finding]:
    """Whether runs can be written there, and how much of them."""
    yield from _disk(directory)
    yield _locks(directory)


def _versions() -> Iterator[Finding]:
    found = versions()
    named = ("torch", "transformers", "numpy", "pettingzoo", "ray", "vllm", "peft")
    told = ", ".join(f"{name} {found[name]}" for name in named if name in found)
    yield Finding("versions", "good", f"{DISTRIBUTION} {found.get(DISTRIBUTION)}, Python {found['python']}, {told}")
    if sys.platform != "linux":
        yield Finding(
            "system", "bad", f"{platform.system()}: the verifier pool needs Linux", "use Linux, or WSL on Windows"
        )


def _processor() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "")
    says = f"{platform.machine()}, {cores} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    if threads:
        yield Finding("processor", "good", f"{says}, OMP_NUM_THREADS={threads}")
    else:
        yield Finding(
            "processor",
            "note",
            f"{says}, OMP_NUM_THREADS is not set",
            "export OMP_NUM_THREADS=1 (or a fixed number): another number of threads gives other last digits",
        )


def _memory() -> Iterator[Finding]:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    says = f"{size / GIB:.1f} GiB, {free / GIB:.1f} GiB of it untouched"
    low = size < LEAST_MEMORY
    remedy = "use tabular or tiny policies, or LoRA with dtype=bfloat16" if low else ""
    yield Finding("memory", "note" if low else "good", says, remedy)


def _packages() -> Iterator[Finding]:
    """All that is there is imported, in another process."""
    found = extras()
    there = {p for extra in found if extra.name not in NOT_IMPORTED for p, version in extra.packages.items() if version}
    modules = {package: module(package) for package in sorted(there)}
    problems = broken([name for name in modules.values() if name])
    why = {package: problems[name] for package, name in modules.items() if name in problems}
    for extra in found:
        yield from of_extra(extra, why)
    yield from _gpu(why.get("torch", ""))


def of_extra(extra: Extra, why: Mapping[str, str]) -> Iterator[Finding]:
    """Nothing of what is needed in any case where all of it is well. `why`: of packages that cannot be imported."""
    name = f"extra {extra.name}" if extra.name else "dependencies"
    state: State = "note" if extra.name else "bad"
    raises = [package for package in extra.packages if package in why]
    missing = [package for package, version in extra.packages.items() if not version]
    if raises:
        says = "; ".join(
            f"{package} {extra.packages[package]} cannot be imported: {why[package]}" for package in raises
        )
        yield Finding(name, "bad", says, f"pip install --force-reinstall {' '.join(raises)}")
    if missing:
        yield Finding(name, state, f"not installed: {', '.join(missing)}", extra.pip)
    if extra.unfit:
        says = ", ".join(f"{package} is {extra.packages[package]}" for package in extra.unfit)
        yield Finding(name, state, f"of another version than is asked for: {says}", _pip(extra.unfit.values()))
    if extra.name and not (raises or missing or extra.unfit):
        yield Finding(name, "good", ", ".join(f"{p} {v}" for p, v in extra.packages.items()))


def _pip(requirements: Iterable[str]) -> str:
    return f"pip install {' '.join(repr(requirement) for requirement in requirements)}"


def _gpu(problem: str) -> Iterator[Finding]:
    """`problem`: why torch cannot be imported, if it was tried."""
    driver = Path("/proc/driver/nvidia/version").is_file()
    if problem:
        yield Finding("GPU", "bad", f"torch cannot be imported: {problem}", "pip install --force-reinstall torch")
        return
    try:
        torch: Any = importlib.import_module("torch")
    except ModuleNotFoundError:
        says = f"torch is not installed{'; there is an NVIDIA driver' if driver else ''}"
        yield Finding("GPU", "note", says, f"pip install '{DISTRIBUTION}[torch]', for learners other than tabular")
        return
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        told = ", ".join(f"{device.name} with {device.total_memory / GIB:.0f} GiB" for device in devices)
        yield Finding("GPU", "good", f"{told}; CUDA {torch.version.cuda}")
    elif driver:
        says = f"there is an NVIDIA driver, but torch {torch.__version__} cannot use it"
        remedy = "install a CUDA build of torch that fits the driver: https://pytorch.org/get-started/locally"
        yield Finding("GPU", "bad", says, remedy)
    else:
        yield Finding("GPU", "good", "none: policies run on the CPU")
    yield _compiler("cuda" if torch.cuda.is_available() else "cpu")


def _compiler(device: str) -> Finding:
    """Whether layers can be compiled, as the torch learner finds it out: nothing is compiled here."""
    problem = importlib.import_module("learners.torch.compiler").lacking(device)
    if problem:
        return Finding("compile", "note", problem, "needed for option compile of learner torch alone")
    return Finding("compile", "good", f"torch.compile finds what it needs for {device}")


def _pool() -> Iterator[Finding]:
    """A right answer is scored, and one whose verifier hangs is killed in time."""
    task = Task("doctor", "1+1=", "2")
    began = time.monotonic()
    with VerifierPool(workers=1, deadline=HANG_SECONDS) as pool:
        hung = pool.verify("learners.health.probes:Hang", [(task, "2")])[0]
    seconds = time.monotonic() - began
    if hung.status == "timeout" and seconds < KILLED_WITHIN:
        yield Finding("verifier pool", "good", f"a verifier that hangs is killed: {seconds:.1f} s with the start")
    else:
        says = f"a verifier that hangs got {hung.status!r} after {seconds:.0f} s: {hung.detail}"
        remedy = "report this with the lines above; until then use verifiers that run inline (exact, numeric)"
        yield Finding("verifier pool", "bad", says, remedy)


def _isolation() -> Iterator[Finding]:
    """Tried, not read from a list of features."""
    with VerifierPool(workers=1, deadline=10.0) as pool:
        found = pool.verify("learners.health.probes:Escape", [(Task("doctor", "", ""), "")])[0]
    if found.status != "ok":
        says = f"the workers could not be asked: {found.status}, {found.detail}"
        yield Finding("isolation", "bad", says, "see docs/verifiers.md for what workers need")
        return
    report = isolation_report()
    kept = [name for name in ATTEMPTS if name not in found.detail]
    refused = ", ".join(kept) or "nothing of what was tried"
    says = f"level {report['level']!r}: a worker could: {found.detail}; could not: {refused}"
    yield Finding("isolation", "note" if len(kept) < 2 else "good", says, _next_level(report))


def _next_level(report: dict[str, Any]) -> str:
    """What the levels that this machine has not would need; nothing where it has the strongest."""
    wanting = [f"{level}: {problem}" for level, problem in report["missing"].items() if problem]
    return "" if not report["missing"]["container"] else "; ".join(wanting)


def _disk(directory: Path) -> Iterator[Finding]:
    existing = next(parent for parent in [directory.resolve(), *directory.resolve().parents] if parent.is_dir())
    places = {"disk": existing, "temporary files": Path(tempfile.gettempdir()), "shared memory": Path("/dev/shm")}
    for name, place in places.items():
        if not place.is_dir():
            yield Finding(name, "note", f"{place} is not there", "mount a tmpfs there: vLLM and Ray keep buffers in it")
            continue
        free = shutil.disk_usage(place).free
        short = free < (LEAST_SHARED if name == "shared memory" else LEAST_DISK)
        remedy = "docker run --shm-size=8g" if name == "shared memory" else "checkpoints of real models need more"
        yield Finding(name, "note" if short else "good", f"{place}: {free / GIB:.1f} GiB free", remedy if short else "")


def _locks(directory: Path) -> Finding:
    """A run's directory is locked while it is written: some network file systems have no locks."""
    existing = next(place for place in [directory.resolve(), *directory.resolve().parents] if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return Finding(
            "locks", "bad", f"{existing} cannot be written or locked: {error}", "set `output` to another place"
        )
    return Finding("locks", "good", f"{existing} can be written and locked")
