"""Scores of the reasoning-gym data sets whose own scorer evaluates text: the same scores, from values.

Nine data sets evaluate the answer, with the built-in functions and the true answer in reach; one of those and two more
evaluate text of their task. Here a grammar reads such text into values, and the rule of the data set is applied to
those. `tests/mutual_env/verifiers/test_gym_rules.py` compares every rule with the data set's own scorer.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.verifiers.formula_values import check_names, value_of
from mutual_env.verifiers.formulas import Node, NotAFormulaError, parse
from mutual_env.verifiers.literals import Literal, NotALiteralError, is_inert, literal_of, tree_of

Entry = Mapping[str, Any]
Rule = Callable[[str, Entry, Any], float]
"""The score of an answer to an entry of a data set with a configuration."""


class RefusedError(ValueError):
    """The answer is not what the grammar reads. `worth` is what the data set pays for it without running anything."""

    def __init__(self, why: str, worth: float) -> None:
        super().__init__(why)
        self.worth = worth


# -- formulas ----------------------------------------------------------------------------------------------------------


def _countdown(answer: str, entry: Entry, _: Any) -> float:
    nothing, some = 0.01, 0.05
    tree = _formula(answer, {}, nothing)
    try:
        value = float(value_of(tree, {}))
        used = [int(number) for number in re.findall(r"\b\d+\b", answer)]
    except MemoryError:
        raise
    except Exception:  # SymPy's, where a formula has no value that is a number
        return nothing
    if sorted(used) != sorted(entry["metadata"]["numbers"]):
        return some
    return 1.0 if np.isclose(value, entry["metadata"]["target"], atol=1e-6) else some


def _puzzle24(answer: str, _: Entry, config: Any) -> float:
    nothing = 0.01
    answer = answer.strip()
    tree = _formula(answer, {}, nothing)
    try:
        value = int(value_of(tree, {}))
        used = [int(number) for number in re.findall(r"\b\d+\b", answer)]
    except MemoryError:
        raise
    except Exception:
        return nothing
    allowed = len(used) == 4 and all(config.min_value <= number <= config.max_value for number in used)
    return 1.0 if value == 24 and allowed else nothing


def _polynomial_multiplication(answer: str, entry: Entry, _: Any) -> float:
    right = value_of(_own(entry["answer"], {}), {})
    tree = _formula(answer, {}, 0.0)
    try:
        return float(bool(value_of(tree, {}) == right))
    except MemoryError:
        raise
    except Exception:
        return 0.0


def _integration(answer: str, entry: Entry, _: Any) -> float:
    """Right where the derivative of the answer is the integrand; `C` is the constant."""
    import sympy  # type: ignore[import-untyped]

    variable = sympy.Symbol(entry["metadata"]["variable"])
    only_variable = {str(variable): variable}
    integrand = value_of(_own(entry["metadata"]["integrand"], only_variable), only_variable)
    symbols = {"C": sympy.Symbol("C")} | only_variable
    tree = _formula(answer, symbols, 0.0)
    try:
        difference = sympy.diff(value_of(tree, symbols), variable) - integrand
        return 0.0 if _differs(difference) else float(sympy.simplify(difference) == 0)
    except MemoryError:
        raise
    except Exception:
        return 0.0


def _differs(difference: Any) -> bool:
    """Whether a number shows at once that it is not 0: to simplify may take seconds."""
    import sympy

    if difference.has(sympy.Integral, sympy.Derivative, sympy.Subs):
        return False
    symbols = sorted(difference.free_symbols, key=str)
    somewhere = {symbol: sympy.Rational(137, 100) + sympy.Rational(i, 7) for i, symbol in enumerate(symbols)}
    value = difference.evalf(subs=somewhere)
    return bool(value.is_number and value.is_finite and abs(value) > 1e-6)


def _formula(answer: str, symbols: Mapping[str, Any], nothing: float) -> Node:
    """The tree of the answer, its names checked. What is refused is worth `nothing`, as in the data set, unless it
    would have run something there."""
    try:
        tree = parse(answer)
        check_names(tree, symbols)
    except NotAFormulaError as cause:
        raise RefusedError(f"the answer is no formula: {cause}", nothing if is_inert(answer) else 0.0) from None
    return tree


def _own(text: Any, symbols: Mapping[str, Any]) -> Node:
    try:
        tree = parse(str(text))
        check_names(tree, symbols)
    except NotAFormulaError as cause:
        raise InvalidInputError(f"the task's own formula {text!r:.80} cannot be read: {cause}") from None
    return tree


# -- lists -------------------------------------------------------------------------------------------------------------


def _binary_matrix(answer: str, entry: Entry, _: Any) -> float:
    right = entry["answer"]
    return _plain_or_list(answer, {right}, 0.1, lambda v: "\n".join(" ".join(str(x) for x in row) for row in v))


def _spiral_matrix(answer: str, entry: Entry, _: Any) -> float:
    right = entry["answer"].strip()
    return _plain_or_list(answer.strip(), {right}, 0.1, lambda value: " ".join(str(item) for item in value))


def _string_insertion(answer: str, entry: Entry, _: Any) -> float:
    return _plain_or_list(answer, {entry["answer"]}, 0.1, "".join)


def _n_queens(answer: str, entry: Entry, _: Any) -> float:
    boards = set(entry["metadata"]["valid_answers"])
    return _plain_or_list(answer, boards, 0.5, lambda v: "\n".join(" ".join(x for x in row) for row in v))


def _plain_or_list(answer: str, right: set[str], for_list: float, written: Callable[[Any], str]) -> float:
    """1 for a right answer in the form that was asked for, `for_list` for the same as a Python list, else 0."""
    if answer in right:
        return 1.0
    tree = tree_of(answer)
    if tree is None or isinstance(tree, ast.Name):
        return 0.0  # a plain text, and not the right one
    try:
        value: Literal = literal_of(tree)
    except NotALiteralError as cause:
        raise RefusedError(f"neither the answer nor a list of it: {cause}", 0.0) from None
    try:
        return for_list if written(value) in right else 0.0
    except (TypeError, ValueError):  # what is no list of lists, or of strings
        return 0.0


# -- tasks that hold text to evaluate ----------------------------------------------------------------------------------

_BITWISE: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.LShift: lambda a, b: a << min(b, 4096),
    ast.RShift: lambda a, b: a >> b,
}


def _bitwise_arithmetic(answer: str, entry: Entry, _: Any) -> float:
    right = _whole(tree_of(entry["metadata"]["problem"]))
    try:
        return float(int(answer, 0) == right)
    except ValueError:
        return 0.0


def _whole(tree: ast.expr | None) -> int:
    match tree:
        case ast.Constant(value=int() as value):
            return value
        case ast.BinOp() if type(tree.op) in _BITWISE:
            return _BITWISE[type(tree.op)](_whole(tree.left), _whole(tree.right))
    raise InvalidInputError("the task's own problem is no sum, product or shift of whole numbers")


def as_json_list(text: str) -> str:
    """A task's own list, in the form that its scorer reads without evaluating it."""
    tree = tree_of(text)
    if tree is None:
        raise InvalidInputError(f"the task's own answer {text!r:.80} is no list")
    return json.dumps(literal_of(tree))


RULES: Mapping[str, Rule] = {
    "binary_matrix": _binary_matrix,
    "bitwise_arithmetic": _bitwise_arithmetic,
    "countdown": _countdown,
    "intermediate_integration": _integration,
    "n_queens": _n_queens,
    "polynomial_multiplication": _polynomial_multiplication,
    "puzzle24": _puzzle24,
    "simple_integration": _integration,
    "spiral_matrix": _spiral_matrix,
    "string_insertion": _string_insertion,
}
