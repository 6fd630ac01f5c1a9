"""Chat templates, rendered within bounds.

A template comes with a model and is a program. Jinja's sandbox keeps it from reaching anything outside; it does not
keep it from building ten gigabytes out of ten characters, or from counting to 10^10. Here every call, loop, filter and
sum is charged to a budget of time and of characters, and what would not fit is refused before it is made.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import cache, wraps
from typing import Any

from mutual_env.errors import InvalidInputError, MissingExtraError
from mutual_env.types import Message

MAX_SECONDS = 2.0  # processor time of one rendering
MAX_CHARACTERS = 256 << 20  # of everything that one rendering makes, intermediate results included
MAX_NUMBER = 1_000_000  # the largest number that a filter, a method or a repetition takes
MAX_NODES = 100_000  # items of one list or mapping, nested ones included
MAX_SOURCE = 1 << 20


class TemplateBoundsError(InvalidInputError):
    """A template that would take more than a rendering may."""


@dataclass(slots=True)
class _Budget:
    """What is left of one rendering."""

    deadline: float
    characters: int
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps % 64 == 0 and time.thread_time() > self.deadline:
            raise TemplateBoundsError(f"chat template takes more than {MAX_SECONDS:g} s: shorten it, or choose another")

    def charge(self, characters: int) -> None:
        self.step()
        self.characters -= characters
        if self.characters < 0:
            raise TemplateBoundsError(
                f"chat template makes more than {MAX_CHARACTERS:,} characters: shorten it, or choose another"
            )


_BUDGET: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def _budget() -> Iterator[None]:
    token = _BUDGET.set(_Budget(time.thread_time() + MAX_SECONDS, MAX_CHARACTERS))
    try:
        yield
    finally:
        _BUDGET.reset(token)


class ChatTemplate:
    """A template and the variables that stand for its vocabulary's special tokens."""

    def __init__(self, source: str, variables: Mapping[str, str] | None = None) -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateBoundsError(f"chat template has {len(source):,} characters, {MAX_SOURCE:,} are allowed")
        self.source = source
        self.variables = dict(variables or {})

    def __repr__(self) -> str:
        return f"<ChatTemplate of {len(self.source)} characters>"

    def render(self, messages: Sequence[Message], *, generation: bool) -> str:
        """The conversation as text; with `generation`, up to where the policy goes on."""
        shown = [dict(message) for message in messages]
        try:
            with _budget():
                text: str = _compiled(self.source).render(
                    messages=shown, tools=None, documents=None, add_generation_prompt=generation, **self.variables
                )
        except TemplateBoundsError:
            raise
        except Exception as error:  # what a template does wrong, Jinja says in many ways
            raise InvalidInputError(f"chat template cannot render the prompt: {str(error)[:500]}") from error
        return text


@cache
def _compiled(source: str) -> Any:
    return _environment().from_string(source)


@cache
def _environment() -> Any:
    """Jinja's sandbox with a meter in it, and what chat templates may expect beside."""
    environment = _sandbox()
    environment.filters = {name: _bounded(name, f) for name, f in environment.filters.items()}
    environment.filters |= {"tojson": _bounded("tojson", _tojson), "_joined": _joined, "_counted": _counted}
    environment.filters["_built"] = _made
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    environment.globals |= {"namespace": _namespace(), "raise_exception": _raise, "strftime_now": _strftime_now}
    return environment


def _sandbox() -> Any:
    try:
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingExtraError.of("a chat template", "tokenizers") from error

    class Generation(Extension):
        """`{% generation %}` marks what the policy wrote; there is nothing to do about it here."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Metered(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("+", "*", "**", "%"))
        concat = staticmethod(_concat)

        def _generate(self, source: Any, *args: Any, **kwargs: Any) -> Any:
            return super()._generate(_metered(source), *args, **kwargs)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_operation(operator, left, right)
            return _made(super().call_binop(context, operator, left, right))

        def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
            _check_arguments(getattr(obj, "__self__", None), getattr(obj, "__name__", ""), (*args, *kwargs.values()))
            return _made(super().call(context, obj, *args, **kwargs))

    return Metered(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])


def _namespace() -> Any:
    import jinja2

    class Namespace(jinja2.utils.Namespace):
        """Jinja's, but for names that begin with an underscore."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a chat template may not set {name!r}")
            super().__setitem__(name, _made(value))

    return Namespace


