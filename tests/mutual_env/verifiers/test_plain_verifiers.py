from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.types import Task
from mutual_env.verifiers import make
from mutual_env.verifiers.answers import final_answer
from mutual_env.verifiers.numeric import last_number
from mutual_env.verifiers.spec import MAX_CHARS


def task(answer: str) -> Task:
    return Task("t", "", answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("I think <answer> 7 </answer> done", "7"),
        ("<answer>6</answer> no: <answer>7</answer>", "7"),
        ("<answer><answer>7</answer>", "7"),
        ("so \\boxed{6} or \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{6} but <answer>7</answer>", "7"),
        ("lengthy\n#### 7\n", "7"),
        ("just 7", "just 7"),
        ("\\boxed{7", "\\boxed{7"),
        ("<answer></answer>", None),
        ("   ", None),
        ("", None),
    ],
)
def test_the_final_answer_is_found(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_only_what_was_asked_for_is_looked_for() -> None:
    assert final_answer("\\boxed{7}", "tag") is None
    assert final_answer("<answer>7</answer>", "boxed") is None
    assert final_answer("<answer>7</answer>", "none") == "<answer>7</answer>"


@pytest.mark.parametrize(
    ("answer", "text", "correct"),
    [
        ("a b", " a \n b ", True),
        ("a b", "<answer>a b</answer>", True),
        ("\u00e9", "e\u0301", True),  # composed and decomposed e-acute are one letter
        ("Monday", "monday", False),
        ("7", "7.0", False),
        ("a", "a\x00", False),
    ],
)
def test_exact_compares_up_to_spacing_and_unicode_form(answer: str, text: str, correct: bool) -> None:
    verdict = make("exact").verify(task(answer), text)
    assert (verdict.status, verdict.correct, verdict.reward) == ("ok", correct, float(correct))


def test_exact_ignores_case_when_asked() -> None:
    assert make("exact", ignore_case=True).verify(task("Monday"), "monday").correct


def test_no_answer_is_a_wrong_format_worth_zero() -> None:
    for name in ("exact", "numeric"):
        verdict = make(name).verify(task("7"), "<answer> </answer>")
        assert (verdict.status, verdict.reward) == ("wrong_format", 0.0)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("the answer is 42.", 42),
        ("3 + 4 = 7", 7),
        ("17-25=-8", -8),
        ("10-3", 3),
        ("x-3", 3),
        ("(2)-3", 3),
        ("minus \N{MINUS SIGN}8", -8),
        ("1,234,567", 1234567),
        ("1,2", 2),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        ("-3 / 4", Fraction(-3, 4)),
        ("5e-1", Fraction(1, 2)),
        ("2E3", 2000),
        ("H2O", 2),
        ("7\u00b2", 7),
        ("no number", None),
        ("1/0", None),
        ("9" * 500, None),
        ("", None),
    ],
)
def test_the_last_number_is_read_exactly(text: str, number: Fraction | int | None) -> None:
    assert last_number(text) == number


@given(st.integers(-(10**30), 10**30))
def test_any_integer_is_read_back_however_it_is_written(value: int) -> None:
    assert last_number(f"so it is {value}") == value
    assert last_number(f"so it is {value:,}.") == value


@given(st.text())
def test_no_text_makes_a_plain_verifier_raise(text: str) -> None:
    for name in ("exact", "numeric"):
        assert make(name).verify(task("7"), text).reward in (0.0, 1.0)


def test_tolerances_are_inclusive_and_relative_to_the_tasks_answer() -> None:
    assert make("numeric", abs_tol=0.5).verify(task("10"), "10.5").correct
    assert not make("numeric", abs_tol=0.5).verify(task("10"), "10.51").correct
    assert make("numeric", rel_tol=0.01).verify(task("-200"), "-202").correct
    assert not make("numeric", rel_tol=0.01).verify(task("-200"), "-202.1").correct
    assert not make("numeric").verify(task("1/3"), "0.3333333333333333").correct


def test_a_task_without_a_number_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'seven' holds no number"):
        make("numeric").verify(task("seven"), "7")


def test_bad_options_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"numeric.abs_tol must be a finite number >= 0, got -1"):
        make("numeric", abs_tol=-1)
    with pytest.raises(UnknownNameError, match="did you mean 'boxed'"):
        make("exact", extraction="box")


def test_a_megabyte_is_read_from_its_end() -> None:
    assert make("numeric").verify(task("7"), "8 " * 500_000 + "7").correct
    assert not make("exact").verify(task("7"), "<answer>7</answer>" + " " * MAX_CHARS).correct
