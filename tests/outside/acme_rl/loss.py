"""A loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from learners.losses import Arrays, Loss, Needs, Tensors


@dataclass(frozen=True, slots=True)
class SurpriseWeighted(Loss):
    """-(1 - π)^focus log π: imitation that spends itself on what the policy does not yet write."""

    name = "acme-surprise"
    focus: float = 1.0
    needs = Needs(advantage=False, denominator="own")

    def term(self, at: Tensors) -> Any:
        return -((1.0 - at.log_pi.exp()) ** self.focus) * at.log_pi

    def slope(self, at: Arrays) -> Any:
        p = np.exp(at.log_pi)
        weight = (1.0 - p) ** self.focus
        return -weight * at.log_pi, self.focus * (1.0 - p) ** (self.focus - 1.0) * p * at.log_pi - weight
