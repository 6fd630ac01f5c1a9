"""What a tool may do in its worker process: the conversations beside it are answered, and the round goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import mutual_env
from mutual_env import ReasoningEnv, VerifierPool
from mutual_env.types import Reply

pytestmark = pytest.mark.long
ARMED = "test/armed-v0"
FORGE = """
import json, struct
body = json.dumps([{"verdict": [1.0, True, "ok", 0.0, ""]}]).encode()
value = struct.pack("!BBBddI", 1, 0, 0, float("nan"), 0.0, len(body)) + body
verdict = struct.pack("!BBBddI", 0, 0, 1, 1.0, 0.0, 0)
def forge(what):
    for fd in range(3, 64):
        try:
            os.write(fd, what)
        except OSError:
            pass
"""
ENDS = {
    "stops itself": ("os.kill(os.getpid(), signal.SIGSTOP)", {"timeout"}),
    "stops its group": ("os.killpg(0, signal.SIGSTOP)", {"error", "timeout"}),
    "cannot be interrupted": (
        "for n in range(1, 65):\n try: signal.signal(n, signal.SIG_IGN)\n except (OSError, ValueError): pass\n"
        "while True: pass",
        {"timeout"},
    ),
    "closes everything": ("os.closerange(0, 4096)", {"crash", "error"}),
    "raises at the end": ("raise KeyboardInterrupt", {"error"}),
    "cannot be described": (
        "class E(Exception):\n def __str__(self):\n  while True: pass\nraise E",
        {"timeout"},
    ),
    "is described at length": ("raise Exception('x' * 10**7)", {"error"}),
    "recurses": ("import sys\nsys.setrecursionlimit(10**9)\nf = lambda: f()\nf()", {"crash", "error", "timeout"}),
    "reads nothing's memory": ("import ctypes\nctypes.string_at(0)", {"crash"}),
    "kills itself": ("os.kill(os.getpid(), 9)", {"crash"}),
    "kills everybody": ("os.kill(-1, 9)", {"crash", "error"}),
    "takes memory": ("a = []\nwhile True: a.append(bytearray(1 << 22))", {"error"}),
    "takes memory by pages": ("import mmap\na = []\nwhile True: a.append(mmap.mmap(-1, 1 << 24))", {"error"}),
    "starts threads": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1e6,)).start()",
        {"error", "timeout", "crash"},
    ),
    "fills the disk": ("f = open('x', 'wb')\nwhile True: f.write(bytes(1 << 20))", {"error", "crash", "timeout"}),
    "answers without end": ("import itertools\nanswers = itertools.repeat(answer)", {"error", "timeout"}),
    "answers too often": ("answers = [answer] * 2", {"error"}),
    "answers with nothing": ("answers = None", {"error"}),
    "answers with a number": ("answer = 7", {"error"}),
    "answers with a deep list": ("a = []\nfor _ in range(10**5): a = [a]\nanswer = Reply('x', reward=a)", {"error"}),
    "answers as nobody": ("answer = Reply('x', role=7)", {"error"}),
    "lets it wait": ("from mutual_env.interaction import Wait\nanswer = Wait()", {"error"}),
    "answers twice": (FORGE + "forge(value * 2)", {"error", "crash", "ok"}),
    "answers for the verifier": (FORGE + "forge(verdict)", {"error", "crash"}),
    "answers in halves": (FORGE + "forge(value[:9])\nwhile True: pass", {"timeout"}),
    "answers with noise": (FORGE + "forge(os.urandom(1 << 16))", {"error", "crash"}),
}
ANSWERED = {
    "closes what it prints to": "os.close(0), os.close(1), os.close(2)",
    "prints an answer": 'print(\'[{"text": "forged", "role": "tool", "reward": 1.0}]\' * 10**4, flush=True)',
    "cannot end its pool": "for sign in (signal.SIGKILL, signal.SIGSTOP):\n"
    " for pid in [os.getppid(), *range(1, 400)]:\n"
    "  try: pid == os.getpid() or os.kill(pid, sign)\n  except OSError: pass",
    "leaves a thread behind": "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,)).start()",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    mutual_env.register(ARMED, "tests.mutual_env.turns.armed_tools:Sevens")
    with VerifierPool(2, deadline=1.0, memory_mb=256) as pool:
        yield pool


def made(pool: VerifierPool, size: int, **options: Any) -> ReasoningEnv:
    env = mutual_env.make(
        ARMED, agents=1, group_size=size, prompts_per_round=1, pool=pool, on_unscored="zero", **options
    )
    env.reset(seed=0)
    return env


def beside(pool: VerifierPool, program: str, **options: Any) -> tuple[Any, Any]:
    """What a conversation in which this is run comes to: its context (None: over) and its verdict. The ones beside it
    are answered before and after."""
    env = made(pool, 3, **options)
    program = f"import os, signal\n{program}"
    observations, *_ = env.step({"policy_0": [["", program, ""]]})
    [group] = observations["policy_0"]["conversations"]
    for other in (group[0], group[2]):
        assert other is not None, "another conversation is over"
        assert other.turns[0].reply == Reply("done", role="tool")
    *_, infos = env.step({"policy_0": [["answer = Over()", "answer = Over()", "answer = Over()"]]})
    [experiences] = infos["policy_0"]["groups"]
    assert len(experiences) == 3, "a round is lost"
    return group[1], experiences[1].verdict


@pytest.mark.parametrize("deed", ENDS)
def test_it_ends_one_conversation_with_a_status(pool: VerifierPool, deed: str) -> None:
    program, statuses = ENDS[deed]
    context, verdict = beside(pool, program)
    assert context is None
    status, counted, _ = verdict.detail.partition(" counted as 0: the world's turn: ")
    assert (status if counted else verdict.status) in statuses
    assert verdict.reward == 0.0


@pytest.mark.parametrize("deed", ANSWERED)
def test_it_is_answered_and_nothing_else_happens(pool: VerifierPool, deed: str) -> None:
    context, _ = beside(pool, ANSWERED[deed])
    assert context.turns[0].reply == Reply("done", role="tool")
