"""Losses by name: ours, those of installed packages (entry-point group `mutual_env.losses`), a program's own."""

from __future__ import annotations

from functools import cache

from learners.losses.protocol import Loss, Needs
from mutual_env.catalogue import Catalogue
from mutual_env.errors import InvalidInputError
from mutual_env.options import check_options
from mutual_env.types import LossSpec

_CATALOGUE: Catalogue[type[Loss]] = Catalogue(
    "loss",
    "mutual_env.losses",
    {
        "policy_gradient": "learners.losses.policy_gradient:PolicyGradientLoss",
        "cross_entropy": "learners.losses.cross_entropy:CrossEntropyLoss",
        "shaped_probability": "learners.losses.shaped_probability:ShapedProbability",
        "capped_sequence": "learners.losses.capped_sequence:CappedSequence",
    },
)


def register(name: str, target: str | type[Loss]) -> None:
    """Make `NamedLoss.of(name, ...)` mean `target`: a subclass of `Loss`, or "module:attribute", imported when it is
    first needed."""
    _CATALOGUE.register(name, target)


def names() -> list[str]:
    """Every loss that a lesson can name."""
    return _CATALOGUE.names()


def target(name: str) -> str | type[Loss]:
    """What a name stands for, not yet imported."""
    return _CATALOGUE.target(name)


@cache
def loss_of(spec: LossSpec) -> Loss:
    """What computes this loss. A spec that computes itself is taken as it is."""
    if isinstance(spec, Loss):
        return spec
    if not isinstance(spec, LossSpec):
        raise InvalidInputError(
            f"a lesson's loss must be a LossSpec, such as PolicyGradient() or NamedLoss.of(name), got {spec!r}"
        )
    make = _CATALOGUE.load(spec.name)
    check_options(f"loss {spec.name!r}", make, list(spec.options))
    loss = make(**spec.options)
    if not isinstance(loss, Loss):
        raise InvalidInputError(
            f"loss {spec.name!r} must be a subclass of learners.losses.Loss, it is a {type(loss).__name__}"
        )
    return loss


@cache
def needs_of(spec: LossSpec) -> Needs:
    """What it needs, found once."""
    return loss_of(spec).needs
