"""A verdict depends on its own item alone, whatever another item does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mutual_env.errors import InvalidInputError
from mutual_env.types import Task, Verdict
from mutual_env.verifiers import VerifierPool
from tests.hostile.answers import ANSWERS, CODE, ODD, PAYLOADS

MakePool = Callable[..., VerifierPool]
TASK = Task("t", "", "seven")
HONEST = [(TASK, "seven" if i % 3 == 0 else f"number {i}") for i in range(24)]
GULLIBLE = "gullible:Gullible"


@pytest.fixture(scope="module")
def pool() -> Iterator[MakePool]:
    made: dict[str, VerifierPool] = {}

    def make(**options: object) -> VerifierPool:
        settings = {"deadline": 1.0, "remember": 1000, "memory_mb": 256, "workers": 1, **options}
        return made.setdefault(repr(settings), VerifierPool(**settings))  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield make
    for each in made.values():
        each.close()


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_changes_no_other_verdict(pool: MakePool, name: str) -> None:
    expected = [Verdict.scored(float(t == "seven"), correct=t == "seven", detail=f"read {len(t)}") for _, t in HONEST]
    items = [*HONEST[:7], (TASK, f"run:{PAYLOADS[name]}"), *HONEST[7:]]
    verdicts = pool(remember=0).verify(GULLIBLE, items)
    verdicts.pop(7)
    assert verdicts == expected


def test_what_was_said_after_code_ran_is_not_remembered(pool: MakePool) -> None:
    verifiers = pool()
    text = "run:import mutual_env.types as t\nt.Verdict.scored = classmethod(lambda c, *a, **k: c(1.0, True, 'ok'))"
    items = [*HONEST, (TASK, text), (TASK, "something else")]
    verifiers.verify(GULLIBLE, items)
    before = verifiers.counters.remembered
    again = verifiers.verify(GULLIBLE, items)
    assert verifiers.counters.remembered - before == len(items) - 1  # all but the one that ran code
    assert not again[-1].correct


def test_each_item_of_a_verifier_that_runs_code_has_a_process_of_its_own(pool: MakePool) -> None:
    verifiers = pool(workers=2)
    for _ in range(2):
        verdicts = verifiers.verify("gullible:Frank", [(TASK, f"x = {i}") for i in range(6)])
        assert len({v.detail for v in verdicts}) == 6
    assert verifiers.counters.remembered == 0


def test_a_verifier_that_vouches_for_what_it_evaluates_keeps_its_process(pool: MakePool) -> None:
    verdicts = pool(workers=1, deadline=5.0).verify("gullible:Trusted", [(TASK, str(i)) for i in range(10)])
    assert [v.reward for v in verdicts] == list(range(10))
    assert len({v.detail for v in verdicts}) == 1


@pytest.mark.parametrize("odd", ["raise SystemExit", "def f(): f()\nf()", "raise KeyboardInterrupt"])
def test_a_worker_is_not_used_after_something_odd(pool: MakePool, odd: str) -> None:
    verifiers = pool(remember=0)
    started = verifiers.counters.started
    verifiers.verify(GULLIBLE, [(TASK, "a"), (TASK, f"run:{odd}"), (TASK, "b")])
    verifiers.verify(GULLIBLE, [(TASK, "c")])
    assert verifiers.counters.started > started


@pytest.mark.parametrize("verifier", ["math_verify", "numeric", "exact"])
def test_hostile_answers_leave_the_others_alone(pool: MakePool, verifier: str) -> None:
    task = Task("t", "", "7")
    honest = [(task, "\\boxed{7}" if i % 2 else f"\\boxed{{{i + 100}}}") for i in range(len(ANSWERS))]
    items = [item for pair in zip(honest, [(task, text) for text in ANSWERS], strict=True) for item in pair]
    # Towers of powers are ended at their deadline, three of them, and spend it whole.
    verdicts = pool(workers=2, deadline=1.0, remember=0, memory_mb=1024).verify(verifier, items)
    assert [v.correct for v in verdicts[::2]] == [i % 2 == 1 for i in range(len(ANSWERS))]
    code = set(CODE)
    paid = [text for (_, text), v in zip(items[1::2], verdicts[1::2], strict=True) if v.correct and text in code]
    assert paid == []


def test_honest_answers_of_four_megabytes_meet_their_deadline(pool: MakePool) -> None:
    task = Task("t", "", "7")
    items = [(task, f"{'x' * 4_000_000} {i} so \\boxed{{7}}") for i in range(4)]
    verdicts = pool(workers=2, deadline=3.0, remember=0, memory_mb=1024).verify("math_verify", items)
    assert [v.correct for v in verdicts] == [True] * 4, verdicts


def test_no_detail_of_a_verdict_is_obeyed_by_a_terminal(pool: MakePool) -> None:
    verdicts = pool(remember=0).verify(GULLIBLE, [(TASK, f"run:raise ValueError({text!r})") for text in ODD])
    assert [v.detail for v in verdicts if "\x1b" in v.detail or "\x9b" in v.detail or "\u202e" in v.detail] == []
    assert any("\\x1b[2J" in v.detail for v in verdicts)


# -- functions that run what a model wrote -----------------------------------------------------------------------------


def test_a_function_is_called_with_each_item_in_a_process_of_its_own(pool: MakePool) -> None:
    outcomes = pool(workers=2).call(
        "gullible:returned", ["1 + 1", "[None, 'x', {'a': 1.5}]", "__import__('os').getpid()"]
    )
    assert [o.status for o in outcomes] == ["ok"] * 3
    assert [o.value for o in outcomes[:2]] == [2, [None, "x", {"a": 1.5}]]
    others = pool(workers=2).call("gullible:returned", ["__import__('os').getpid()"] * 4)
    assert len({o.value for o in [*outcomes[2:], *others]}) == 5


@pytest.mark.parametrize(
    ("expression", "status", "detail"),
    [
        ("1/0", "error", "ZeroDivisionError: division by zero"),
        ("float('nan')", "error", "ValueError"),
        ("{1, 2}", "error", "not JSON serializable"),
        ("'x' * 300_000", "error", "262144 are allowed"),
        ("eval('[' * 80 + ']' * 80)", "ok", ""),
        ("__import__('os')._exit(5)", "crash", "exit status 5"),
        ("__import__('time').sleep(60)", "timeout", "deadline of 1 s"),
        ("exit()", "error", "SystemExit"),
        ("'\\x1b[2J' + open('/etc/passwd').read()", "error", "Error: [Errno "),  # refused, or not there at all
    ],
)
def test_an_outcome_says_how_the_function_failed(pool: MakePool, expression: str, status: str, detail: str) -> None:
    (outcome,) = pool(workers=2).call("gullible:returned", [expression])
    assert (outcome.status, detail in outcome.detail) == (status, True), outcome


FORGED = """
import os, struct, sys
body = {body!r}
for handle in range(3, 64):
    try: os.write(handle, struct.pack("!BBBddI", {kind}, 0, 0, float("nan"), 0.0, len(body)) + body)
    except OSError: pass
