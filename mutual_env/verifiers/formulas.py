"""The grammar of formulas, and the tree that one is read into. Nothing of a text is evaluated here.

    answer      comparison {"," comparison} [","]
    comparison  xor [("==" | "!=" | "<" | "<=" | ">" | ">=") xor]
    xor         sum {"^" sum}
    sum         term {("+" | "-") term}
    term        unary {("*" | "/" | "//" | "%") unary}
    unary       ("+" | "-") unary | power
    power       postfix ["**" unary]
    postfix     atom {"!" | "!!" | "(" [comparison {"," comparison} [","]] ")"}
    atom        number | name | "(" answer ")"

This is what Python reads in such a text, and what SymPy makes of `!` and of `* *`; a comment ends a line, and a line
ends only within brackets. There are no strings, attributes, indices, keywords, lists or lambdas. What stands in no rule
is refused.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

MAX_TOKENS, MAX_DEPTH, MAX_DIGITS = 4096, 50, 1000


class NotAFormulaError(ValueError):
    """The text holds what the grammar has not."""


@dataclass(frozen=True, slots=True)
class Number:
    """Written with a point or an exponent, it is a float, else a whole number, which may be of base 16, 8 or 2."""

    text: str

    @property
    def whole(self) -> bool:
        return self.text.isdecimal() or self.text[:2].lower() in ("0x", "0o", "0b")


@dataclass(frozen=True, slots=True)
class Name:
    text: str


@dataclass(frozen=True, slots=True)
class Signed:
    sign: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Chain:
    """Operators of one rank, applied from the left: first op operand op operand ..."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Power:
    base: Node
    exponent: Node


@dataclass(frozen=True, slots=True)
class Factorial:
    operand: Node
    double: bool


@dataclass(frozen=True, slots=True)
class Call:
    """Something followed by brackets: a function where it is a name, else a product that Python does not read."""

    callee: Node
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Several:
    """Formulas with commas between them."""

    items: tuple[Node, ...]


Node: TypeAlias = Number | Name | Signed | Chain | Power | Factorial | Call | Several

_TOKEN = re.compile(
    r"(?P<skip>[ \t\f]+|\#[^\n]*)|(?P<line>\r?\n)"
    r"|(?P<number>0[xX](?:_?[\da-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+"
    r"|(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:[eE][-+]?\d+(?:_\d+)*)?)"
    r"|(?P<name>[^\W\d]\w*)|(?P<operator>\*\*|//|==|!=|<=|>=|[-+*/%^()<>=,!])",
    re.ASCII,
)
_LETTERS = re.compile(r"[^\W\d]\w*")
_SPLIT = frozenset({"**", "//", "==", "<=", ">="})
"""Operators of two characters, between which SymPy, and so reasoning-gym, reads over spaces."""
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


def parse(text: str) -> Node:
    """The tree of a text that is a formula; else NotAFormulaError."""
    return _Parser(_tokens(text.strip())).whole()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    place, depth, spaced = 0, 0, False
    while place < len(text):
        token, place = _next_token(text, place)
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.kind == "line" and depth <= 0:
            raise NotAFormulaError("a formula stands on one line")
        if token.text == "!" and place > 1 and text[place - 2].isspace():
            raise NotAFormulaError("a factorial's mark follows at once")
        if found and spaced and found[-1].text + token.text in _SPLIT:
            found[-1] = _Token("operator", found[-1].text + token.text)
        elif token.kind not in ("skip", "line"):
            found.append(token)
        spaced = token.kind == "skip"
        if len(found) > MAX_TOKENS or depth > MAX_DEPTH:
            raise NotAFormulaError(f"more than {MAX_TOKENS} parts, or brackets {MAX_DEPTH} deep")
    return found


def _next_token(text: str, place: int) -> tuple[_Token, int]:
    match = _TOKEN.match(text, place) or _LETTERS.match(text, place)
    if match is None:
        raise NotAFormulaError(f"{text[place]!r} has no meaning in a formula")
    token = _Token(match.lastgroup or "name", match.group())
    _check(token)
    return token, match.end()


