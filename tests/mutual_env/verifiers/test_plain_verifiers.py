from __future__ import annotations

import sys
import time
import unicodedata
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutual_env.errors import InvalidInputError
from mutual_env.types import Task
from mutual_env.verifiers import make
from mutual_env.verifiers.answers import final_answer
from mutual_env.verifiers.numeric import last_number, only_number
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
    with pytest.raises(InvalidInputError, match=r"option 'extraction' .* must be one of 'auto', .*, got 'box'"):
        make("exact", extraction="box")


def test_a_megabyte_is_read_from_its_end() -> None:
    assert make("numeric").verify(task("7"), "8 " * 500_000 + "7").correct
    assert not make("exact").verify(task("7"), "<answer>7</answer>" + " " * MAX_CHARS).correct


def test_thousands_of_accents_cost_a_trainer_nothing() -> None:
    text = "a" + "".join(chr(mark) for mark in (0x301, 0x316, 0x345, 0x327)) * 4000
    began = time.process_time()
    assert not make("exact").verify(task("seven"), text).correct
    assert time.process_time() - began < 0.1  # NFC alone takes three times that


def test_a_right_answer_in_its_longest_form_is_right() -> None:
    shrink = [chr(c) for c in range(sys.maxunicode) if len(unicodedata.normalize("NFD", chr(c))) > 3]
    composed = [c for c in shrink if unicodedata.normalize("NFC", c) == c]
    assert composed  # such as a Greek letter with three marks
    right = "".join(composed)
    assert make("exact").verify(task(right), f"<answer>{unicodedata.normalize('NFD', right)}</answer>").correct
    assert make("exact", ignore_case=True).verify(task("\u1f82"), "\u03b1\u0313\u0300\u0345").correct


# What a base model writes after "...2+6=8\n5+1=", which asks for 6.
GOES_ON = [
    ("6", True, True, True),
    ("6\n4+1=", False, True, True),  # right, and a further example after it
    ("3\n1+6=", True, False, False),  # wrong, and the further example happens to end in a 6
    ("6\n2+2=4\n", False, True, True),
    (" 6.\n", True, True, True),
    ("The cake said 6+", True, True, False),  # no answer, but a number
    ("\n6", True, True, True),
]


@pytest.mark.parametrize(("text", "last", "first", "only"), GOES_ON)
def test_a_policy_that_goes_on_writing_is_judged_by_the_number_that_is_meant(
    text: str, last: bool, first: bool, only: bool
) -> None:
    def correct(**options: str) -> bool:
        return make("numeric", **options).verify(task("6"), text).correct

    assert (correct(), correct(number="first"), correct(extraction="line", number="only")) == (last, first, only)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6", Fraction(6)),
        ("  -1,234.5\n", Fraction(-2469, 2)),
        ("1/2", Fraction(1, 2)),
        ("6.", Fraction(6)),
        ("\N{MINUS SIGN}3", Fraction(-3)),
        ("6 7", None),
        ("6%", None),
        ("= 6", None),
        ("x", None),
        ("", None),
        ("1/0", None),
        ("9" * 500, None),
    ],
)
def test_the_only_number_is_the_whole_answer(text: str, value: Fraction | None) -> None:
    assert only_number(text) == value


def test_what_is_no_number_alone_is_unreadable_and_not_merely_wrong() -> None:
    verdict = make("numeric", number="only").verify(task("6"), "It is 6")
    assert (verdict.status, verdict.reward, verdict.detail) == ("wrong_format", 0.0, "more than a number, or none")
    with pytest.raises(InvalidInputError, match="must be one of 'last', 'first', 'only', got 'frist'"):
        make("numeric", number="frist")


def test_the_first_line_is_that_of_the_beginning_however_much_follows() -> None:
    long = "6\n" + "4+4=8\n" * MAX_CHARS
    assert make("numeric", extraction="line").verify(task("6"), long).correct
    assert make("exact", extraction="line").verify(task("6"), "\n \n" + long).correct
    assert final_answer(" \n\n", "line") is None


def test_verifiers_that_differ_in_the_number_they_read_have_ids_of_their_own() -> None:
    assert len({make("numeric", number=which).id for which in ("last", "first", "only")}) == 3
    assert make("numeric", number="last").id == make("numeric").id
