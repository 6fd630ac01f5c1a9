"""Learners by name: ours, those of installed packages (entry-point group `mutual_env.learners`), a program's own."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any

from learners.protocol import Learner
from mutual_env.errors import InvalidInputError, UnknownNameError

LearnerFactory = Callable[..., Learner]

ENTRY_POINT_GROUP = "mutual_env.learners"

# Where each lives, not what it is: importing this module loads no torch.
_targets: dict[str, str | LearnerFactory] = {
    "tabular": "learners.tabular:TabularLearner",
    "torch": "learners.torch.learner:make_torch",
    "tiny": "learners.tiny:make_tiny",
    "openrlhf": "learners.openrlhf:make_openrlhf",
    "openrlhf_ray": "learners.openrlhf.cluster:make_openrlhf_ray",
    "vllm": "learners.vllm.make:make_vllm",
}


def register(name: str, target: str | LearnerFactory) -> None:
    """Make `make(name, ...)` call `target`: a callable, or "module:attribute", imported when it is first needed."""
    if isinstance(target, str) and target.count(":") != 1:
        raise InvalidInputError(f"target of learner {name!r} must read 'module:attribute', got {target!r}")
    _targets[name] = target


def names() -> list[str]:
    """Every name that `make` knows."""
    return sorted({*_targets, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def make(name: str, /, **config: Any) -> Learner:
    """The learner registered as `name`: `make("torch", name="policy_0", path="models/smollm2")`."""
    check_options(name, config)
    return _factory(name)(**config)


def options(name: str) -> list[str]:
    """The options that the learner registered as `name` takes."""
    return list(inspect.signature(_factory(name)).parameters)


def check_options(name: str, config: Iterable[str]) -> None:
    """Raise on an option that the learner does not take, naming the nearest that it does."""
    parameters = inspect.signature(_factory(name)).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in config:
        if option not in parameters:
            raise UnknownNameError.of(f"option of learner {name!r}", option, parameters)


def takes(options_class: type) -> Callable[[LearnerFactory], LearnerFactory]:
    """A factory with `**options` that are the fields of this dataclass shows each of them in its signature."""

    def decorate(factory: LearnerFactory) -> LearnerFactory:
        signature = inspect.signature(factory)
        own = {p.name: p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD}
        fields = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in dataclasses.fields(options_class)
            if f.name not in own
        ]
        shown = signature.replace(parameters=[*own.values(), *fields])
        setattr(factory, "__signature__", shown)  # noqa: B010  (what inspect.signature reads)
        return factory

    return decorate


def _factory(name: str) -> LearnerFactory:
    target = _targets.get(name)
    if target is None:
        found = [point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == name]
        if not found:
            raise UnknownNameError.of("learner", name, names())
        loaded: LearnerFactory = found[0].load()
        return loaded
    if callable(target):
        return target
    module, attribute = target.split(":")
    factory: LearnerFactory = getattr(importlib.import_module(module), attribute)
    return factory
