"""A number decides at once that an integral is wrong: of no integral that the data set's own scorer takes for right.

MUTUAL_ENV_ANSWERS=10000 tries sixty tasks of each data set (minutes); the default is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.mutual_env.verifiers.simplified import simplifying_once
from tests.mutual_env.verifiers.test_gym_rules import ANSWERS, SLOW, entries, own_score, verdict

REWRITINGS: list[Callable[[Any], Any]] = [
    lambda right: right.expand(),
    lambda right: right.expand(trig=True),
    lambda right: (right + 7).factor(),
    lambda right: right.rewrite("exp"),
    lambda right: right.together() - 3,
    lambda right: right.diff().integrate(),
]


@pytest.mark.long
@pytest.mark.timeout(300 if ANSWERS < 1000 else 0)
@pytest.mark.parametrize("name", sorted(SLOW))
def test_a_right_integral_written_otherwise_is_not_taken_for_a_wrong_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number decides which integrals are wrong, and must decide so of none that the data set's own scorer pays."""
    with simplifying_once(monkeypatch, 1):
        scores = list(_scores(name))
    assert [(answer, ours, theirs) for answer, ours, theirs in scores if ours != theirs] == []
    assert sum(theirs == 1.0 for _, _, theirs in scores) >= len(scores) * 2 // 3


def _scores(name: str) -> Iterator[tuple[str, float, float]]:
    import sympy

    for entry in entries(name)[: 6 if ANSWERS < 1000 else None]:
        right = sympy.sympify(entry["answer"].replace(" + C", ""))
        for rewrite in REWRITINGS:
            answer = str(rewrite(right))
            ours = verdict(name, entry, answer).reward
            assert ours is not None
            yield answer, ours, own_score(name, entry, answer)
