"""Which loss a lesson asks for, by name and options. What computes it is in `learners.losses`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from mutual_env.errors import InvalidInputError

Scalar: TypeAlias = "bool | int | float | str | None"
Aggregation: TypeAlias = Literal["token_mean", "sequence_mean", "constant"]


class LossSpec:
    """Which loss a lesson asks for: the name by which `learners.losses` finds it, and its options.

    A subclass is a frozen dataclass of numbers and texts: it can be hashed, compared, sent elsewhere and written as
    JSON, and it computes nothing, so that a strategy needs no tensor library to name it.
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        raise NotImplementedError

    @property
    def options(self) -> Mapping[str, Scalar]:
        return {option.name: getattr(self, option.name) for option in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class NamedLoss(LossSpec):
    """Any loss by its name: `NamedLoss.of("capped_sequence", floor=0.8)`."""

    loss: str
    given: tuple[tuple[str, Scalar], ...] = ()

    @classmethod
    def of(cls, name: str, **options: Scalar) -> NamedLoss:
        return cls(name, tuple(sorted(options.items())))

    @property
    def name(self) -> str:
        return self.loss

    @property
    def options(self) -> Mapping[str, Scalar]:
        return dict(self.given)


@dataclass(frozen=True, slots=True)
class PolicyGradient(LossSpec):
    """-min(ρ A, clip(ρ, 1-clip_low, 1+clip_high) A), ρ = exp(log π - anchor).

    `ratio`: per token; per sequence (length-normalised, as in GSPO); or none (ρ = 1, the plain gradient A ∇ log π).
    Above `ratio_cap`, ρ is the cap, and `above_cap` says what is left of its gradient: none ("clamp"), that of a
    truncated importance weight, cap · A ("weight"), or nothing of the term at all ("mask").
    `dual_clip` c: where A < 0, the term is at most c |A|, so that no failure weighs more, however likely it has become.
    """

    name = "policy_gradient"

    clip_low: float = 0.2
    clip_high: float = 0.2
    ratio: Literal["token", "sequence", "none"] = "token"
    ratio_cap: float = math.inf
    above_cap: Literal["clamp", "weight", "mask"] = "clamp"
    dual_clip: float = math.inf

    def __post_init__(self) -> None:
        for side in ("clip_low", "clip_high"):
            if not getattr(self, side) >= 0.0:
                raise InvalidInputError(f"{side} must be at least 0, got {getattr(self, side)}: 0.2 is usual")


@dataclass(frozen=True, slots=True)
class CrossEntropy(LossSpec):
    """-log π; the coefficient is the lesson's weight.

    `denominator`: the mean is over cross-entropy tokens alone ("own"), so that all imitation of an optimizer step
    weighs as much however little there is; or the sum is divided by what the step's policy-gradient terms are divided
    by ("policy_gradient"), so that a sample that is imitated weighs as much as an own one of its length with |A| = 1,
    whatever else is in the step.
    """

    name = "cross_entropy"

    denominator: Literal["own", "policy_gradient"] = "own"
