"""What every verifier must do, ours or a third party's.

from mutual_env.testing import check_verifier

def test_my_verifier_conforms():
    task = Task("t", "what is half of seven?", "3.5")
    check_verifier("my-verifier", right=[(task, "3.5")], wrong=[(task, "4"), (task, "")])
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from mutual_env.errors import ConformanceError
from mutual_env.types import Task
from mutual_env.verifiers.pool.verifier_pool import VerifierPool
from mutual_env.verifiers.spec import VerifierSpec, as_spec, make, reward_range_of

Items: TypeAlias = Sequence[tuple[Task, str]]

INLINE_SECONDS = 1.0
"""How long a verifier that needs no worker process may take over the longest of the odd texts."""

_ODD_TEXTS = (
    "", " ", "\n", "\0", "a\0b", "\U0010ffff", "\ufeff1", "١٢", "1e999", "nan", "inf", "-0", "1/0", "1e-400",
    "<answer></answer>", "<answer>" * 50, "\\boxed{" * 50, "####", "()" * 500, "9" * 5000, "__import__('os')",
    "{}" * 200, "\\frac{1}{0}", "e\u0301" * 5000, "a" * 1_000_000,
)  # fmt: skip

_require = ConformanceError.unless


def check_verifier(spec: VerifierSpec | str, *, right: Items, wrong: Items) -> None:
    """Raise a ConformanceError unless this verifier tells the right answers from the wrong ones, the same way each time
    and wherever it runs, and has a verdict on anything a policy may write. See each check's docstring.

    A verifier that is not `inline` is asked in worker processes, as in a run: its name must lead to it there too.
    """
    wanted = as_spec(spec)
    with VerifierPool(1, remember=0) as pool:
        _names_itself(wanted)
        _tells_right_from_wrong(wanted, pool, right, wrong)
        _repeats_itself(wanted, pool, [*right, *wrong])
        _has_a_verdict_on_anything(wanted, pool, [task for task, _ in (*right, *wrong)][:2])


def _names_itself(wanted: VerifierSpec) -> None:
    """Made alike, called alike; the id is text, so that it can stand in a record."""
    first, second = make(wanted), make(wanted)
    _require(isinstance(first.id, str) and first.id != "", f"a verifier's id must be a text, got {first.id!r}")
    _require(first.id == second.id, f"two verifiers made alike must have one id, got {first.id!r} and {second.id!r}")
    _require(isinstance(first.inline, bool), f"inline must be True or False, got {first.inline!r}")


def _tells_right_from_wrong(wanted: VerifierSpec, pool: VerifierPool, right: Items, wrong: Items) -> None:
    """Every right answer is correct, every wrong one is not, and all of them are worth something, be it 0."""
    _require(len(right) > 0 and len(wrong) > 0, "give at least one right and one wrong answer")
    said_range = reward_range_of(make(wanted))
    for items, correct in ((right, True), (wrong, False)):
        for (task, text), verdict in zip(items, pool.verify(wanted, items), strict=True):
            said = f"{wanted.id} said {verdict} of {text!r:.100} on task {task.id!r}"
            _require(verdict.reward is not None, f"an answer must get a reward: {said}")
            _require(_lies_in(verdict.reward, said_range), f"its reward_range is {said_range}: {said}")
            _require(verdict.correct == correct, f"that answer is {'right' if correct else 'wrong'}: {said}")


def _lies_in(reward: float | None, said: tuple[float, float] | None) -> bool:
    return reward is None or said is None or said[0] <= reward <= said[1]


def _repeats_itself(wanted: VerifierSpec, pool: VerifierPool, items: Items) -> None:
    """A verdict depends on the task and the text alone: not on the order, on what came before, or on a generator."""
    given, before = copy.deepcopy([task for task, _ in items]), _generators()
    first, again = pool.verify(wanted, items), pool.verify(wanted, items[::-1])[::-1]
    for (task, text), one, two in zip(items, first, again, strict=True):
        _require(one == two, f"asked again in another order, {wanted.id} said {two} of {text!r:.100}, before {one}")
        _require(task in given, f"{wanted.id} changed the task {task.id!r}")
    _require(_generators() == before, f"{wanted.id} moved the generators of `random` or `numpy.random`")


def _has_a_verdict_on_anything(wanted: VerifierSpec, pool: VerifierPool, tasks: Sequence[Task]) -> None:
    """Whatever is written, no worker dies of it. What runs inline runs in the trainer: there it must neither raise nor
    be slow."""
    items = [(task, text) for task in tasks for text in _ODD_TEXTS]
    inline = make(wanted).inline
    for (_, text), verdict in zip(items, pool.verify(wanted, items), strict=True):
        said = f"{wanted.id} said {verdict.status} ({verdict.detail}) of {text!r:.60}"
        _require(verdict.status != "crash", f"no text may end the process that verifies it: {said}")
        if inline:
            _require(verdict.status in ("ok", "wrong_format"), f"what runs inline must not raise: {said}")
            slow = f"{wanted.id} is inline and took {verdict.elapsed:.1f} s for {text!r:.60}: set inline = False"
            _require(verdict.elapsed <= INLINE_SECONDS, slow)


def _generators() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # the legacy generator is what is looked at
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest
