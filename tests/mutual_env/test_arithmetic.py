from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.tasks.arithmetic import ArithmeticTasks
from mutual_env.tasks.source import split_of


@given(seed=st.integers(0, 2**40), round=st.integers(0, 10**6), n=st.integers(1, 20))
def test_a_draw_is_a_pure_function_of_its_arguments(seed: int, round: int, n: int) -> None:
    first, second = (ArithmeticTasks(operation=["add", "mul"]).draw(seed, round, n) for _ in range(2))
    assert first == second
    assert len({task.id for task in first}) == n


def test_the_first_tasks_of_seed_zero_are_these_on_every_machine() -> None:
    assert [task.prompt for task in ArithmeticTasks().draw(0, 0, 3)] == ["56+13=", "62+11=", "13+48="]


@pytest.mark.parametrize(
    ("options", "pattern", "value"),
    [
        ({"operation": "add"}, r"(\d+)\+(\d+)=", lambda a, b: a + b),
        ({"operation": "sub"}, r"(\d+)-(\d+)=", lambda a, b: a - b),
        ({"operation": "mul", "digits": 18}, r"(\d+)\*(\d+)=", lambda a, b: a * b),
        ({"operation": "sub", "modulus": 7}, r"\((\d+)-(\d+)\)%7=", lambda a, b: (a - b) % 7),
        ({"template": "What is {expression}?"}, r"What is (\d+)\+(\d+)\?", lambda a, b: a + b),
    ],
)
def test_the_answer_is_that_of_the_expression(options, pattern, value) -> None:  # type: ignore[no-untyped-def]
    for task in ArithmeticTasks(**options).draw(1, 2, 20):
        match = re.fullmatch(pattern, task.prompt)
        assert match is not None
        assert task.answer == str(value(*map(int, match.groups())))


def test_several_operations_are_mixed_and_named_in_the_metadata() -> None:
    tasks = ArithmeticTasks(operation=["add", "mul"]).draw(0, 0, 40)
    assert {task.metadata["operation"] for task in tasks} == {"add", "mul"}
    assert all(("*" in task.prompt) == (task.metadata["operation"] == "mul") for task in tasks)


def test_the_two_splits_share_no_expression_and_leave_none_out() -> None:
    # 100 expressions of one digit: whatever falls to "eval" by its hash is what "train" lacks.
    def everything(split: str) -> set[str]:
        size = sum(split_of(f"mutual/arithmetic-v0:{a}+{b}") == split for a in range(10) for b in range(10))
        return {task.id for task in ArithmeticTasks(digits=1, split=split).draw(5, 0, size)}

    train, held_out = everything("train"), everything("eval")
    assert not train & held_out
    assert len(train) + len(held_out) == 100
    assert 10 <= len(held_out) <= 40  # a quarter, up to chance


def test_more_prompts_than_there_are_expressions_are_refused_with_the_number() -> None:
    with pytest.raises(InvalidInputError, match=r"prompts_per_round=101: .* gave only \d+ different tasks"):
        ArithmeticTasks(digits=1).draw(0, 0, 101)


def test_far_more_prompts_than_there_are_expressions_are_refused_without_a_long_search() -> None:
    began = time.process_time()
    with pytest.raises(InvalidInputError, match=r"prompts_per_round=1000000: .* gave only \d+ different tasks"):
        ArithmeticTasks(digits=1).draw(0, 0, 1_000_000)
    assert time.process_time() - began < 10.0  # it was a quarter of an hour


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"operation": "plus"}, UnknownNameError, "add"),
        ({"operation": []}, InvalidInputError, "operation is empty"),
        ({"digits": 0}, InvalidInputError, "digits must be"),
        ({"digits": 19}, InvalidInputError, "1 to 18, got 19"),
        ({"digits": "2"}, InvalidInputError, "got '2'"),
        ({"modulus": 1}, InvalidInputError, "modulus"),
        ({"template": "What?"}, InvalidInputError, "{expression}"),
        ({"split": "test"}, InvalidInputError, "'train' or 'eval', got 'test'"),
    ],
)
def test_a_bad_option_is_named(options, error, says) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=re.escape(says)):
        ArithmeticTasks(**options)
