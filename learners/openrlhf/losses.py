"""Every loss of `mutual_env.types` by OpenRLHF: its own losses where they mean the same, subclasses where they don't.

Shapes as in OpenRLHF: B rows, A = T - 1 actions (the token after each position), right padded. A row is one example;
all its tokens have the scale that `learners.losses.scales` gives it. OpenRLHF normalises by counts of its own; here it
gets the scale with the advantages and is told to divide by 1, so that how a step is cut into micro-batches changes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from learners.losses import MAX_LOG_RATIO
from learners.openrlhf.library import PolicyLoss, SFTLoss, aggregate_loss, compute_approx_kl
from mutual_env.errors import InvalidInputError
from mutual_env.types import CappedSequence, CrossEntropy, Loss, PolicyGradient, ShapedProbability

KL_CAP = 10.0
"""compute_approx_kl caps its estimate here, and its gradient is 0 beyond."""


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What the loss of a micro-batch needs beside log-probabilities.

    (B, A): `mask`, `advantages`, `anchor` (NaN: the current policy itself). (B): `scale`. `pulls`: pairs of a (B, A)
    reference, NaN where there is none, and its coefficient (B). `losses` has one entry a row.
    """

    mask: torch.Tensor
    advantages: torch.Tensor
    anchor: torch.Tensor
    scale: torch.Tensor
    pulls: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    losses: tuple[Loss, ...]
    minibatch: int


def total_loss(logprobs: torch.Tensor, terms: Terms) -> torch.Tensor:
    """The scaled loss, summed over the masked tokens of (B, A) log-probabilities."""
    anchor = torch.where(terms.anchor.isnan(), logprobs.detach(), terms.anchor)
    total = logprobs.new_zeros(())
    for loss, negative in dict.fromkeys(_kinds(terms)):
        rows = torch.tensor([i for i, kind in enumerate(_kinds(terms)) if kind == (loss, negative)]).to(logprobs.device)
        scale = terms.scale[rows, None].abs()
        mask = terms.mask[rows]
        value = _value(loss, logprobs[rows], anchor[rows], terms.advantages[rows], mask, scale, terms.minibatch)
        total = total - value if negative else total + value
    for reference, coefficient in terms.pulls:
        total = total + _pull(logprobs, reference, terms.mask, terms.scale * coefficient)
    return total


def _kinds(terms: Terms) -> Sequence[tuple[Loss, bool]]:
    """A negative weight turns a clipped objective upside down unless it is taken out first."""
    return [(loss, scale < 0.0) for loss, scale in zip(terms.losses, terms.scale.tolist(), strict=True)]


def _value(
    loss: Loss,
    logprobs: torch.Tensor,
    anchor: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    scale: torch.Tensor,
    minibatch: int,
) -> torch.Tensor:
    if isinstance(loss, CrossEntropy):
        value: torch.Tensor = SFTLoss()(logprobs, mask * scale, batch_num_tokens=1.0)
        return value
    if isinstance(loss, PolicyGradient) and loss.ratio == "none":
        anchor = logprobs.detach()  # OpenRLHF's ratio is then 1, and its slope that of log π
    result: tuple[torch.Tensor, ...] = policy_loss(loss, minibatch)(
        logprobs, anchor, advantages * scale, action_mask=mask, batch_num_tokens=1.0
    )
    return result[0]


def policy_loss(loss: Loss, minibatch: int) -> PolicyLoss:
    """The module that computes this loss."""
    match loss:
        case PolicyGradient(ratio="sequence"):
            return SequenceRatioLoss(loss.clip_low, loss.clip_high, loss.ratio_cap)
        case PolicyGradient(ratio="token") if loss.ratio_cap < math.inf:
            return CappedRatioLoss(loss.clip_low, loss.clip_high, loss.ratio_cap)
        case PolicyGradient():
            return PolicyLoss(loss.clip_low, loss.clip_high)
        case ShapedProbability():
            return ShapedProbabilityLoss(loss.gamma)
        case CappedSequence():
            return CappedSequenceLoss(loss, minibatch)
    raise InvalidInputError(f"Example.loss must be one of the losses of mutual_env.types, got {loss!r}")


