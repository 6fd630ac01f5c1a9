from __future__ import annotations

from collections.abc import Callable

import pytest

from mutual_env.errors import InvalidInputError
from mutual_env.types import Task
from mutual_env.verifiers import VerifierPool, make

MakePool = Callable[..., VerifierPool]


def correct(answer: str, text: str) -> bool:
    return make("math_verify").verify(Task("t", "", answer), text).correct


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("5", "a long way round, so \\boxed{5}."),
        ("5", "the answer is 5"),
        ("5", "#### 5"),
        ("5", "<answer>5</answer>"),
        ("5", "<answer>$5$</answer> unlike 6"),
        ("5", "\\boxed{5.0}"),
        ("5", "$a=b=c=5$"),
        ("5", "x=5"),
        ("x=5", "\\boxed{5}"),
        ("(3,4)", "\\boxed{\\{3,4\\}}"),
        ("0.5", "\\boxed{50\\%}"),
        ("monday", "\\boxed{\\text{Monday}}"),
        ("\\frac{1}{2}", "\\boxed{0.5}"),
        ("$\\frac{1}{2}$", "\\boxed{1/2}"),
        ("(x+1)^2", "\\boxed{x^2+2x+1}"),
        ("1,234", "\\boxed{1234}"),
        ("\\frac65", "so it is \\boxed{\\frac65}."),  # as the task itself writes it
        ("11\\sqrt2", "\\boxed{ 11\\sqrt2 }"),
        ("\\frac65", "\\boxed{\\frac{6}{5}}"),
        ("\\$18.90", "\\boxed{18.90}"),
        ("\\$18.90", "\\boxed{\\$18.90}"),
        ("\\$32,\\!348", "<answer>\\$32,348</answer>"),
    ],
)
def test_what_math_verify_takes_for_equal(answer: str, text: str) -> None:
    assert correct(answer, text)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("5", "\\boxed{6}"),
        ("1/3", "\\boxed{0.333}"),
        ("[1,2]", "\\boxed{(1,2)}"),
        ("5", "\\boxed{6} \\boxed{5}"),  # every box counts: naming both does not pay
        ("\\frac{1}{2}", "\\boxed{\\frac12}"),  # a malformed operator is not mended
        ("5", "<answer>6</answer> 5"),
        ("\\frac65", "\\boxed{1} \\boxed{\\frac65}"),
        ("\\$18.90", "\\boxed{\\$19}"),
    ],
)
def test_what_it_does_not(answer: str, text: str) -> None:
    assert not correct(answer, text)


@pytest.mark.parametrize("text", ["", "I do not know", "<answer></answer>"])
def test_nothing_to_read_is_a_wrong_format(text: str) -> None:
    assert make("math_verify").verify(Task("t", "", "5"), text).status == "wrong_format"


def test_a_task_that_cannot_be_parsed_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="task 't': math-verify cannot parse its answer ''"):
        make("math_verify").verify(Task("t", "", ""), "5")


HARD = [
    "9^{9^{9^9}}",
    "10^{10^9}",
    "((9!)!)!",
    "\\frac{1}{" * 200 + "1" + "}" * 200,
    "+".join(f"{i}x^{{{i}}}y^{{{800 - i}}}" for i in range(800)),
    "\\binom{10^9}{5\\cdot 10^8}",
    "\\sum_{n=1}^{10^9} \\frac{1}{n^2}",
    "\\int x^{x^x} dx",
    "7" * 200_000,
    "(" * 5000 + "1" + ")" * 5000,
    "\\sqrt{" * 500 + "2" + "}" * 500,
    "\\frac{" * 3000,
]


@pytest.mark.long
def test_every_answer_that_stalls_it_ends_by_its_deadline_and_stops_no_other(pool: MakePool) -> None:
    task = Task("t", "", "\\frac{x^2+1}{2}")
    items = []
    for hard in HARD:
        items += [(task, f"\\boxed{{{hard}}}"), (task, f"{len(items)} \\boxed{{\\frac{{1+x^2}}{{2}}}}")]
    verdicts = pool(2, deadline=0.4).verify("math_verify", items)
    assert [v.correct for v in verdicts[1::2]] == [True] * len(HARD)
    assert not any(v.correct for v in verdicts[::2])
    assert verdicts[0].status == verdicts[2].status == verdicts[4].status == "timeout"
