"""The rules give what the data sets' own scorers give, and no text is evaluated on the way.

MUTUAL_ENV_ANSWERS=10000 compares so many wrong answers of each data set (minutes); the default is small.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mutual_env.errors import InvalidInputError
from mutual_env.types import Task, Verdict
from mutual_env.verifiers import make
from mutual_env.verifiers.gym_rules import RULES
from tests.mutual_env.verifiers.simplified import Simplified, simplifying_once

pytest.importorskip("reasoning_gym", reason="the extra 'gym' is part of the test environment")
ANSWERS = int(os.environ.get("MUTUAL_ENV_ANSWERS", "60"))
ENTRIES = max(12, min(60, ANSWERS // 50))
SLOW = {"simple_integration", "intermediate_integration"}  # a tenth of a second an answer
SHARE = 1 if ANSWERS < 1000 else 16  # one of so many differences that a number decides is simplified nevertheless


@functools.cache
def dataset(name: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, size=ENTRIES, seed=11)


@functools.cache
def entries(name: str) -> list[dict[str, Any]]:
    made = []
    for i in range(ENTRIES):
        random.seed(i)  # polynomial_multiplication draws from the global generator
        made.append(json.loads(json.dumps(dataset(name)[i])))
    return made


def verdict(name: str, entry: dict[str, Any], answer: str) -> Verdict:
    task = Task(name, entry["question"], entry["answer"], {"dataset": name, "entry": entry})
    return scorer().verify(task, answer)


@functools.cache
def scorer() -> Any:
    return make("reasoning_gym", extraction="none")


# -- answers that a policy may write in good faith ---------------------------------------------------------------------

PROSE = (
    *("I do not know", "I can't do it.", "24", "x", "C", "(", ")", "1 +", "* 3", "The answer is 7", "none"),
    *("no solution!", "3 x 4", "1/0", "0/0", "2(3+4)", "(1+2)(3+4)", "1,234", "1.5e3", "-7", "--7", "2**-1"),
    *("5!", "3!!", "x!", "$x^2$", "\\frac{1}{2}", "x²", "6 × 4 ÷ 2", "10 − 3", "007", "1_000", "0x1F", "1 2 3"),
    *("A B C", "[1, 2, 3]", "[[0, 1], [1]]", "['A', 'B']", "_ Q _ _", "(2*3", "2*3)", "f(x)", "sin x"),
    *("sin(x)", "ln(x)", "e**x", "E", "pi", "π*2", "|x|", "-(3)", "max(1, 2)", "7 % 4", "7 // 2", "1 = 1"),
    *("1 == 1", "2 < 3", "x = 3", "a and b", "3 # three", "3\n4", "(3\n+4)", "1;2", "x(x+1)", "0.1+0.2", ".5"),
    *("0X1f", "0o17", "0b101", "0xg", "0b2", "0o8", "0x", "0x1_F", "0x1F + 1", "1__0", "1_", "1j", "2.5j", "1e", "1e+"),
    *("0x1.8p3", "00", "0_0", "1.2.3", "1. 5", "1 .5", "0xFFFFFFFF", "0B11 * 0X10", "1E3", "1_0.5e1_0", "12L", "1f"),
    *("2 * * 3", "7 / / 2", "1 = = 1", "2 < = 3", "1 ! = 2", "5 !", "5 ! !", "2*\t*3", "- - 3", "+ - 3", "2 * *3"),
    *("5.", "10**20", "2**0.5", "sqrt(2)**2", "I*I", "factorial(4)", "1e400", "2x", "abs(-3)"),
)


def wrong_answers(name: str, entry: dict[str, Any], rng: random.Random) -> Iterator[str]:
    """The right answer with something changed, and what else people write instead of one."""
    right = entry["answer"]
    while True:
        yield rng.choice(CHANGES)(right, rng)
        yield rng.choice(PROSE)
        if name in ("countdown", "puzzle24"):
            letters = (rng.choice("0123456789+-*/() .") for _ in range(rng.randint(1, 24)))
            yield "".join(letters).replace("**", "*")  # a tower of powers would keep the other scorer busy for hours


def _other_number(text: str, rng: random.Random) -> str:
    found = list(re.finditer(r"\d+", text))
    if not found:
        return text + "1"
    chosen = rng.choice(found)
    return f"{text[: chosen.start()]}{rng.randint(0, 99)}{text[chosen.end() :]}"


def _other_operator(text: str, rng: random.Random) -> str:
    found = list(re.finditer(r"(?<=[\w) ])[-+*/](?=[\w( ])", text))
    if not found:
        return "-" + text
    chosen = rng.choice(found)
    return text[: chosen.start()] + rng.choice("+-*/^%") + text[chosen.end() :]


def _dropped(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return text[:place] + text[place + 1 :]


def _as_python_list(text: str, rng: random.Random) -> str:
    rows = [row.split(" ") for row in text.split("\n")]
    listed = rows if len(rows) > 1 else rows[0]
    written = rng.choice(
        [str(listed), json.dumps(listed), str(listed).replace("'", ""), str(tuple(listed)), str([text])]
    )
    return _other_number(written, rng) if rng.random() < 0.5 else written


CHANGES: list[Callable[[str, random.Random], str]] = [
    _other_number,
    _other_operator,
    _dropped,
    _as_python_list,
    lambda text, rng: text.replace("**", "^"),
    lambda text, rng: text.replace("*", " × "),
    lambda text, rng: text.replace("*", ""),
    lambda text, rng: f"{text} = {rng.randint(0, 99)}",
    lambda text, rng: f"({text}) {rng.choice('+-*/')} {rng.randint(0, 9)}",
    lambda text, rng: f"The answer is {text}.",
    lambda text, rng: f"{text}\n",
    lambda text, rng: f"{text}, {text}",
    lambda text, rng: text[::-1],
    lambda text, rng: text.upper(),
    lambda text, rng: text.replace("x", "y"),
    lambda text, rng: text.replace(" + C", ""),
]


# -- the same scores ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_right_answer_has_the_score_of_the_data_sets_own_scorer(name: str) -> None:
    for entry in entries(name):
        for answer in {entry["answer"], *entry["metadata"].get("valid_answers", ())}:
            ours = verdict(name, entry, answer)
            assert (ours.reward, ours.status) == (dataset(name).score_answer(answer.strip(), entry), "ok"), answer
            assert ours.correct


@pytest.fixture
def simplified_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simplified]:
    """Both scorers simplify the same difference, and many answers come twice; those that took too long."""
    with simplifying_once(monkeypatch, SHARE) as found:
        yield found


@pytest.mark.timeout(300 if ANSWERS < 1000 else 0)
@pytest.mark.parametrize("name", sorted(RULES))
def test_a_wrong_answer_in_good_faith_has_the_score_of_the_data_sets_own_scorer(
    name: str, simplified_once: Simplified
) -> None:
    rng = random.Random(f"wrong {name}")
    wanted = ANSWERS if name not in SLOW or ANSWERS > 1000 else ANSWERS // 3
    makers = [wrong_answers(name, entry, rng) for entry in entries(name)]
    different = []
    for i in range(wanted):
        entry, answer = entries(name)[i % ENTRIES], next(makers[i % ENTRIES])
        ours, theirs = verdict(name, entry, answer), own_score(name, entry, answer.strip())
        if ours.reward != theirs:
            different.append((answer, ours, theirs))
    print(f"{name}: {wanted} answers, {len(different)} scored differently, {len(simplified_once.late)} took too long")
    assert different[:5] == []
    assert simplified_once.vanished == []
    assert len(simplified_once.late) <= wanted // 200


@pytest.mark.parametrize("answer", ["52( * 87.3+0)", "2(*3)", "2(x=3)", "1.5(2)(*3)", "(2)(*3) + 1"])
@pytest.mark.parametrize("name", ["countdown", "puzzle24", "polynomial_multiplication"])
def test_to_call_a_number_is_to_run_nothing(name: str, answer: str) -> None:
    (entry, *_) = entries(name)
    assert verdict(name, entry, answer).reward == own_score(name, entry, answer)


def own_score(name: str, entry: dict[str, Any], answer: str) -> float:
    if not answer:  # no answer at all is `wrong_format`, worth 0, in every data set
        return 0.0
    return float(dataset(name).score_answer(answer, entry))


def test_composite_is_scored_by_the_rule_of_its_part() -> None:
    (entry,) = entries("countdown")[:1]
    task = Task("t", "", entry["answer"], {"dataset": "composite", "config": {}, "entry": entry})
    assert make("reasoning_gym").verify(task, entry["answer"]).correct
    assert make("reasoning_gym").verify(task, "(exec)(chr(49))").status == "wrong_format"


def test_text_of_the_task_is_not_evaluated_either(tmp_path: Path) -> None:
    target = tmp_path / "run"
    code = f"open({str(target)!r}, 'w')"
    tampered = {
        "bitwise_arithmetic": {"metadata": {"problem": code}},
        "number_sorting": {"answer": code, "metadata": {"direction": "ascending"}},
        "polynomial_multiplication": {"answer": code},
        "simple_integration": {"metadata": {"variable": "x", "integrand": code}},
    }
    for name, fields in tampered.items():
        entry = {"question": "", "answer": "1", "metadata": {}} | fields
        with pytest.raises((InvalidInputError, ValueError)):
            make("reasoning_gym").verify(Task("t", "", "", {"dataset": name, "entry": entry}), "[1]")
    assert not target.exists()


# -- what evades a filter of characters --------------------------------------------------------------------------------

CODE = "+".join(f"(chr)({ord(letter)})" for letter in "open({!r}, 'w')")
EVASIONS = (
    "(exec)({code})",
    "(eval)({code})",
    "((exec))({code})",
    "(lambda:0)({code})",
    "max(1,(exec)({code}))",
    "sin((exec)({code}))",
    "f((exec)({code}))",
    "(exec)({code})!",
    "1+(exec)({code})",
    "(1,(exec)({code}))",
    "x!.args",
    "(x)!.func",
    "x.\tfunc",
    "(print)(1)",
    "(sympify)((chr)(49))",
    "(S)((chr)(49))",
    "S(x)",
    "N(x)",
    "(Symbol)(x)",
    "(lambdify)(x,x)",
    "(parse_expr)(x)",
    "(preview)(x)",
    "(getattr)(x,x)",
    "(open)(x,x)",
    "(vars)()",
    "𝐞xec(x)",
    "ｅval(x)",
    "𝓮𝔁𝓮𝓬",
)


@pytest.mark.parametrize("name", sorted(RULES))
def test_code_without_a_name_before_its_bracket_is_a_wrong_format_and_does_not_run(name: str, tmp_path: Path) -> None:
    target = tmp_path / "run"
    code = "+".join(f"(chr)({ord(letter)})" for letter in f"open({str(target)!r}, 'w')")
    for text in EVASIONS:
        found = verdict(name, entries(name)[0], text.format(code=code))
        assert not target.exists(), text
        if name in ("binary_matrix", "n_queens", "spiral_matrix", "string_insertion", "bitwise_arithmetic"):
            assert found.reward == 0.0, text  # a text that is not the answer
        else:
            assert (found.status, found.correct) == ("wrong_format", False), text
            assert found.reward in (0.0, 0.01), text


HUGE = ["9**9**9**9", "((9!)!)!", "(" * 4000, "-" * 5000 + "1", "1+" * 4000 + "1", "2**" * 3000 + "1", "!(x)" * 900]


@pytest.mark.parametrize("text", HUGE)
def test_a_formula_of_no_bounded_size_ends_at_once(text: str) -> None:
    assert verdict("countdown", entries("countdown")[0], text).reward == 0.01


def test_no_event_of_evaluation_is_raised_while_answers_are_scored() -> None:
    """Python itself says so: exec() and eval() are audited. What modules do while they are imported does not count, nor
    that SymPy writes functions on monomials for so many variables."""
    scorer().warm()
    entry = {name: entries(name)[0] for name in RULES}
    texts = [*PROSE, *(text.format(code=CODE) for text in EVASIONS), *(entry[name]["answer"] for name in RULES)]
    seen: list[str] = []
    listening = True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:  # a hook cannot be removed, only silenced
        if listening and event == "exec" and not _is_library(sys._getframe(1)):
            seen.append(str(arguments))

    sys.addaudithook(hear)
    for name in RULES:
        for text in texts:
            verdict(name, entry[name], text)
    listening = False
    assert seen == []


def _is_library(frame: FrameType | None) -> bool:
    while frame is not None:
        if "importlib" in frame.f_code.co_filename or frame.f_code.co_filename.endswith("sympy/polys/monomials.py"):
            return True
        frame = frame.f_back
    return False


# -- nothing new evaluates text in the installed package ---------------------------------------------------------------

EVALUATORS = {
    *("eval", "exec", "compile", "parse_expr", "sympify", "literal_eval", "lambdify", "nsimplify", "parse_latex", "S"),
    *("__import__", "import_module", "Popen", "check_output", "check_call", "system", "popen", "run", "call"),
    *("run_module", "run_path", "exec_module", "load_module", "unsafe_load", "read_pickle"),
}
KNOWN = {
    # the answer, replaced by a rule
    "algebra/intermediate_integration.py: score_answer: parse_expr",
    "algebra/polynomial_multiplication.py: score_answer: parse_expr",
    "algebra/simple_integration.py: score_answer: parse_expr",
    "algorithmic/binary_matrix.py: score_answer: eval",
    "algorithmic/spiral_matrix.py: score_answer: eval",
    "algorithmic/string_insertion.py: score_answer: eval",
    "games/countdown.py: score_answer: parse_expr",
    "games/n_queens.py: score_answer: eval",
    "games/puzzle24.py: score_answer: parse_expr",
    # text of the task: replaced by a rule, or given to the scorer as JSON
    "algorithmic/number_sorting.py: score_answer: eval",
    "arithmetic/bitwise_arithmetic.py: verify_solution: eval",
    # text that the data set itself writes, while it makes an item
    "arithmetic/basic_arithmetic.py: eval_floordiv: eval",
    "arithmetic/bitwise_arithmetic.py: generate_problem: eval",
    "arithmetic/gsm_symbolic/generators_00_49.py: generate_example: eval",
    "arithmetic/gsm_symbolic/generators_50_99.py: generate_from_variables: eval",
    "code/codeio.py: _generate_io_pair: exec",
    # functions of its own that are only named so
    "code/bf.py: compile_bfit_code_to_bf: compile",
    "logic/propositional_logic.py: parse_expr: parse_expr",
    "logic/propositional_logic.py: from_string: parse_expr",
}


def test_the_installed_package_evaluates_text_nowhere_else() -> None:
    import reasoning_gym

    root = Path(reasoning_gym.__file__).parent
    found = {
        f"{path.relative_to(root)}: {function}: {name}"
        for path in sorted(root.rglob("*.py"))
        if "contrib" not in path.parts
        for function, name in _calls(ast.parse(path.read_text()), "<module>")
        if name in EVALUATORS
    }
    assert found - KNOWN == set(), "reasoning-gym evaluates text in a new place: look at it before it is used"
    assert KNOWN - found == set(), "these are gone: take them off the list, and the rule with them"


def _calls(tree: ast.AST, function: str) -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _calls(node, node.name)
            continue
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if ast.unparse(node.func) != "re.compile":
                yield function, name
        yield from _calls(node, function)
