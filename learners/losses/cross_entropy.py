"""Imitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from learners.losses.protocol import Arrays, Loss, Needs, Tensors
from mutual_env.types import CrossEntropy, Floats

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class CrossEntropyLoss(CrossEntropy, Loss):
    """What computes `mutual_env.types.CrossEntropy`."""

    @property
    def needs(self) -> Needs:
        return Needs(advantage=False, denominator="own" if self.denominator == "own" else "others_policy_gradient")

    def term(self, at: Tensors) -> torch.Tensor:
        return -at.log_pi

    def slope(self, at: Arrays) -> tuple[Floats, Floats]:
        return -at.log_pi, -np.ones_like(at.log_pi)
