"""Learners by name: ours, those of installed packages (entry-point group `mutual_env.learners`), a program's own."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from learners.protocol import Learner
from mutual_env import catalogue
from mutual_env.catalogue import Catalogue

LearnerFactory = Callable[..., Learner]
F = TypeVar("F", bound=Callable[..., object])

_CATALOGUE: Catalogue[LearnerFactory] = Catalogue(
    "learner",
    "mutual_env.learners",
    {
        "tabular": "learners.tabular:TabularLearner",
        "torch": "learners.torch.learner:make_torch",
        "tiny": "learners.tiny:make_tiny",
        "openrlhf": "learners.openrlhf:make_openrlhf",
        "openrlhf_ray": "learners.openrlhf.cluster.learner:make_openrlhf_ray",
        "vllm": "learners.vllm.make:make_vllm",
    },
)


def register(name: str, target: str | LearnerFactory) -> None:
    """Make `make(name, ...)` call `target`: a callable, or "module:attribute", imported when it is first needed."""
    _CATALOGUE.register(name, target)


def names() -> list[str]:
    """Every name that `make` knows."""
    return _CATALOGUE.names()


def make(name: str, /, **config: Any) -> Learner:
    """The learner registered as `name`: `make("torch", name="policy_0", path="models/smollm2")`."""
    check_options(name, config)
    return _CATALOGUE.load(name)(**config)


def target(name: str) -> str | LearnerFactory:
    """What a name stands for, not yet imported."""
    return _CATALOGUE.target(name)


def options(name: str) -> list[str]:
    """The options that the learner registered as `name` takes."""
    return list(inspect.signature(_CATALOGUE.load(name)).parameters)


def check_options(name: str, config: Iterable[str]) -> None:
    """Raise on an option that the learner does not take, naming the nearest that it does."""
    catalogue.check_options(f"learner {name!r}", _CATALOGUE.load(name), config)


def takes(options_class: type) -> Callable[[F], F]:
    """A factory with `**options` that are the fields of this dataclass shows each of them in its signature."""

    def decorate(factory: F) -> F:
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
