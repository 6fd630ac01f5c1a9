"""HACPO's objective for samples that others wrote."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from learners.losses.protocol import MAX_LOG_RATIO, Arrays, Loss, Needs, Tensors
from mutual_env.types import Floats

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class CappedSequence(Loss):
    """-s_c stopgrad(s_c)^alpha A with s = exp(mean log π - mean anchor), s_c = clamp(s, floor + floor_step m, cap),
    m = index of the minibatch within the update."""

    name = "capped_sequence"
    several_sequences: ClassVar[bool] = True

    floor: float = 0.8
    floor_step: float = 0.025
    cap: float = 1.0
    alpha: float = 1.0

    @property
    def needs(self) -> Needs:
        return Needs(anchor=True, whole_sequences=True, minibatch=self.floor_step != 0.0)

    def term(self, at: Tensors) -> torch.Tensor:
        s = at.mean_by_example(at.log_pi - at.anchor).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        capped = s.clamp(self._floor(at.minibatch), self.cap)
        return -capped * capped.detach() ** self.alpha * at.advantages

    def slope(self, at: Arrays) -> tuple[Floats, Floats]:
        mean = (at.log_pi - at.anchor).mean(axis=-1, keepdims=True)
        clamped = np.clip(mean, -MAX_LOG_RATIO, MAX_LOG_RATIO)
        s = np.array([math.exp(each) for each in clamped.flat]).reshape(mean.shape)  # the same bits on any processor
        floor = self._floor(at.minibatch)
        capped = np.clip(s, floor, self.cap)
        term = -capped * capped**self.alpha * at.advantages
        slope = -(capped**self.alpha) * np.where((floor <= s) & (s <= self.cap), s, 0.0) * at.advantages
        return term, np.full_like(at.log_pi, slope.mean(axis=-1, keepdims=True))

    def _floor(self, minibatch: int) -> float:
        return min(self.floor + self.floor_step * minibatch, self.cap)
