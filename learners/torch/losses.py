"""The losses on tensors: all trained tokens of a micro-batch at once, gradients by autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from learners.losses import MAX_LOG_RATIO, Tensors, loss_of
from learners.update import Part
from mutual_env.types import Floats, LossSpec


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
    losses: tuple[LossSpec, ...]
    kinds: torch.Tensor
    minibatch: int

    @property
    def separable(self) -> bool:
        """Whether each token's term depends on that token alone."""
        return not any(loss_of(loss).needs.whole_sequences for loss in self.losses)

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


def terms_of(parts: Sequence[Part], minibatch: int, device: torch.device) -> Terms:
    """The masked tokens of these parts, one part after the other."""
    losses = tuple(dict.fromkeys(part.example.loss for part in parts))
    counts = [int(part.example.mask.sum()) for part in parts]

    def spread(values: Sequence[float]) -> torch.Tensor:
        return tensor(np.repeat(np.asarray(values, dtype=np.float64), counts))

    def gathered(arrays: Sequence[Floats | None]) -> torch.Tensor:
        pairs = zip(arrays, parts, strict=True)
        return tensor(
            np.concatenate(
                [np.full(int(p.example.mask.sum()), np.nan) if a is None else a[p.example.mask] for a, p in pairs]
            )
        )

    def tensor(values: Floats) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    def indices(values: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(np.repeat(np.asarray(values, dtype=np.int64), counts)).to(device)

    examples = [part.example for part in parts]
    pulls: list[tuple[torch.Tensor, torch.Tensor]] = []
    if any(e.reference is not None and e.kl_weight != 0.0 for e in examples):
        weights = spread([0.0 if e.reference is None else e.kl_weight for e in examples])
        pulls.append((gathered([e.reference for e in examples]), weights))
    if any(part.reference is not None and part.kl_coefficient != 0.0 for part in parts):
        weights = spread([0.0 if part.reference is None else part.kl_coefficient for part in parts])
        pulls.append((gathered([part.reference for part in parts]), weights))
    return Terms(
        owners=indices(range(len(parts))),
        scale=spread([part.scale for part in parts]),
        advantages=gathered([e.advantages for e in examples]),
        anchor=gathered([part.anchor for part in parts]),
        pulls=tuple(pulls),
        losses=losses,
        kinds=indices([losses.index(e.loss) for e in examples]),
        minibatch=minibatch,
    )


def total_loss(logprobs: torch.Tensor, terms: Terms) -> torch.Tensor:
    """The scaled loss, summed over these tokens."""
    anchor = torch.where(terms.anchor.isnan(), logprobs.detach(), terms.anchor)
    total = logprobs.new_zeros(())
    for kind, spec in enumerate(terms.losses):
        loss = loss_of(spec)
        if len(terms.losses) == 1:
            value = loss.term(Tensors(logprobs, anchor, terms.advantages, terms.owners, terms.minibatch))
            total = total + (value * terms.scale).sum()
            continue
        at = (terms.kinds == kind).nonzero()[:, 0]
        value = loss.term(Tensors(logprobs[at], anchor[at], terms.advantages[at], terms.owners[at], terms.minibatch))
        total = total + (value * terms.scale[at]).sum()
    for reference, coefficient in terms.pulls:
        pulled = reference.isfinite()
        d = torch.where(pulled, reference - logprobs, 0.0).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        total = total + (terms.scale * coefficient * torch.where(pulled, d.exp() - d - 1.0, 0.0)).sum()
    return total
