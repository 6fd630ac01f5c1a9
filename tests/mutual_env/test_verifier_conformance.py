"""Our verifiers keep the shipped contract, and its checks find the fault that each is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutual_env import VerifierSpec
from mutual_env.errors import ConformanceError
from mutual_env.testing import check_verifier
from mutual_env.types import Task

SEVEN = Task("seven", "what is three and four?", "7")
HALF = Task("half", "what is half of one?", "1/2")


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("exact", [(SEVEN, "7"), (HALF, "so: <answer>1/2</answer>")], [(SEVEN, "7.0"), (SEVEN, ""), (HALF, "7")]),
        ("numeric", [(SEVEN, "it is 7.0"), (HALF, "0.5")], [(SEVEN, "7 or 8"), (SEVEN, ""), (HALF, "7")]),
        ("math_verify", [(SEVEN, "$7$"), (HALF, "\\boxed{0.5}")], [(SEVEN, "$8$"), (HALF, "$7$")]),
    ],
)
def test_a_built_in_verifier_keeps_the_contract(
    name: str, right: list[tuple[Task, str]], wrong: list[tuple[Task, str]]
) -> None:
    if name == "math_verify":
        pytest.importorskip("math_verify")
    check_verifier(VerifierSpec(name), right=right, wrong=wrong)


@pytest.mark.parametrize(
    ("faulty", "sentence"),
    [
        ("Generous", "that answer is wrong: "),
        ("Boundless", r"its reward_range is \(0.0, 0.5\)"),
        ("Nameless", "id must be a text, got ''"),
        ("OtherName", "two verifiers made alike must have one id"),
        ("Drifting", "asked again in another order"),
        ("Dice", "moved the generators"),
        ("Picky", "must not raise"),
        ("Mortal", "no text may end the process"),
    ],
)
def test_a_verifier_that_breaks_the_contract_is_told_how(
    faulty: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    right, wrong = [(SEVEN, "7")], [(SEVEN, "8"), (SEVEN, "9")]
    check_verifier("faulty_verifiers:Honest", right=right, wrong=wrong)
    with pytest.raises(ConformanceError, match=sentence):
        check_verifier(f"faulty_verifiers:{faulty}", right=right, wrong=wrong)
