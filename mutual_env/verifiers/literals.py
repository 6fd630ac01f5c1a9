"""Lists written as Python writes them, read into values. Nothing of a text is evaluated here."""

from __future__ import annotations

import ast
import warnings
from typing import TypeAlias

Literal: TypeAlias = "str | int | float | bool | list[Literal] | tuple[Literal, ...] | None"


class NotALiteralError(ValueError):
    """Python would read the text as something else than a literal."""


def tree_of(text: str) -> ast.expr | None:
    """How Python would read the text as an expression; None where it would not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as "'int' object is not callable; perhaps you missed a comma?"
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # MemoryError: brackets too deep for its stack
        return None


_INERT = (
    *(ast.Constant, ast.Name, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare),
    *(ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Starred, ast.keyword),
)


def is_inert(text: str) -> bool:
    """Whether Python cannot read the text, or reads nothing in it that calls, looks up, or defines anything. To call a
    number, as `2(3)` does, calls nothing."""
    tree = tree_of(text)
    return tree is None or all(isinstance(node, _INERT) or _calls_number(node) for node in ast.walk(tree))


def _calls_number(node: ast.AST) -> bool:
    called = node
    while isinstance(called, ast.Call):
        called = called.func
    return called is not node and isinstance(called, ast.Constant) and isinstance(called.value, (int, float))


def literal_of(tree: ast.expr) -> Literal:
    """The value of a list, tuple, string, number, truth value or None; else NotALiteralError."""
    match tree:
        case ast.List():
            return [literal_of(item) for item in tree.elts]
        case ast.Tuple():
            return tuple(literal_of(item) for item in tree.elts)
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
    raise NotALiteralError(f"{type(tree).__name__} is no part of a literal")