def _metered(source: Any) -> Any:
    """The parsed template with a meter at every loop, every joining of texts and every list that it writes."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    def through(node: Any, name: str) -> Any:
        return nodes.Filter(node, name, [], [], None, None).set_lineno(node.lineno)

    class Meter(NodeTransformer):
        def visit_For(self, node: Any) -> Any:
            self.generic_visit(node)
            node.iter = through(node.iter, "_counted")
            return node

        def visit_Concat(self, node: Any) -> Any:
            self.generic_visit(node)
            return through(nodes.List(node.nodes).set_lineno(node.lineno), "_joined")

        def visit_List(self, node: Any) -> Any:
            self.generic_visit(node)
            return through(node, "_built")

        def visit_Dict(self, node: Any) -> Any:
            return self.visit_List(node)

        def visit_Tuple(self, node: Any) -> Any:
            return self.visit_List(node) if node.ctx == "load" else node

    return Meter().visit(source)


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments are looked at before it runs, and whose result afterwards."""

    @wraps(function)  # with what Jinja writes on a function to say that it wants the context first
    def bounded(*args: Any, **kwargs: Any) -> Any:
        given = args[1:] if hasattr(function, "jinja_pass_arg") else args
        _check_arguments(given[0] if given else None, name, (*given[1:], *kwargs.values()))
        return _made(function(*args, **kwargs))

    return bounded


def _concat(parts: Iterable[str]) -> str:
    budget, out = _BUDGET.get(), []
    for part in parts:
        budget.charge(len(part))
        out.append(part)
    return "".join(out)


def _joined(parts: Sequence[Any]) -> str:
    return _concat(str(_made(part)) for part in parts)


def _counted(items: Iterable[Any]) -> Iterable[Any]:
    """The items of a loop. What has a length keeps it, for `loop.last` and the like."""
    return _CountedSequence(items) if isinstance(items, Sequence) else _counting(items)


def _counting(items: Iterable[Any]) -> Iterator[Any]:
    budget = _BUDGET.get()
    for item in items:
        budget.step()
        yield item


class _CountedSequence:
    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return _counting(self._items)


def _made(value: Any) -> Any:
    """A new value, charged with its characters, or with the number of its items."""
    budget = _BUDGET.get()
    budget.charge(len(value) if isinstance(value, str) else 0)
    if isinstance(value, (list, tuple, dict)):
        budget.charge(_nodes(value))
    elif isinstance(value, int) and value.bit_length() > MAX_NUMBER:
        raise TemplateBoundsError("chat template makes a number of more than a million bits")
    return value


def _nodes(value: Any) -> int:
    """How many items there are in it, counted as often as they are met: that is what printing it costs."""
    waiting, count = [value], 0
    while waiting:
        item = waiting.pop()
        children = list(item.values()) if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ()
        count += len(children)
        if count > MAX_NODES:
            raise TemplateBoundsError(f"chat template makes a list of more than {MAX_NODES:,} items")
        waiting += children
    return count


_WIDE_FIELD = re.compile(r"\d{6,}")


def _check_operation(operator: str, left: Any, right: Any) -> None:
    size = 0
    if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        size = len(left) + len(right)
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            size = max(size, len(many) * times if hasattr(many, "__len__") and isinstance(times, int) else 0)
        if isinstance(left, int) and isinstance(right, int):
            size = left.bit_length() + right.bit_length()
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        size = left.bit_length() * right
    elif operator == "%" and isinstance(left, str):
        _check_arguments(left, "format", right if isinstance(right, tuple) else (right,))
    if size > MAX_CHARACTERS or (operator in ("*", "**") and size > 8 * MAX_NUMBER):
        raise TemplateBoundsError(f"chat template makes something of {size:,} characters with {operator!r}")


def _check_arguments(subject: Any, name: str, arguments: Sequence[Any]) -> None:
    """Refuse arguments with which a filter or a method makes far more than it was given."""
    for value in arguments:
        if isinstance(value, (int, float)) and abs(value) > MAX_NUMBER:
            raise TemplateBoundsError(f"chat template calls {name!r} with {value}, {MAX_NUMBER:,} is the most")
    if name in ("format", "format_map") and isinstance(subject, str) and _WIDE_FIELD.search(subject):
        raise TemplateBoundsError(f"chat template formats with a field as wide as {_WIDE_FIELD.findall(subject)[0]}")
    texts = [len(value) for value in arguments if isinstance(value, str)]
    texts += [max(map(len, v.values()), default=0) for v in arguments if name == "translate" and isinstance(v, dict)]
    if texts and hasattr(subject, "__len__") and len(subject) * max(texts) > MAX_CHARACTERS:
        raise TemplateBoundsError(f"chat template calls {name!r} with texts of {len(subject):,} and {max(texts):,}")


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, **more)


def _raise(message: str) -> str:
    raise InvalidInputError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
