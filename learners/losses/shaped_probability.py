"""LUFFY's objective for samples that others wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from learners.losses.protocol import Arrays, Loss, Tensors
from mutual_env.types import Floats

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class ShapedProbability(Loss):
    """-f(π) A with f(p) = p / (p + gamma): no ratio, no clip."""

    name = "shaped_probability"

    gamma: float = 0.1

    def term(self, at: Tensors) -> torch.Tensor:
        p = at.log_pi.exp()
        return -p / (p + self.gamma) * at.advantages

    def slope(self, at: Arrays) -> tuple[Floats, Floats]:
        p = np.exp(at.log_pi)
        return -p / (p + self.gamma) * at.advantages, -p * self.gamma / (p + self.gamma) ** 2 * at.advantages