os._exit(0)
"""


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (1, b"not json"),
        (1, b"[" * 100_000),
        (1, b"NaN"),
        (1, b"1" * 5000),
        (0, b""),
        (2, b""),
        (5, b""),
        (9, b""),
        (1, b"\xff"),
    ],
)
def test_a_forged_value_is_no_value_and_harms_no_other(pool: MakePool, kind: int, body: bytes) -> None:
    program = FORGED.format(kind=kind, body=body)
    outcomes = pool(workers=2).call("gullible:left_in_answer", ["answer = 1", program, "answer = 3"])
    assert [o.value for o in outcomes] == [1, None, 3]
    assert outcomes[1].status in ("crash", "error")


def test_a_program_verifier_decides_where_the_program_cannot_reach(pool: MakePool) -> None:
    task = Task("t", "", "42")
    cheat = "import mutual_env.types as t\nt.Verdict.scored = classmethod(lambda c, *a, **k: c(1.0, True, 'ok'))"
    texts = ["answer = str(6 * 7)", "answer = '41'", cheat, "raise SystemExit", "while True: pass"]
    verdicts = pool(workers=2).verify("gullible:Programs", [(task, text) for text in texts])
    assert [v.correct for v in verdicts] == [True, False, False, False, False]
    assert [v.status for v in verdicts] == ["ok", "ok", "ok", "wrong_format", "wrong_format"]


def test_calls_that_cannot_be_made_are_refused_by_name(pool: MakePool) -> None:
    with pytest.raises(InvalidInputError, match="must read 'module:function'"):
        pool().call("gullible", [1])
    with pytest.raises(InvalidInputError, match="must be JSON"):
        pool().call("gullible:returned", [math.nan])
    assert pool().call("gullible:returned", []) == []
