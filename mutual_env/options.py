"""Options out of a configuration, checked by the signature of what takes them: names, what is required, and values.

One mechanism for everything that a configuration names (learners, strategies, task families, verifiers, exchanges,
executors, tokenizer kinds): what a parameter's annotation says is what its option must be. Types that a configuration
cannot hold (a model, a tokenizer that is built) are left to the part itself.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from itertools import repeat
from numbers import Integral, Real
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    Unpack,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)  # fmt: skip

from mutual_env.errors import ConfigError, UnknownNameError

T = TypeVar("T")

MAY_BE_INFINITE = "may be infinite"
Unbounded: TypeAlias = Annotated[float, MAY_BE_INFINITE]
"""A number that infinity is a value of: a cap that caps nothing, say. Every other `float` must be finite."""

PLAIN = (type(None), bool, int, float, str, list, tuple, dict)  # what a configuration can hold
HINTS = "__option_hints__"  # where a factory says the types of options that stand in no signature of its own
_SHOWN = 120  # characters of a wrong value


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One option of a factory: its type, and whether it must be given."""

    name: str
    hint: Any
    required: bool


def options_of(factory: Callable[..., Any]) -> tuple[dict[str, Option], bool]:
    """Name -> option; and whether others are taken too, of which nobody can say what they are."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (ValueError, TypeError):  # some builtins have no signature
        return {}, True
    hints = {**_hints(factory), **getattr(factory, HINTS, {})}
    found: dict[str, Option] = {}
    open_ended = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            if get_origin(hints.get(parameter.name)) is not Unpack:
                open_ended = True
                continue
            (fields,) = get_args(hints[parameter.name])
            needed = fields.__required_keys__
            found |= {name: Option(name, hint, name in needed) for name, hint in _hints(fields).items()}
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            required = parameter.default is parameter.empty
            found[parameter.name] = Option(parameter.name, hints.get(parameter.name, Any), required)
    return found, open_ended


def check_options(
    what: str,
    factory: Callable[..., Any],
    given: Iterable[str] | Mapping[str, Any],
    *,
    also: Iterable[str] = (),
    complete: bool = False,
    provided: Collection[str] = (),
) -> None:
    """Refuse an option that the factory does not take, naming the nearest that it does (or that `also` would); a value
    that is not what its annotation says; and, where they are to be `complete`, one that is missing and not `provided`.
    """
    values = given if isinstance(given, Mapping) else dict.fromkeys(given)
    known, open_ended = options_of(factory) if values or complete else ({}, True)
    for name in values:
        if name not in known and not open_ended:
            raise UnknownNameError.of(f"option of {what}", name, {*known, *also})
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if name in known:
            check_value(f"option {name!r} of {what}", value, known[name].hint)
    for option in known.values() if complete else ():
        if option.required and option.name not in (*values, *provided):
            raise ConfigError(f"{what} needs the option {option.name!r} ({shown(option.hint)})")


def fields_of(what: str, cls: type[T], given: Mapping[str, Any]) -> T:
    """A dataclass out of a mapping of its fields."""
    check_options(what, cls, given, complete=True)
    return cls(**given)


def check_value(where: str, value: Any, hint: Any) -> None:
    """Raise where the value is not of this type."""
    wrong = problem(value, hint)
    if wrong:
        raise ConfigError(f"{where} must be {wrong}")


def typed(item: T) -> T:
    """The same, where its fields hold what their annotations say."""
    for option in options_of(type(item))[0].values():
        check_value(option.name, getattr(item, option.name), option.hint)
    return item


def problem(value: Any, hint: Any) -> str:
    """What it should be, and what it is; "" if nothing is wrong with it."""
    if hint is Any or hint is object or isinstance(hint, (str, ForwardRef)) or not _wrong(value, hint):
        return ""
    inside = _wrong_item(value, hint)
    return f"{shown(hint)}, got {_short(value)}{inside}"


def shown(hint: Any) -> str:
    """A type in the words of somebody who writes a configuration."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{shown(arguments[0])}{' (or .inf)' if MAY_BE_INFINITE in arguments else ''}"
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(shown(each) for each in arguments if _can_be_written(each))) or "left out"
    if origin is not None and issubclass(origin, Mapping):
        return f"a mapping to {shown(arguments[1])}" if arguments and arguments[1] is not Any else "a mapping"
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}: {', '.join(map(shown, arguments))}"
    if origin is not None and issubclass(origin, Iterable):
        return f"a list, each {shown(arguments[0])}" if arguments and arguments[0] is not Any else "a list"
    names = {type(None): "null", bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
    names |= {Path: "a path", Any: "anything", object: "anything"}
    return names.get(hint) or f"{'a mapping with the fields of ' if _has_fields(hint) else ''}{_name(hint)}"


def _wrong(value: Any, hint: Any) -> bool:
    if hint is float:  # most of what a run has written, of which a suite's comparison reads millions
        return _wrong_number(value, hint)
    if hint is type(value) and hint in _EXACT:
        return False
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (Any, object) or isinstance(hint, (str, ForwardRef)):
        return False
    if origin is Annotated:
        infinite = MAY_BE_INFINITE in arguments and isinstance(value, float) and math.isinf(value)
        return not infinite and _wrong(value, arguments[0])
    if origin is Literal:
        return not any(type(value) is type(each) and value == each for each in arguments)
    if origin in (Union, types.UnionType):
        return all(_wrong(value, each) for each in arguments)
    if hint in (None, type(None)):
        return value is not None
    if hint is bool:
        return not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool")
    if hint is int:
        return _wrong_number(value, hint)
    if hint is Path:
        return not isinstance(value, (str, Path)) or "\0" in str(value)
    if origin is tuple or hint is tuple:
        return _wrong_tuple(value, arguments)
    kind = origin or hint
    if is_typeddict(kind):
        return not isinstance(value, Mapping) or bool(_wrong_field(value, kind))
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return not isinstance(value, Mapping) or any(
            _wrong(key, arguments[0]) or _wrong(item, arguments[1]) for key, item in value.items() if arguments
        )
    if isinstance(kind, type) and kind is not str and issubclass(kind, Iterable) and kind.__module__ != "numpy":
        return _wrong_items(value, kind, arguments)
    return _wrong_object(value, kind)


_EXACT = (str, int, bool, type(None))
"""Types of which every value of just this type is right."""


def _wrong_number(value: Any, hint: type) -> bool:
    if type(value) is float and hint is float:
        return not math.isfinite(value)
    if isinstance(value, bool):
        return True
    if hint is int:
        return not isinstance(value, Integral)
    if not isinstance(value, Real):
        return True
    try:
        return not math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return True


def _wrong_tuple(value: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(value, (tuple, list)):
        return True
    if not arguments or arguments[-1] is Ellipsis:
        return any(_wrong(item, arguments[0]) for item in value if arguments)
    return len(value) != len(arguments) or any(map(_wrong, value, arguments))


def _wrong_items(value: Any, kind: type, arguments: tuple[Any, ...]) -> bool:
    """A text is a sequence of texts, as for a type checker: what a single one means is for the part to say."""
    if isinstance(value, str):
        return not issubclass(str, kind) or bool(arguments and _wrong("", arguments[0]))
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        return True
    fits = isinstance(value, (kind, list, tuple))
    return not fits or any(_wrong(item, arguments[0]) for item in value if arguments)


def _wrong_object(value: Any, kind: Any) -> bool:
    if isinstance(kind, type) and not getattr(kind, "_is_protocol", False):
        return not isinstance(value, kind)
    if kind is Callable or isinstance(kind, type):
        return isinstance(value, PLAIN)  # no configuration can hold one
    return False


def _wrong_field(value: Mapping[Any, Any], kind: Any) -> str:
    """Which field of a TypedDict is none, or holds what it cannot; "" if all is well."""
    hints = _hints(kind)
    for key, item in value.items():
        if key not in hints:
            return f": {key!r} is none of {', '.join(hints)}"
        if _wrong(item, hints[key]):
            return f": {key} must be {shown(hints[key])}"
    return ""


def _wrong_item(value: Any, hint: Any) -> str:
    """Where in a list or a mapping the fault is, if that is where."""
    kinds = [hint] if get_origin(hint) not in (Union, types.UnionType) else list(get_args(hint))
    for kind in kinds:
        arguments = get_args(kind)
        if isinstance(value, Mapping) and is_typeddict(kind):
            return _wrong_field(value, kind)
        if isinstance(value, Mapping) and len(arguments) == 2 and _is_a(get_origin(kind), Mapping):
            for key, item in value.items():
                if _wrong(item, arguments[1]):
                    return f": at {key!r} stands {_short(item)}"
        elif isinstance(value, (list, tuple)) and arguments and _is_a(get_origin(kind), Collection):
            each = arguments if get_origin(kind) is tuple and arguments[-1] is not Ellipsis else repeat(arguments[0])
            for at, (item, inner) in enumerate(zip(value, each, strict=False), start=1):
                if _wrong(item, inner):
                    return f": item {at} is {_short(item)}"
    return ""


def _is_a(kind: Any, parent: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, parent)


def _can_be_written(hint: Any) -> bool:
    """Whether a configuration can hold such a value."""
    origin = get_origin(hint)
    if origin in (Annotated, Literal, Union, types.UnionType):
        return True
    kind = origin or hint
    return kind in (*PLAIN, Path, Any, object) or is_typeddict(kind) or _is_a(kind, Iterable)


def _has_fields(hint: Any) -> bool:
    return is_typeddict(hint) or dataclasses.is_dataclass(hint)


@cache
def _hints(of: Any) -> dict[str, Any]:
    """The annotations, resolved; of a class those of its constructor. One that cannot be resolved is left out."""
    if isinstance(of, type) and not is_typeddict(of) and not dataclasses.is_dataclass(of):
        of = getattr(of, "__init__")  # noqa: B009  (of the class itself, which is given)
    try:
        return get_type_hints(of, include_extras=True)
    except Exception:  # a boundary: an annotation may name what is imported for type checkers alone
        return {}


def _name(hint: Any) -> str:
    return str(getattr(hint, "__name__", hint))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
