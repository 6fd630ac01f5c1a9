"""Learners by name: ours, those of installed packages (entry-point group `mutual_env.learners`), a program's own."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from learners.protocol import Learner
from mutual_env import options as typed
from mutual_env.catalogue import Catalogue
from mutual_env.errors import InvalidInputError, MissingExtraError, UnknownNameError

LearnerFactory = Callable[..., Learner]
F = TypeVar("F", bound=Callable[..., object])

EXTRAS = {
    "torch": "torch",
    "tiny": "torch",
    "openrlhf": "openrlhf",
    "openrlhf_ray": "openrlhf",
    "vllm": "vllm",
}
"""Of our learners: the extra that each needs."""

_CATALOGUE: Catalogue[LearnerFactory] = Catalogue(
    "learner",
    "mutual_env.learners",
    {
        "tabular": "learners.tabular:TabularLearner",
        "torch": "learners.torch.make:make_torch",
        "tiny": "learners.tiny:make_tiny",
        "openrlhf": "learners.openrlhf.make:make_openrlhf",
        "openrlhf_ray": "learners.openrlhf.make:make_openrlhf_ray",
        "vllm": "learners.vllm.make:make_vllm",
    },
)
_SPREADS = "__spreads__"  # whether a factory's learner starts actors of its own
_BESIDE = "__beside__"  # and when they would not be in each other's way there
_SHARED = "__shared__"  # the option that names what every learner of a factory would share
_INNER = "__inner__"  # the option that names the learner inside
_BUILDER = "__builder__"  # where a factory's heavy part is found
_REPLACED = "__replaced__"  # options that a factory does not take, and what to say instead
_OPTION_CLASSES = "__option_classes__"  # the dataclasses whose fields a factory takes as options


def register(name: str, target: str | LearnerFactory) -> None:
    """Make `make(name, ...)` call `target`: a callable, or "module:attribute", imported when it is first needed."""
    _CATALOGUE.register(name, target)


def names() -> list[str]:
    """Every name that `make` knows."""
    return _CATALOGUE.names()


def make(name: str, /, **config: Any) -> Learner:
    """The learner registered as `name`: `make("torch", name="policy_0", path="models/smollm2")`."""
    check_options(name, config)
    return _load(name)(**config)


def target(name: str) -> str | LearnerFactory:
    """What a name stands for, not yet imported."""
    return _CATALOGUE.target(name)


def options(name: str, given: Mapping[str, Any] | None = None) -> list[str]:
    """The options that the learner registered as `name` takes; those of the learner inside it too (see `wraps`)."""
    factory, inside = _load(name), inner(name, given or {})
    taken, replaced = dict.fromkeys(inspect.signature(factory).parameters), set(_replaced(factory))
    if inside is not None:
        taken |= dict.fromkeys(options(inside, given))
        replaced |= _replaced(_load(inside)).keys()
    return [key for key in taken if key not in replaced]


def value(name: str, given: Mapping[str, Any], option: str) -> Any:
    """What the learner is given of an option, or takes by itself; None where it takes no such option."""
    if option not in options(name, given) or option in given:
        return given.get(option)
    own, inside = inspect.signature(_load(name)).parameters, inner(name, given)
    return own[option].default if option in own or inside is None else value(inside, given, option)


def check_options(name: str, config: Mapping[str, Any], *, complete: bool = False) -> None:
    """Raise on an option that the learner does not take, naming the nearest that it does, and on a wrong value."""
    factory, inside = _load(name), inner(name, config)
    _check_replaced(name, factory, config)
    if inside is None:
        typed.check_options(f"learner {name!r}", factory, config, complete=complete)
        return
    own = inspect.signature(factory).parameters
    typed.check_options(f"learner {name!r}", factory, {k: v for k, v in config.items() if k in own}, complete=complete)
    _check_replaced(inside, _load(inside), config)
    rest = {key: value for key, value in config.items() if key not in own}
    typed.check_options(f"learner {name!r} around {inside!r}", _load(inside), rest, also=own)


def inner(name: str, given: Mapping[str, Any]) -> str | None:
    """The learner inside that of this name, as its options choose it; None where it holds no other."""
    factory = _load(name)
    key: str | None = getattr(factory, _INNER, None)
    if key is None:
        return None
    chosen = given.get(key) or inspect.signature(factory).parameters[key].default
    typed.check_value(f"option {key!r} of learner {name!r}", chosen, str)
    others = [other for other in names() if other != name]
    if chosen not in others:
        raise UnknownNameError.of(f"{key} of learner {name!r}", chosen, others)
    return str(chosen)


def spreads(name: str, given: Mapping[str, Any]) -> bool:
    """Whether the learner of this name, or the one inside it, starts actors of its own on a cluster."""
    inside = inner(name, given)
    return bool(getattr(_load(name), _SPREADS, False)) or (inside is not None and spreads(inside, given))


def on_a_cluster(factory: F) -> F:
    """A factory whose learner starts actors of its own on Ray, one on each GPU."""
    setattr(factory, _SPREADS, True)
    return factory


def shared(name: str, given: Mapping[str, Any]) -> str | None:
    """The option, among those given, that names something outside which a copy of the learner would share with it."""
    option: str | None = getattr(_load(name), _SHARED, None)
    return option if option is not None and given.get(option) else None


def overwritten(name: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """The places, by what the option that names them says, where the learner's weights replace those of any other."""
    option, beside = shared(name, given), getattr(_load(name), _BESIDE, None)
    if option is None or (beside is not None and given.get(beside[0]) == beside[1]):
        return ()
    return tuple(place.strip().rstrip("/") for place in str(given[option]).split(","))


