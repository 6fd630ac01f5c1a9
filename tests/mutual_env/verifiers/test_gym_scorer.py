from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.types import Task
from mutual_env.verifiers import VerifierPool, make
from mutual_env.verifiers.formula_values import check_names
from mutual_env.verifiers.formulas import NotAFormulaError, parse
from mutual_env.verifiers.gym_rules import RULES

MakePool = Callable[..., VerifierPool]
ZERO_ON_THEIR_OWN_ANSWER = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
pytest.importorskip("reasoning_gym", reason="the extra 'gym' is part of the test environment")


@functools.cache
def entry(name: str) -> dict[str, Any]:
    import reasoning_gym

    made: dict[str, Any] = json.loads(json.dumps(reasoning_gym.create_dataset(name, size=1, seed=3)[0]))
    return made


def task(name: str) -> Task:
    made = entry(name)
    return Task(name, made["question"], made["answer"] or "", {"dataset": name, "entry": made})


def names() -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - {"composite"})


@pytest.mark.long
def test_every_data_set_scores_its_own_answer_after_a_trip_through_json() -> None:
    scorer = make("reasoning_gym")
    wrong = {
        name
        for name in names()
        if not scorer.verify(task(name), f"so: <answer>{entry(name)['answer']}</answer>").correct
    }
    assert wrong == ZERO_ON_THEIR_OWN_ANSWER


def test_a_colouring_of_a_graph_is_checked_after_a_trip_through_json() -> None:
    colouring = entry("graph_color")["metadata"]["possible_answer"]
    assert make("reasoning_gym").verify(task("graph_color"), json.dumps(colouring)).correct


@pytest.mark.parametrize(
    ("name", "junk"), [("prime_factorization", "junk"), ("coin_flip", "1e999"), ("boxnet", "0"), ("boxnet", "[1, 2]")]
)
def test_junk_on_which_a_scorer_raises_is_a_wrong_format_worth_zero(name: str, junk: str) -> None:
    verdict = make("reasoning_gym").verify(task(name), junk)
    assert (verdict.status, verdict.reward) == ("wrong_format", 0.0)
    assert "the scorer could not read the answer" in verdict.detail


def test_a_broken_entry_is_the_tasks_fault() -> None:
    broken = Task("t", "", "7", {"dataset": "prime_factorization", "entry": {"answer": 7, "metadata": {}}})
    with pytest.raises(AttributeError):
        make("reasoning_gym").verify(broken, "1+1")


def test_no_answer_is_a_wrong_format() -> None:
    for text in ("", "  ", "<answer></answer>"):
        assert make("reasoning_gym").verify(task("gcd"), text).status == "wrong_format"


def test_a_partial_reward_is_passed_on_and_is_not_correct() -> None:
    # countdown: a formula with the wrong numbers is worth 0.05
    verdict = make("reasoning_gym").verify(task("countdown"), "1+1")
    assert (verdict.reward, verdict.correct) == (0.05, False)


def test_a_task_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"needs metadata\['dataset'\]"):
        make("reasoning_gym").verify(Task("t", "", "7"), "7")
    with pytest.raises(UnknownNameError, match="'countdown'"):
        make("reasoning_gym").verify(Task("t", "", "7", {"dataset": "countdwn", "entry": entry("countdown")}), "7")


INJECTIONS = [
    "open({path!r}, 'w').write('x')",
    "__import__('os').system('touch {bare}')",
    "__import__('pathlib').Path({path!r}).touch()",
    "[open({path!r}, 'w')]",
    "(lambda: open({path!r}, 'w'))()",
    "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0](['touch', {path!r}])",
    "exec(\"open({path!r}, 'w')\")",
    "eval(compile('open({path!r}, \"w\")', '', 'eval'))",
    "x.__class__.__mro__",
    "sympify(\"open({path!r}, 'w')\")",
    "parse_expr('1')",
    "lambdify(x, open({path!r}, 'w'))",
    "f'{{open({path!r}, chr(119))}}'",
    "E(open({path!r}))",
    "print(1)",
    "breakpoint()",
    "list(oracle_answer)",
    "[oracle_answer]",
    "oracle_answer.split()",
    "[valid_solutions[0]]",
    "entry['answer']",
    "metadata['integrand']",
    "globals()",
]


@pytest.mark.long
def test_no_answer_is_run_as_a_program(pool: MakePool, tmp_path: Path) -> None:
    target = tmp_path / "injected"
    texts = [text.format(path=str(target), bare=target) for text in INJECTIONS]
    items = [(task(name), text) for name in sorted(RULES) for text in texts]
    verdicts = pool(2).verify("reasoning_gym", items)
    assert not target.exists()
    paid = {
        (t.id, text): v for (t, text), v in zip(items, verdicts, strict=True) if v.reward is None or v.reward > 0.01
    }
    assert paid == {}


def is_formula(text: str) -> bool:
    try:
        check_names(parse(text), {})
    except NotAFormulaError:
        return False
    return True


@pytest.mark.parametrize(
    "formula",
    [
        "(1 + 2)*3",
        "x**2/2 + C",
        "-sin(3*x)/3",
        "2*x*(x+1)",
        "exp(x)*log(x, 2)",
        "1.5e3",
        "5!",
        "x^2",
        "f(x)!!",
        "3*Integral(x, x)",
    ],
)
def test_a_formula_is_plain(formula: str) -> None:
    assert is_formula(formula)


@pytest.mark.parametrize(
    "text", [*INJECTIONS, "x.y", "(1).real", "a[0]", "{1}", "1;2", "a=1", "1\\\n2", "open(x)", "__x__", "ℯval(x)"]
)
def test_anything_else_is_not(text: str) -> None:
    assert not is_formula(text)