def _check(token: _Token) -> None:
    if token.kind == "name" and (
        "__" in token.text
        or keyword.iskeyword(token.text)
        or not token.text.isidentifier()
        or unicodedata.normalize("NFKC", token.text) != token.text  # what Python would read as another name
    ):
        raise NotAFormulaError(f"{token.text[:40]!r} is no name for a quantity")
    if token.kind == "number" and (len(token.text) > MAX_DIGITS or re.match(r"0[\d_]*[1-9]\d*$", token.text)):
        raise NotAFormulaError(f"{token.text[:40]!r} is no number, or one of more than {MAX_DIGITS} digits")


class _Parser:
    """One method for each rule; the brackets that `_tokens` counted bound how deep they call each other."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._place = 0

    def whole(self) -> Node:
        tree = self._answer()
        if self._place < len(self._tokens):
            raise NotAFormulaError(f"{self._tokens[self._place].text[:40]!r} is out of place")
        return tree

    def _answer(self) -> Node:
        first = self._comparison()
        if self._next_is(","):
            return Several((first, *self._after_comma()))
        return first

    def _after_comma(self) -> tuple[Node, ...]:
        items = []
        while self._take(","):
            if self._place == len(self._tokens) or self._next_is(")"):
                break
            items.append(self._comparison())
        return tuple(items)

    def _comparison(self) -> Node:
        left = self._xor()
        if operator := self._take(*_COMPARISONS):
            return Chain(left, ((operator, self._xor()),))
        return left

    def _xor(self) -> Node:
        return self._chain(self._sum, "^")

    def _sum(self) -> Node:
        return self._chain(self._term, "+", "-")

    def _term(self) -> Node:
        return self._chain(self._unary, "*", "/", "//", "%")

    def _chain(self, operand: Callable[[], Node], *operators: str) -> Node:
        first, rest = operand(), []
        while operator := self._take(*operators):
            rest.append((operator, operand()))
        return Chain(first, tuple(rest)) if rest else first

    def _unary(self) -> Node:
        signs = []
        while sign := self._take("+", "-"):
            signs.append(sign)
        if len(signs) > MAX_DEPTH:
            raise NotAFormulaError(f"more than {MAX_DEPTH} signs in a row")
        tree = self._power()
        for sign in reversed(signs):
            tree = Signed(sign, tree)
        return tree

    def _power(self) -> Node:
        towers = [self._postfix()]
        signs: list[list[str]] = []
        while self._take("**"):
            before = []
            while sign := self._take("+", "-"):
                before.append(sign)
            signs.append(before)
            towers.append(self._postfix())
        if len(towers) + sum(map(len, signs)) > MAX_DEPTH:
            raise NotAFormulaError(f"powers of powers {MAX_DEPTH} high")
        tree = towers.pop()
        while towers:
            for sign in reversed(signs.pop()):
                tree = Signed(sign, tree)
            tree = Power(towers.pop(), tree)
        return tree

    def _postfix(self) -> Node:
        tree, layers = self._atom(), 0
        while True:
            if self._take("!"):
                tree = Factorial(tree, bool(self._take("!")))
                if self._next_is("!"):
                    raise NotAFormulaError("there is no triple factorial")
            elif self._take("("):
                tree = Call(tree, self._arguments())
            else:
                return tree
            layers += 1
            if layers > MAX_DEPTH:
                raise NotAFormulaError(f"more than {MAX_DEPTH} calls in a row")

    def _arguments(self) -> tuple[Node, ...]:
        if self._take(")"):
            return ()
        first = self._comparison()
        rest = self._after_comma() if self._next_is(",") else ()
        self._must(")")
        return (first, *rest)

    def _atom(self) -> Node:
        if self._take("("):
            tree = self._answer()
            self._must(")")
            return tree
        if self._place == len(self._tokens) or self._tokens[self._place].kind == "operator":
            raise NotAFormulaError("a number or a name is missing")
        token = self._tokens[self._place]
        self._place += 1
        return Number(token.text.replace("_", "")) if token.kind == "number" else Name(token.text)

    def _next_is(self, *operators: str) -> bool:
        if self._place == len(self._tokens):
            return False
        token = self._tokens[self._place]
        return token.kind == "operator" and token.text in operators

    def _take(self, *operators: str) -> str:
        """The operator if it comes next, and it is passed; else nothing."""
        if not self._next_is(*operators):
            return ""
        self._place += 1
        return self._tokens[self._place - 1].text

    def _must(self, operator: str) -> None:
        if not self._take(operator):
            raise NotAFormulaError(f"{operator!r} is missing")
