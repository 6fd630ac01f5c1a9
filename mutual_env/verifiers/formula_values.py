"""What a formula stands for: a SymPy expression, built node by node from the tree.

A name is one of the symbols that the caller gives, a constant, a function of a fixed list, or else a new symbol. A name
that SymPy or Python gives any other meaning is refused. Where SymPy would work for hours on a number of a million
digits, there is no value.
"""

from __future__ import annotations

import builtins
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, assert_never

from mutual_env.verifiers.formulas import (
    Call,
    Chain,
    Factorial,
    Name,
    Node,
    NotAFormulaError,
    Number,
    Power,
    Several,
    Signed,
)

MAX_BITS, MAX_FACTORIAL = 200_000, 5_000
FUNCTIONS = frozenset(
    {"Abs", "Integer", "Integral", "Max", "Min", "Rational", "acos", "acosh", "acot", "acoth", "acsc", "asec", "asin"}
    | {"asinh", "atan", "atan2", "atanh", "cbrt", "ceiling", "cos", "cosh", "cot", "coth", "csc", "csch", "erf", "erfc"}
    | {"erfi", "exp", "factorial", "floor", "ln", "log", "root", "sec", "sech", "sign", "sin", "sinh", "sqrt", "tan"}
    | {"tanh", "Ci", "Ei", "Si", "li"}
)
_PYTHON_NAMES = {"abs": "Abs", "max": "Max", "min": "Min"}
CONSTANTS = frozenset({"pi", "E", "I", "oo", "zoo", "nan", "EulerGamma", "GoldenRatio", "Catalan"})
_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "^": operator.xor,  # as Python reads it, and so reasoning-gym
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class NoValueError(ArithmeticError):
    """A formula, but one that stands for no value here."""


def check_names(tree: Node, symbols: Mapping[str, Any]) -> None:
    """Refuse what the tree names, before the first step of it is taken."""
    for node in _walk(tree):
        if isinstance(node, Name) and not _is_quantity(node.text, symbols):
            raise NotAFormulaError(f"{node.text[:40]!r} is no quantity")
        if isinstance(node, Call) and isinstance(node.callee, Name) and not _may_be_called(node.callee.text, symbols):
            raise NotAFormulaError(f"{node.callee.text[:40]!r} is none of the functions that a formula may call")


def _is_quantity(name: str, symbols: Mapping[str, Any]) -> bool:
    return name in symbols or name in CONSTANTS or name not in _namespace()


def _may_be_called(name: str, symbols: Mapping[str, Any]) -> bool:
    """One of the list, or a letter that stands for an unknown function or a quantity."""
    known = name in symbols or name in FUNCTIONS or name in _PYTHON_NAMES
    return known or (len(name) == 1 and name not in _namespace())


def value_of(tree: Node, symbols: Mapping[str, Any]) -> Any:
    """The value of a tree whose names were checked; NoValueError, or what SymPy raises, where there is none."""
    match tree:
        case Number():
            return _sympy().Integer(int(tree.text, 0)) if tree.whole else _sympy().Float(tree.text)
        case Name():
            return _quantity(tree.text, symbols)
        case Signed():
            operand = value_of(tree.operand, symbols)
            return -operand if tree.sign == "-" else +operand
        case Chain():
            return _chained(tree, symbols)
        case Power():
            return _power(value_of(tree.base, symbols), value_of(tree.exponent, symbols))
        case Factorial():
            name = "factorial2" if tree.double else "factorial"
            return _apply(name, [value_of(tree.operand, symbols)])
        case Call():
            return _called_value(tree, symbols)
        case Several():
            raise NoValueError("several formulas are not one value")
        case _:
            assert_never(tree)


def _chained(tree: Chain, symbols: Mapping[str, Any]) -> Any:
    total = value_of(tree.first, symbols)
    for sign, operand in tree.rest:
        total = _OPERATORS[sign](total, value_of(operand, symbols))
    return total


def _called_value(tree: Call, symbols: Mapping[str, Any]) -> Any:
    if not isinstance(tree.callee, Name) or tree.callee.text in symbols:
        raise NoValueError("only a function can be called; a product is written with *")
    name = _PYTHON_NAMES.get(tree.callee.text, tree.callee.text)
    arguments = [value_of(argument, symbols) for argument in tree.arguments]
    if name == "Integral" and not (len(arguments) == 2 and arguments[1].is_Symbol):
        raise NoValueError("an integral has an integrand and a variable")
    return _apply(name, arguments)


def _apply(name: str, arguments: list[Any]) -> Any:
    if name.startswith("factorial") and any(not a.is_Symbol and a.is_number and a > MAX_FACTORIAL for a in arguments):
        raise NoValueError(f"a factorial of more than {MAX_FACTORIAL}")
    sympy = _sympy()
    known = name in FUNCTIONS or name == "factorial2"
    return (getattr(sympy, name) if known else sympy.Function(name))(*arguments)


def _power(base: Any, exponent: Any) -> Any:
    if base.is_Rational and exponent.is_Rational:
        bits = max(abs(int(base.p)).bit_length(), int(base.q).bit_length())
        if bits > 1 and bits * abs(exponent) > MAX_BITS:
            raise NoValueError(f"a power of more than {MAX_BITS} bits")
    return base**exponent


def _quantity(name: str, symbols: Mapping[str, Any]) -> Any:
    if name in symbols:
        return symbols[name]
    return getattr(_sympy(), name) if name in CONSTANTS else _sympy().Symbol(name)


def _walk(tree: Node) -> list[Node]:
    """Every node, but for a name that is called: that is no quantity."""
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += _parts(node)
    return found


def _parts(node: Node) -> tuple[Node, ...]:
    match node:
        case Number() | Name():
            return ()
        case Signed() | Factorial():
            return (node.operand,)
        case Chain():
            return (node.first, *(operand for _, operand in node.rest))
        case Power():
            return (node.base, node.exponent)
        case Call():
            return node.arguments if isinstance(node.callee, Name) else (node.callee, *node.arguments)
        case Several():
            return node.items
        case _:
            assert_never(node)


@functools.cache
def _namespace() -> frozenset[str]:
    """What a name means something to in `from sympy import *` and among Python's functions."""
    sympy = _sympy()
    return frozenset({*sympy.__all__, *(name for name in vars(builtins) if not name.startswith("_"))})


def _sympy() -> Any:
    import sympy  # type: ignore[import-untyped]

    return sympy
