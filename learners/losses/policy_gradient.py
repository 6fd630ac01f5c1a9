"""PPO's clipped ratio, per token or per sequence, and the plain policy gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from learners.losses.protocol import MAX_LOG_RATIO, Arrays, Loss, Needs, Tensors
from mutual_env.types import Floats, PolicyGradient

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class PolicyGradientLoss(PolicyGradient, Loss):
    """What computes `mutual_env.types.PolicyGradient`.

    Without a ratio the value is -A, and the slope that of -A log π.
    """

    @property
    def needs(self) -> Needs:
        return Needs(anchor=self.ratio != "none", whole_sequences=self.ratio == "sequence")

    def term(self, at: Tensors) -> torch.Tensor:
        if self.ratio == "none":
            return -at.advantages * (1.0 + at.log_pi - at.log_pi.detach())
        log_ratio = at.log_pi - at.anchor
        if self.ratio == "sequence":
            log_ratio = at.mean_by_example(log_ratio)
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, self._ceiling).exp()
        clipped = ratio.clamp(1.0 - self.clip_low, 1.0 + self.clip_high)
        return -(ratio * at.advantages).minimum(clipped * at.advantages)

    def slope(self, at: Arrays) -> tuple[Floats, Floats]:
        if self.ratio == "none":
            return -at.advantages * np.ones_like(at.log_pi), -at.advantages
        log_ratio = at.log_pi - at.anchor
        if self.ratio == "sequence":
            log_ratio = np.full_like(log_ratio, log_ratio.mean())
        clamped = np.clip(log_ratio, -MAX_LOG_RATIO, self._ceiling)
        ratio = np.exp(clamped)
        term, by_ratio = self._clipped(ratio, at.advantages)
        by_log_ratio = by_ratio * np.where(clamped == log_ratio, ratio, 0.0)
        if self.ratio == "sequence":
            return term, np.full_like(log_ratio, by_log_ratio.mean())
        return term, by_log_ratio

    def _clipped(self, ratio: Floats, advantages: Floats) -> tuple[Floats, Floats]:
        """-min(ρA, clip(ρ)A) and its slope by ρ: -A where the unclipped side is taken, 0 where the clipped one is."""
        bounded = np.clip(ratio, 1.0 - self.clip_low, 1.0 + self.clip_high) * advantages
        plain = ratio * advantages
        return -np.minimum(plain, bounded), np.where(plain <= bounded, -advantages, 0.0)

    @property
    def _ceiling(self) -> float:
        return min(MAX_LOG_RATIO, math.log(self.ratio_cap) if self.ratio_cap < math.inf else MAX_LOG_RATIO)
