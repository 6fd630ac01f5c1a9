"""Our weights of own samples are those of OpenRLHF's own loss under the options that the documentation names."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from learners.behaviour import Behaviour

pytestmark = pytest.mark.openrlhf

SAME: dict[str, tuple[Behaviour, dict[str, Any]]] = {
    "TIS": (Behaviour("token", 5.0), {"mode": "clip", "threshold": (0.0, 5.0)}),
    "ICEPOP": (Behaviour("icepop", 5.0, 0.5), {"mode": "mask", "threshold": (0.5, 5.0)}),
    "ICEPOP, other bounds": (Behaviour("icepop", 2.0), {"mode": "mask", "threshold": (0.5, 2.0)}),
}


@pytest.mark.parametrize("name", SAME)
def test_weights_are_those_of_openrlhfs_loss(name: str) -> None:
    import_module("learners.openrlhf.library")  # imports openrlhf without what it needs for packed samples
    from openrlhf.models.loss import PolicyLoss

    ours, theirs = SAME[name]
    draw = np.random.default_rng(0)
    for _ in range(20):
        gaps = draw.normal(scale=1.0, size=12)
        old = torch.from_numpy(draw.normal(-1.0, 0.1, size=12))
        new = old.clone().requires_grad_()
        loss = PolicyLoss(
            is_correction_level="token", **{f"is_correction_{key}": value for key, value in theirs.items()}
        )
        one = torch.ones(1, 12, dtype=torch.float64)
        value, *_ = loss(new[None], old[None], one, one, rollout_log_probs=(old - torch.from_numpy(gaps))[None])
        (slope,) = torch.autograd.grad(value, new)
        # At ratio 1 and advantage 1 the slope of the mean is the weight, over the number of tokens.
        assert -slope.numpy() * 12 == pytest.approx(ours.weights(gaps, whole=False), rel=1e-9)
