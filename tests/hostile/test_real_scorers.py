"""Around the real scorers of formulas: a payload that a library is made to run changes no other verdict, bit for bit.

`math_verify` and `reasoning_gym` refuse to run what they read (`test_gym_rules`, `test_items`). Here a verifier around
them runs it first, in the same process: what a hole in SymPy, in a parser or in a data set would allow.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mutual_env.types import Task, Verdict
from mutual_env.verifiers import VerifierPool

POISONS = {
    "simplify says 0": "import sympy\nsympy.simplify = lambda *a, **k: sympy.Integer(0)",
    "verify says yes": "import math_verify\nmath_verify.verify = lambda *a, **k: True",
    "parse reads the gold": "import math_verify\nmath_verify.parse = lambda *a, **k: [7]",
    "every expression is equal": "import sympy\nsympy.Basic.__eq__ = lambda a, b: True",
    "every number is close": "import numpy\nnumpy.isclose = lambda *a, **k: True",
    "the rules pay": (
        "import mutual_env.verifiers.gym_rules as r\nfor n in list(r.RULES): r.RULES[n] = lambda *a: 1.0"
    ),
    "the data sets pay": (
        "import reasoning_gym.factory as f\nfor c, _ in f.DATASETS.values(): c.score_answer = lambda *a, **k: 1.0"
    ),
    "the judge is warm": "import mutual_env.verifiers.gym_scorer as g\ng._scorer = lambda *a: lambda *a: 1.0",
    "arithmetic of one digit": "import mpmath, decimal\nmpmath.mp.dps = 1\ndecimal.getcontext().prec = 1",
    "no long numbers": "import sys\nsys.set_int_max_str_digits(640)",
    "an alarm for the next": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.2)",
    "at the end of the process": (
        "import atexit, os, mutual_env.verifiers.pool.wire as w, mutual_env.types as t\n"
        "r = w.verdict_record(t.Verdict.scored(1.0, correct=True)) * 9\n"
        "atexit.register(lambda: [os.write(h, r) for h in range(3, 20)])"
    ),
    "nothing may be written": "import os, resource\nos.umask(0o777)\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
    "elsewhere": "import os, sys\nos.chdir('/')\nsys.path.clear()\nos.environ.clear()",
    "a module for the next": (
        "for n in ('sympy', 'math_verify', 'usercustomize', 'sitecustomize'):\n"
        "    open(n + '.py', 'w').write('raise SystemExit')"
    ),
    "memory that is kept": "import builtins\nbuiltins.kept = bytearray(700 << 20)",
    "a file in memory": "import os\nh = os.memfd_create('left')\nos.write(h, b'x' * (4 << 20))",
    "garbage that bites": (
        "import gc\nclass B:\n    def __del__(s):\n        raise SystemExit\n"
        "b = B(); b.b = b; del b; gc.set_threshold(1)"
    ),
    "a thread that rewrites": (
        "import threading, sympy\ndef f():\n    while True: sympy.simplify = lambda *a, **k: sympy.Integer(0)\n"
        "threading.Thread(target=f, daemon=True).start()"
    ),
    "the environment in a detail": (
        "import os\nraise ValueError(repr(dict(os.environ)) + open('/proc/self/environ').read())"
    ),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        with VerifierPool(2, deadline=10.0, remember=0, memory_mb=1024) as made:
            yield made


def formulas() -> list[tuple[Task, str]]:
    task = Task("t", "", "\\frac{7}{2}")
    texts = ("3.5", "\\boxed{7/2}", "\\boxed{8/2}", "\\boxed{x}", "", "\\boxed{\\frac{14}{4}}", "$3.50$", "nothing")
    return [(task, text) for text in texts]


def puzzles() -> list[tuple[Task, str]]:
    import reasoning_gym

    found = []
    for name in ("countdown", "simple_integration", "n_queens", "gcd"):
        random.seed(1)
        entry = reasoning_gym.create_dataset(name, size=1, seed=5)[0]
        task = Task(name, entry["question"], str(entry["answer"]), {"dataset": name, "entry": entry})
        found += [(task, str(entry["answer"])), (task, "1 + 1"), (task, "x**2")]
    return found


HONEST: dict[str, Callable[[], list[tuple[Task, str]]]] = {"Formulas": formulas, "Puzzles": puzzles}


@pytest.mark.slow
@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("scorer", HONEST)
def test_a_payload_in_one_item_leaves_every_other_verdict(pool: VerifierPool, scorer: str, poison: str) -> None:
    honest = HONEST[scorer]()
    expected = clean(pool, scorer)
    assert {v.correct for v in expected} == {True, False}
    bad = (honest[0][0], f"run:{POISONS[poison]}")
    half = len(honest) // 2
    verdicts = pool.verify(f"gullible:{scorer}", [bad, *honest[:half], bad, bad, *honest[half:], bad])
    others = [*verdicts[1 : half + 1], *verdicts[half + 3 : -1]]
    assert [replace(v, elapsed=0.0) for v in others] == [replace(v, elapsed=0.0) for v in expected]
    if poison == "the environment in a detail":
        leaked = {name for name in ("USER", "LOGNAME", "SHELL", "PYTEST_CURRENT_TEST") if name in verdicts[0].detail}
        assert leaked == set()


_CLEAN: dict[str, list[Verdict]] = {}


def clean(pool: VerifierPool, scorer: str) -> list[Verdict]:
    if scorer not in _CLEAN:
        _CLEAN[scorer] = list(pool.verify(f"gullible:{scorer}", HONEST[scorer]()))
    return _CLEAN[scorer]
