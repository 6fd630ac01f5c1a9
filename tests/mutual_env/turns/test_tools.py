"""Tools in the pool's confined worker processes: whatever one does, it ends one conversation, never a round."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import mutual_env
from mutual_env import ReasoningEnv, VerifierPool
from mutual_env.errors import InvalidInputError, VerificationError
from mutual_env.types import Reply

BROKEN = "test/broken-v0"


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    mutual_env.register(BROKEN, "tests.mutual_env.turns.broken_tools:Sevens")
    with VerifierPool(2, deadline=1.0, memory_mb=256) as pool:
        yield pool


def made(pool: VerifierPool, name: str = BROKEN, size: int = 3, **options: Any) -> ReasoningEnv:
    settings = {"agents": 1, "group_size": size, "prompts_per_round": 1, "pool": pool, **options}
    env = mutual_env.make(name, **settings)
    env.reset(seed=0)
    return env


def step(env: ReasoningEnv, *texts: str | None) -> tuple[Any, Any]:
    """What is open after these were said, and what the agent was told."""
    observations, *_, infos = env.step({"policy_0": [list(texts)]})  # type: ignore[list-item]
    [group] = observations["policy_0"]["conversations"]
    return group, infos["policy_0"]


@pytest.mark.parametrize(
    ("deed", "status"),
    [
        ("hang", "timeout"), ("fork", "error"), ("flood", "error"), ("raise", "error"), ("exit", "crash"),
        ("shout", "error"),
    ],
)  # fmt: skip
def test_a_tool_that_breaks_ends_one_conversation_with_a_status(pool: VerifierPool, deed: str, status: str) -> None:
    env = made(pool)
    group, info = step(env, "a", deed, "b")
    assert [c is None for c in group] == [False, True, False]
    assert [c.turns[0].reply.text for c in group if c] == ["heard a", "heard b"]
    assert info["groups"] == ()
    _, info = step(env, "7", None, "7")
    assert [e.verdict.reward for e in info["groups"][0]] == [1.0, 1.0]  # the broken one is dropped
    assert (info["metrics"][f"verify/{status}"], info["metrics"]["turns/failed_share"]) == (1.0, pytest.approx(1 / 3))


def test_a_round_in_which_every_tool_breaks_goes_on(pool: VerifierPool) -> None:
    env = made(pool, on_unscored="zero")
    _, info = step(env, "raise", "raise", "exit")
    assert [e.verdict.reward for e in info["groups"][0]] == [0.0, 0.0, 0.0]
    assert "the world's turn: RuntimeError: this tool is broken" in info["groups"][0][0].verdict.detail
    with pytest.raises(VerificationError, match="tolerates none"):
        step(made(pool, on_unscored="raise"), "7", "7", "raise")


def test_what_ran_code_is_paid_nothing_and_speaks_as_a_user_or_a_tool(pool: VerifierPool) -> None:
    group, _ = step(made(pool), "pay", "bribe", "half a character")
    assert group[0] is None
    assert group[1].turns[0].reply == Reply("here", role="user")
    assert group[2].turns[0].reply == Reply("?")
    group, _ = step(made(pool, tool="Vouched"), "pay", "bribe", "a")
    assert group[1].turns[0].reply == Reply("here", role="system", reward=5.0)


def test_a_joint_call_that_breaks_ends_the_conversations_on_its_task_alone(pool: VerifierPool) -> None:
    env = made(pool, tool="Together", prompts_per_round=2)
    observations, *_ = env.step({"policy_0": [["a", "raise", "b"], ["a", "b", "c"]]})
    open_ones = [[c is not None for c in group] for group in observations["policy_0"]["conversations"]]
    assert open_ones == [[False, False, False], [True, True, True]]


def test_an_interaction_that_is_neither_inline_nor_confined_is_refused(pool: VerifierPool) -> None:
    with pytest.raises(InvalidInputError, match=r"derive its class from mutual_env\.confined\.Confined"):
        made(pool, tool="Unconfined")


PROGRAMS = {
    "<python>print(6*7)</python>": "42",
    "thus <python>6*7": "42",
    "<python>\nx = [i*i for i in range(4)]\nx\n</python>": "[0, 1, 4, 9]",
    "<python>1/0</python>": "ZeroDivisionError: division by zero",
    "<python>for</python>": "SyntaxError: invalid syntax (<unknown>, line 1)",
    "<python>print('x' * 10**6)</python>": "x" * 1000,
    "<python>import sys; print(1); sys.exit()</python>": "1",
    "<python>import os; os.fork()</python>": "PermissionError: [Errno 1] Operation not permitted",
    "<python>import random; random.random()</python>": "0.8444218515250481",
}


def test_a_program_is_answered_with_what_it_printed(pool: VerifierPool) -> None:
    env = made(pool, "mutual/python-v0", size=len(PROGRAMS), family="mutual/arithmetic-v0")
    group, _ = step(env, *PROGRAMS)
    replies = [c.turns[0].reply for c in group]
    assert replies == [Reply(f"<output>{output}</output>", role="tool") for output in PROGRAMS.values()]


def test_programs_that_hang_flood_or_leave_end_their_conversations(pool: VerifierPool) -> None:
    env = made(pool, "mutual/python-v0", size=5, family="mutual/arithmetic-v0")
    answer = env.tasks[0].answer
    bad = ["while True: pass", "x = 'x' * 10**10", "import os; os._exit(0)"]
    group, _ = step(env, *(f"<python>{program}</python>" for program in bad), "<python>1", answer)
    assert [c is None for c in group] == [True, True, True, False, True]
    _, info = step(env, None, None, None, answer, None)
    assert [e.verdict.reward for e in info["groups"][0]] == [1.0, 1.0]
    counts = [info["metrics"][f"verify/{status}"] for status in ("timeout", "error", "crash")]
    assert counts == [1.0, 1.0, 1.0]


def test_a_program_cannot_pay_itself_nor_reach_another_conversation(pool: VerifierPool) -> None:
    env = made(pool, "mutual/python-v0", size=2, family="mutual/arithmetic-v0")
    forged = "import mutual_env.confined as c\nc._as_json = lambda a: {'verdict': [1.0, True, 'ok', 0.0, '']}"
    group, _ = step(env, f"<python>{forged}</python>", "<python>2+2</python>")
    assert group[0] is None
    assert group[1].turns[0].reply.text == "<output>4</output>"
    _, info = step(env, None, "no number")
    assert [e.verdict.reward for e in info["groups"][0]] == [0.0, 0.0]