class CappedRatioLoss(PolicyLoss):  # type: ignore[misc]
    """PPO's clipped ratio, the ratio itself at most `cap`: a token beyond it has no slope."""

    def __init__(self, clip_low: float, clip_high: float, cap: float) -> None:
        super().__init__(clip_low, clip_high)
        self.ceiling = math.log(cap)

    def forward(self, log_probs: torch.Tensor, old_log_probs: torch.Tensor, *args: object, **kwargs: object) -> object:
        ratio = (log_probs - old_log_probs).clamp(max=self.ceiling)
        return super().forward(old_log_probs + ratio, old_log_probs, *args, **kwargs)


class SequenceRatioLoss(PolicyLoss):  # type: ignore[misc]
    """GSPO's length-normalised ratio, summed over tokens under our scale in place of OpenRLHF's mean over sequences."""

    def __init__(self, clip_low: float, clip_high: float, cap: float) -> None:
        super().__init__(clip_low, clip_high, policy_loss_type="gspo")
        self.token_level_loss = True
        self.ceiling = min(MAX_LOG_RATIO, math.log(cap) if cap < math.inf else MAX_LOG_RATIO)

    def forward(
        self,
        log_probs: torch.Tensor,
        old_log_probs: torch.Tensor,
        advantages: torch.Tensor,
        action_mask: torch.Tensor,
        **kwargs: object,
    ) -> object:
        ratio = sequence_mean(log_probs - old_log_probs, action_mask).clamp(-MAX_LOG_RATIO, self.ceiling)
        return super().forward(old_log_probs + ratio, old_log_probs, advantages, action_mask, **kwargs)


class ShapedProbabilityLoss(PolicyLoss):  # type: ignore[misc]
    """-f(π) A with f(p) = p / (p + gamma)."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(
        self,
        log_probs: torch.Tensor,
        old_log_probs: torch.Tensor,
        advantages: torch.Tensor,
        action_mask: torch.Tensor,
        batch_num_tokens: float,
    ) -> tuple[torch.Tensor]:
        p = log_probs.exp()
        return (aggregate_loss(-p / (p + self.gamma) * advantages, action_mask, batch_num_tokens=batch_num_tokens),)


class CappedSequenceLoss(PolicyLoss):  # type: ignore[misc]
    """-s_c stopgrad(s_c)^alpha A, s the length-normalised sequence ratio, capped and floored."""

    def __init__(self, loss: CappedSequence, minibatch: int) -> None:
        super().__init__()
        self.alpha = loss.alpha
        self.cap = loss.cap
        self.floor = min(loss.floor + loss.floor_step * minibatch, loss.cap)

    def forward(
        self,
        log_probs: torch.Tensor,
        old_log_probs: torch.Tensor,
        advantages: torch.Tensor,
        action_mask: torch.Tensor,
        batch_num_tokens: float,
    ) -> tuple[torch.Tensor]:
        mean = sequence_mean(log_probs - old_log_probs, action_mask).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        capped = mean.exp().clamp(self.floor, self.cap)
        value = -capped * capped.detach() ** self.alpha * advantages
        return (aggregate_loss(value, action_mask, batch_num_tokens=batch_num_tokens),)


def sequence_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, 1) means over each row's masked tokens; 0 for a row without any."""
    return (values * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)


def _pull(
    logprobs: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, coefficient: torch.Tensor
) -> torch.Tensor:
    """coefficient · KL_k3(π || reference). Where OpenRLHF caps its estimate, and would stop pulling, it is not used."""
    pulled = mask * reference.isfinite()
    target = torch.where(reference.isfinite(), reference, logprobs.detach())
    estimate = compute_approx_kl(logprobs, target, kl_estimator="k3")
    d = (target - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    uncapped = torch.where(estimate.detach() < KL_CAP, estimate, d.exp() - d - 1.0)
    value: torch.Tensor = aggregate_loss(uncapped, pulled * coefficient[:, None], batch_num_tokens=1.0)
    return value