def shares(option: str, *, beside: tuple[str, str] | None = None) -> Callable[[F], F]:
    """A factory whose learner writes its weights where its option of this name says, over those that are there; beside
    them where another option has this value."""

    def decorate(factory: F) -> F:
        setattr(factory, _SHARED, option)
        setattr(factory, _BESIDE, beside)
        return factory

    return decorate


def wraps(option: str) -> Callable[[F], F]:
    """A factory around another learner, which its option of this name chooses, takes the options of that one too."""

    def decorate(factory: F) -> F:
        setattr(factory, _INNER, option)
        return factory

    return decorate


def replaces(table: Mapping[str, str]) -> Callable[[F], F]:
    """A factory that does not take these options, though a library it uses or a learner it stands for has them: each
    is refused with what to say instead."""

    def decorate(factory: F) -> F:
        setattr(factory, _REPLACED, table)
        return factory

    return decorate


def check(name: str, config: Mapping[str, Any]) -> None:
    """Whether `make` would accept this, found out without building what is slow to build.

    A factory may have `dry_run`, which is called with the same arguments and raises where they make no sense.
    """
    factory = _load(name)
    check_options(name, config, complete=True)
    for options_class in getattr(factory, _OPTION_CLASSES, ()):
        fields = {field.name for field in dataclasses.fields(options_class)}
        options_class(**{key: value for key, value in config.items() if key in fields})
    dry_run = getattr(factory, "dry_run", None)
    if dry_run is not None:
        dry_run(**config)


def takes(options_class: type) -> Callable[[F], F]:
    """A factory with `**options` that are the fields of this dataclass shows each of them in its signature."""

    def decorate(factory: F) -> F:
        # On a class's constructor, not on the class: a subclass with its own constructor has its own signature.
        taking = getattr(factory, "__init__") if isinstance(factory, type) else factory  # noqa: B009
        signature = inspect.signature(taking)
        own = {p.name: p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD}
        fields = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in dataclasses.fields(options_class)
            if f.name not in own
        ]
        shown = signature.replace(parameters=[*own.values(), *fields])
        setattr(taking, "__signature__", shown)  # noqa: B010  (what inspect.signature reads)
        hints = {**getattr(factory, typed.HINTS, {}), **get_type_hints(options_class, include_extras=True)}
        setattr(factory, typed.HINTS, hints)
        setattr(factory, _OPTION_CLASSES, (*getattr(factory, _OPTION_CLASSES, ()), options_class))
        return factory

    return decorate


def tried_by(dry_run: Callable[..., None]) -> Callable[[LearnerFactory], LearnerFactory]:
    """A factory whose arguments `check` tries with this: see there."""

    def decorate(factory: LearnerFactory) -> LearnerFactory:
        setattr(factory, "dry_run", dry_run)  # noqa: B010  (an attribute of a function)
        return factory

    return decorate


def built_by(target: str) -> Callable[[F], F]:
    """A factory that is light itself, and loads the "module:attribute" that builds the learner when it is called."""

    def decorate(factory: F) -> F:
        setattr(factory, _BUILDER, target)
        return factory

    return decorate


def module(name: str) -> str:
    """What must be loaded before a learner of this name can be built; the heavy part of it where there is one."""
    factory = _load(name)
    builder: str | None = getattr(factory, _BUILDER, None)
    return builder.partition(":")[0] if builder else factory.__module__


def _replaced(factory: LearnerFactory) -> Mapping[str, str]:
    table: Mapping[str, str] = getattr(factory, _REPLACED, {})
    return table


def _check_replaced(name: str, factory: LearnerFactory, config: Mapping[str, Any]) -> None:
    for option, remedy in _replaced(factory).items():
        if option in config:
            raise InvalidInputError(f"{option} is no option of learner {name!r}: {remedy}")


def _load(name: str) -> LearnerFactory:
    try:
        return _CATALOGUE.load(name)
    except ModuleNotFoundError as error:
        if name not in EXTRAS:
            raise
        raise MissingExtraError.of(f"learner {name!r} (no module {error.name!r})", EXTRAS[name]) from error
