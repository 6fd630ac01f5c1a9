"""The losses of `learners.losses` on tensors: all trained tokens of a micro-batch at once, gradients by autograd."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from learners.losses import MAX_LOG_RATIO
from mutual_env.errors import InvalidInputError
from mutual_env.types import CappedSequence, CrossEntropy, Loss, PolicyGradient, ShapedProbability


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What the loss of N trained tokens needs beside their log-probabilities.

    `owners` (N) numbers the example of each token; `scale` (N) is the weight over the denominator of the optimizer
    step; `anchor` (N) is NaN where it is the current policy itself; `pulls` are (reference, coefficient) pairs of (N)
    tensors, NaN where there is no reference. `losses` are the distinct losses, `kinds` (N) which of them a token has.
    """

    owners: torch.Tensor
    scale: torch.Tensor
    advantages: torch.Tensor
    anchor: torch.Tensor
    pulls: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    losses: tuple[Loss, ...]
    kinds: torch.Tensor
    minibatch: int

    @property
    def separable(self) -> bool:
        """Whether each token's term depends on that token alone."""
        return not any(
            isinstance(loss, CappedSequence) or (isinstance(loss, PolicyGradient) and loss.ratio == "sequence")
            for loss in self.losses
        )

    def part(self, start: int, end: int) -> Terms:
        """The same of the tokens start..end; only where separable."""
        span = slice(start, end)
        return replace(
            self,
            owners=self.owners[span],
            scale=self.scale[span],
            advantages=self.advantages[span],
            anchor=self.anchor[span],
            kinds=self.kinds[span],
            pulls=tuple((reference[span], coefficient[span]) for reference, coefficient in self.pulls),
        )


def total_loss(logprobs: torch.Tensor, terms: Terms) -> torch.Tensor:
    """The scaled loss, summed over these tokens."""
    anchor = torch.where(terms.anchor.isnan(), logprobs.detach(), terms.anchor)
    total = logprobs.new_zeros(())
    for kind, loss in enumerate(terms.losses):
        if len(terms.losses) == 1:
            value = _term(loss, logprobs, anchor, terms.advantages, terms.owners, terms.minibatch)
            total = total + (value * terms.scale).sum()
            continue
        at = (terms.kinds == kind).nonzero()[:, 0]
        value = _term(loss, logprobs[at], anchor[at], terms.advantages[at], terms.owners[at], terms.minibatch)
        total = total + (value * terms.scale[at]).sum()
    for reference, coefficient in terms.pulls:
        pulled = reference.isfinite()
        d = torch.where(pulled, reference - logprobs, 0.0).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        total = total + (terms.scale * coefficient * torch.where(pulled, d.exp() - d - 1.0, 0.0)).sum()
    return total


def _term(
    loss: Loss,
    logprobs: torch.Tensor,
    anchor: torch.Tensor,
    advantages: torch.Tensor,
    owners: torch.Tensor,
    minibatch: int,
) -> torch.Tensor:
    match loss:
        case CrossEntropy():
            return -logprobs
        case ShapedProbability(gamma=gamma):
            p = logprobs.exp()
            return -p / (p + gamma) * advantages
        case CappedSequence():
            floor = min(loss.floor + loss.floor_step * minibatch, loss.cap)
            s = _mean_by_owner(logprobs - anchor, owners).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
            capped = s.clamp(floor, loss.cap)
            return -capped * capped.detach() ** loss.alpha * advantages
        case PolicyGradient(ratio="none"):
            # The value is -A; the slope is that of -A log π.
            return -advantages * (1.0 + logprobs - logprobs.detach())
        case PolicyGradient():
            log_ratio = logprobs - anchor
            if loss.ratio == "sequence":
                log_ratio = _mean_by_owner(log_ratio, owners)
            ceiling = min(MAX_LOG_RATIO, math.log(loss.ratio_cap) if loss.ratio_cap < math.inf else MAX_LOG_RATIO)
            ratio = log_ratio.clamp(-MAX_LOG_RATIO, ceiling).exp()
            clipped = ratio.clamp(1.0 - loss.clip_low, 1.0 + loss.clip_high)
            return -torch.minimum(ratio * advantages, clipped * advantages)
    raise InvalidInputError(f"Example.loss must be one of the losses of mutual_env.types, got {loss!r}")


def _mean_by_owner(values: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """Each token's value replaced by the mean over its example."""
    size = int(owners.max()) + 1 if owners.numel() else 0
    sums = values.new_zeros(size).index_add(0, owners, values)
    counts = values.new_zeros(size).index_add(0, owners, torch.ones_like(values))
    return (sums / counts.clamp(min=1.0))[owners]
