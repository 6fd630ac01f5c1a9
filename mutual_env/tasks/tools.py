"""`mutual/calculator-v0`: any family of one turn, with a calculator that a policy may call before it answers."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mutual_env.errors import InvalidInputError
from mutual_env.interaction import Answer, Conversation, InteractionSpec, Over
from mutual_env.tasks.wrapped import WrappedTasks
from mutual_env.types import JSON, Reply, Task

MAX_EXPRESSION = 200  # characters
MAX_DIGITS = 60  # of a result and of everything on the way to it
_OPERATORS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True, slots=True)
class Calculator:
    """Answers a text that ends with a call, such as `<calc>3*(4+5)</calc>`, with its value; a text without a call is
    the final answer. `opening` and `closing` are what a call is written between, {value} in `template` is the value.

    The expression is parsed to numbers, + - * / and brackets, and worked out here as exact fractions: nothing that was
    written is ever run. What is anything else is answered with `error`.
    """

    max_turns: int = 4
    opening: str = "<calc>"
    closing: str = "</calc>"
    template: str = "<result>{value}</result>"
    error: str = "<result>error</result>"
    inline: bool = True
    joint: bool = False

    def respond(self, task: Task, conversations: Sequence[Conversation]) -> list[Answer]:
        return [self._answer(c.text) for c in conversations]

    def _answer(self, text: str) -> Answer:
        expression = called(text, self.opening, self.closing)
        if expression is None:
            return Over()
        value = calculated(expression)
        return Reply(self.error if value is None else self.template.replace("{value}", value), role="tool")


class CalculatorTasks(WrappedTasks):
    """The tasks of another family, with a calculator at hand.

    family  the id of the family, such as "mutual/arithmetic-v0"; its options are given beside these
    turns   how often a policy writes, its final answer counted
    opening, closing, template, error  how a call and its answer are written: see `Calculator`
    """

    def __init__(
        self,
        *,
        family: str,
        turns: int = 4,
        opening: str = "<calc>",
        closing: str = "</calc>",
        template: str = "<result>{value}</result>",
        error: str = "<result>error</result>",
        **options: Any,
    ) -> None:
        super().__init__(family, options)
        if not opening or not closing:
            raise InvalidInputError(f"opening and closing must not be empty, got {opening!r} and {closing!r}")
        kwargs: dict[str, JSON] = {
            "max_turns": turns,
            "opening": opening,
            "closing": closing,
            "template": template,
            "error": error,
        }
        self.interaction = InteractionSpec("calculator", kwargs)


def called(text: str, opening: str, closing: str) -> str | None:
    """What stands in the call that a text ends with, closed or not; None: it ends with none."""
    _, opened, call = text.rpartition(opening)
    inner, closed, rest = call.partition(closing)
    return None if not opened or (closed and rest.strip()) else inner


def calculated(expression: str) -> str | None:
    """The value of an expression of numbers, + - * / and brackets, as a decimal or a fraction; None: it is none."""
    text = expression.strip()
    if len(text) > MAX_EXPRESSION or not text.isascii():
        return None
    try:
        value = _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(Fraction(str(node.value)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _bounded(_OPERATORS[type(node.op)](_value(node.left), _value(node.right)))
    raise ValueError(f"{type(node).__name__} is no part of an arithmetic expression")


def _bounded(value: Fraction) -> Fraction:
    limit = 10**MAX_DIGITS
    if abs(value.numerator) > limit or value.denominator > limit:
        raise ValueError("too many digits")
    return value
