"""The shipped check of losses, on ours, and on some that are wrong."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from learners.losses import CappedSequence, Loss, Needs, ShapedProbability, loss_of, names
from learners.losses.protocol import Arrays, Tensors
from learners.testing import ConformanceError, check_loss
from mutual_env.errors import MissingExtraError
from mutual_env.types import CrossEntropy, LossSpec, NamedLoss, PolicyGradient

pytestmark = pytest.mark.torch

OURS: list[LossSpec] = [
    PolicyGradient(),
    PolicyGradient(clip_low=0.1, clip_high=0.28, ratio_cap=1.15),
    PolicyGradient(clip_low=math.inf, clip_high=math.inf, ratio_cap=2.0),
    PolicyGradient(ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    PolicyGradient(ratio="sequence", ratio_cap=1.1),
    PolicyGradient(ratio="none"),
    PolicyGradient(ratio_cap=1.5, above_cap="weight"),
    PolicyGradient(ratio_cap=1.5, above_cap="mask"),
    PolicyGradient(ratio="sequence", ratio_cap=1.1, above_cap="weight"),
    PolicyGradient(ratio="sequence", ratio_cap=1.1, above_cap="mask"),
    PolicyGradient(dual_clip=3.0),
    PolicyGradient(ratio="sequence", dual_clip=1.3, ratio_cap=1.4, above_cap="weight"),
    CrossEntropy(),
    ShapedProbability(),
    CappedSequence(),
    CappedSequence(floor=0.5, alpha=3.0, cap=1.2),
    CappedSequence(floor_step=0.0),
]


@pytest.mark.parametrize("spec", OURS, ids=repr)
def test_ours_conform(spec: LossSpec) -> None:
    check_loss(loss_of(spec), seed=0)


@pytest.mark.long
@pytest.mark.parametrize("spec", OURS, ids=repr)
def test_ours_conform_on_other_draws(spec: LossSpec) -> None:
    for seed in range(1, 5):
        check_loss(loss_of(spec), seed=seed)


def test_every_name_has_been_looked_at() -> None:
    assert {spec.name for spec in OURS} >= {"policy_gradient", "cross_entropy", "shaped_probability", "capped_sequence"}
    assert set(names()) >= {spec.name for spec in OURS}


def test_a_name_with_options_is_the_same_loss_as_the_spec() -> None:
    assert loss_of(NamedLoss.of("policy_gradient", clip_low=0.1)) == loss_of(PolicyGradient(clip_low=0.1))
    assert loss_of(NamedLoss.of("capped_sequence", floor=0.5)) == CappedSequence(floor=0.5)


@dataclass(frozen=True, slots=True)
class Plain(Loss):
    """-A log π; each of those below is wrong in one respect."""

    name = "plain"
    power: float = 1.0

    def term(self, at: Tensors) -> Any:
        return -at.advantages * at.log_pi

    def slope(self, at: Arrays) -> Any:
        return -at.advantages * at.log_pi, -at.advantages


class WrongSlope(Plain):
    def slope(self, at: Arrays) -> Any:
        return -at.advantages * at.log_pi, -2.0 * at.advantages


class WrongTerm(Plain):
    def slope(self, at: Arrays) -> Any:
        return at.advantages * at.log_pi, -at.advantages


class TeachesAnyway(Plain):
    def term(self, at: Tensors) -> Any:
        return -at.log_pi

    def slope(self, at: Arrays) -> Any:
        return -at.log_pi, -np.ones_like(at.log_pi)


class LooksAtTheAnchor(Plain):
    def term(self, at: Tensors) -> Any:
        return -at.advantages * (at.log_pi - at.anchor) ** 2

    def slope(self, at: Arrays) -> Any:
        d = at.log_pi - at.anchor
        return -at.advantages * d**2, -2.0 * at.advantages * d


class LooksAtTheMinibatch(Plain):
    def term(self, at: Tensors) -> Any:
        return -at.advantages * at.log_pi * (1 + at.minibatch)

    def slope(self, at: Arrays) -> Any:
        return -at.advantages * at.log_pi * (1 + at.minibatch), -at.advantages * (1 + at.minibatch)


class LooksAround(Plain):
    def term(self, at: Tensors) -> Any:
        return -at.advantages * at.mean_by_example(at.log_pi)

    def slope(self, at: Arrays) -> Any:
        mean = np.full_like(at.log_pi, at.log_pi.mean())
        return -at.advantages * mean, np.full_like(mean, -at.advantages.mean())


class MixesExamples(LooksAround):
    needs = Needs(whole_sequences=True)

    def term(self, at: Tensors) -> Any:
        return -at.advantages * at.log_pi.mean()


class Overflows(Plain):
    needs = Needs(anchor=True)

    def term(self, at: Tensors) -> Any:
        return -at.advantages * (at.log_pi - at.anchor).exp()

    def slope(self, at: Arrays) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            term = -at.advantages * np.exp(at.log_pi - at.anchor)
        return term, term


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (WrongSlope, "the slope in NumPy"),
        (WrongTerm, "the term in NumPy"),
        (TeachesAnyway, "no slope without one"),
        (LooksAtTheAnchor, "needs no anchor"),
        (LooksAtTheMinibatch, "does not need the minibatch"),
        (LooksAround, "does not need whole sequences"),
        (MixesExamples, "must not depend on the other examples"),
        (Overflows, "must be finite"),
    ],
)
def test_the_check_finds_what_is_broken(broken: type[Plain], sentence: str) -> None:
    check_loss(Plain())
    with pytest.raises(ConformanceError, match=sentence):
        check_loss(broken())


@dataclass(frozen=True, slots=True)
class OffByOneSide(Loss):
    """Takes the clipped side for the unclipped one: right everywhere but beyond its own corner."""

    name = "off"
    corner: float = 0.3
    needs = Needs(anchor=True)

    def term(self, at: Tensors) -> Any:
        ratio = (at.log_pi - at.anchor).clamp(-20, 20).exp()
        return -at.advantages * ratio.clamp(max=1.0 + self.corner)

    def slope(self, at: Arrays) -> Any:
        ratio = np.exp(np.clip(at.log_pi - at.anchor, -20, 20))
        inside = ratio <= 1.0 + self.corner + 1e-6
        return -at.advantages * np.minimum(ratio, 1.0 + self.corner), np.where(inside, -at.advantages * ratio, 0.0)


def test_a_corner_that_is_off_by_a_millionth_is_found() -> None:
    with pytest.raises(ConformanceError, match="slope in NumPy"):
        check_loss(OffByOneSide())
    assert replace(OffByOneSide(), corner=0.4).options == {"corner": 0.4}


def test_without_torch_the_check_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mutual-env\[torch\]'"):
        check_loss(loss_of(CrossEntropy()))
