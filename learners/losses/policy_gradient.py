"""PPO's clipped ratio, per token or per sequence, and the plain policy gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from learners.losses.protocol import MAX_LOG_RATIO, Arrays, Loss, Needs, Tensors
from mutual_env.types import Floats, PolicyGradient

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class PolicyGradientLoss(PolicyGradient, Loss):
    """What computes `mutual_env.types.PolicyGradient`.

    Without a ratio the value is -A, and the slope that of -A log π.
    """

    several_sequences: ClassVar[bool] = True

    @property
    def needs(self) -> Needs:
        return Needs(anchor=self.ratio != "none", whole_sequences=self.ratio == "sequence")

    def term(self, at: Tensors) -> torch.Tensor:
        if self.ratio == "none":
            return -at.advantages * (1.0 + at.log_pi - at.log_pi.detach())
        log_ratio = at.log_pi - at.anchor
        if self.ratio == "sequence":
            log_ratio = at.mean_by_example(log_ratio)
        clamped = log_ratio.clamp(-MAX_LOG_RATIO, self._ceiling)
        if self.above_cap == "weight":  # the value is cut, its gradient is the value's
            clamped = log_ratio + (clamped - log_ratio).detach()
        ratio, a = clamped.exp(), at.advantages
        value = -(ratio * a).minimum(ratio.clamp(1.0 - self.clip_low, 1.0 + self.clip_high) * a)
        if self.dual_clip < math.inf:
            value = value.minimum((-self.dual_clip * a).where(a < 0.0, math.inf))
        return value * (log_ratio <= self._ceiling) if self.above_cap == "mask" else value

    def slope(self, at: Arrays) -> tuple[Floats, Floats]:
        if self.ratio == "none":
            return -at.advantages * np.ones_like(at.log_pi), -at.advantages
        log_ratio = self._log_ratio(at)
        clamped = np.clip(log_ratio, -MAX_LOG_RATIO, self._ceiling)
        term, by_ratio = self._clipped(np.exp(clamped), at.advantages)
        moves = np.ones_like(clamped) if self.above_cap == "weight" else clamped == log_ratio
        by_log_ratio = by_ratio * np.where(moves, np.exp(clamped), 0.0)
        if self.above_cap == "mask":
            term = term * (log_ratio <= self._ceiling)
        if self.ratio == "sequence":
            return term, np.full_like(log_ratio, by_log_ratio.mean(axis=-1, keepdims=True))
        return term, by_log_ratio

    def beyond_cap(self, at: Arrays) -> npt.NDArray[np.bool_] | None:
        if self.ratio == "none" or self.ratio_cap == math.inf:
            return None
        passed: npt.NDArray[np.bool_] = self._log_ratio(at) > self._ceiling
        return passed

    def _log_ratio(self, at: Arrays) -> Floats:
        log_ratio = at.log_pi - at.anchor
        if self.ratio != "sequence":
            return log_ratio
        return np.full_like(log_ratio, log_ratio.mean(axis=-1, keepdims=True))

    def _clipped(self, ratio: Floats, advantages: Floats) -> tuple[Floats, Floats]:
        """-min(ρA, clip(ρ)A), at most dual_clip |A| where A < 0, and its slope by ρ: -A where the plain side is taken,
        0 where a clipped one is."""
        bounded = np.clip(ratio, 1.0 - self.clip_low, 1.0 + self.clip_high) * advantages
        plain = ratio * advantages
        term, slope = -np.minimum(plain, bounded), np.where(plain <= bounded, -advantages, 0.0)
        if self.dual_clip < math.inf:
            most = np.where(advantages < 0.0, -self.dual_clip * advantages, math.inf)
            slope, term = np.where(term > most, 0.0, slope), np.minimum(term, most)
        return term, slope

    @property
    def _ceiling(self) -> float:
        return min(MAX_LOG_RATIO, math.log(self.ratio_cap) if self.ratio_cap < math.inf else MAX_LOG_RATIO)
