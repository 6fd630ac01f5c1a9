"""Log-probabilities over a large vocabulary, and their gradient, without ever holding all logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from learners.torch.losses import Terms, total_loss
from learners.torch.model import Head


def chunk_size(head: Head, mebibytes: int) -> int:
    """How many tokens' logits fit."""
    return max(8, (mebibytes << 20) // (4 * head.size))


def target_logprobs(
    head: Head, hidden: torch.Tensor, targets: torch.Tensor, chunk: int, temperature: float = 1.0
) -> torch.Tensor:
    """log π of each target, (N), from (N, width) hidden states."""
    with torch.no_grad():
        parts = [
            _Softmax.of(head, hidden[start : start + chunk], targets[start : start + chunk], temperature).logprobs
            for start in range(0, targets.numel(), chunk)
        ]
    return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)


@dataclass(frozen=True, slots=True, eq=False)
class HeadGradient:
    """The loss, its gradient by the hidden states, and the log-probabilities it was taken at."""

    loss: torch.Tensor
    hidden: torch.Tensor
    logprobs: torch.Tensor


def backward_through_head(
    head: Head, hidden: torch.Tensor, targets: torch.Tensor, terms: Terms, chunk: int, temperature: float = 1.0
) -> HeadGradient:
    """Loss and gradient in one pass over the chunks; the head's own gradient is accumulated on the way.

    A token's slope is known as soon as its log-probability is: its logits are turned into their own gradient in place.
    Only a loss over whole sequences that do not fit one chunk needs a pass of its own to learn the slopes first; tokens
    that are compared as one lie in one chunk.
    """
    tokens = targets.numel()
    known: tuple[torch.Tensor, torch.Tensor] | None = None
    if not terms.separable and tokens > chunk:
        known = _slopes(target_logprobs(head, hidden, targets, chunk, temperature), terms)
    gradient = torch.empty_like(hidden)
    logprobs = torch.empty(tokens, dtype=torch.float32, device=hidden.device)
    loss = torch.zeros((), dtype=torch.float32, device=hidden.device) if known is None else known[0]
    with torch.no_grad():
        for start, end in terms.cuts(tokens, chunk):
            softmax = _Softmax.of(head, hidden[start:end], targets[start:end], temperature)
            logprobs[start:end] = softmax.logprobs
            if known is None:
                part = terms if end - start == tokens else terms.part(start, end)
                value, slopes = _slopes(softmax.logprobs, part)
                loss = loss + value
            else:
                slopes = known[1][start:end]
            bonus = None
            if terms.entropy is not None:
                value, bonus = softmax.minus_entropy(terms.entropy[start:end])
                loss = loss + value
            gradient[start:end] = softmax.backward(head, hidden[start:end], targets[start:end], slopes, bonus)
            del softmax  # before the next chunk is made: one at a time
    return HeadGradient(loss, gradient, logprobs)


def _slopes(logprobs: torch.Tensor, terms: Terms) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.enable_grad():
        leaf = logprobs.detach().requires_grad_()
        value = total_loss(leaf, terms)
        (slopes,) = torch.autograd.grad(value, leaf)
    return value.detach(), slopes


@dataclass(frozen=True, slots=True, eq=False)
class _Softmax:
    """`mass` / `total` is the distribution; the logits are kept only where a soft cap needs them."""

    mass: torch.Tensor
    total: torch.Tensor
    logits: torch.Tensor
    logprobs: torch.Tensor
    temperature: float

    @classmethod
    def of(cls, head: Head, hidden: torch.Tensor, targets: torch.Tensor, temperature: float) -> _Softmax:
        logits = kept = head.logits(hidden)
        if temperature != 1.0:
            logits = logits / temperature if head.softcap is not None else logits.div_(temperature)
        chosen = logits.gather(1, targets[:, None])
        peak = logits.amax(dim=-1, keepdim=True)
        mass = torch.sub(logits, peak).exp_() if head.softcap is not None else logits.sub_(peak).exp_()
        total = mass.sum(dim=-1, keepdim=True)
        return cls(mass, total, kept, (chosen - peak - total.log())[:, 0], temperature)

    def minus_entropy(self, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """-scale · H, summed, and its gradient by the logits: scale · p (log p + H) / temperature."""
        p = self.mass / self.total
        gradient = torch.special.xlogy(p, p)
        entropy = -gradient.sum(dim=-1)
        gradient.addcmul_(p, entropy[:, None]).mul_((scale / self.temperature)[:, None])
        return -(scale * entropy).sum(), gradient

    def backward(
        self,
        head: Head,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        slopes: torch.Tensor,
        besides: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The gradient by `hidden`: of each logit it is slope · (1[target] - probability) / temperature, and what comes
        besides."""
        if self.temperature != 1.0:
            slopes = slopes / self.temperature
        gradient = self.mass.mul_(-slopes[:, None] / self.total)
        gradient.scatter_add_(1, targets[:, None], slopes[:, None])
        if besides is not None:
            gradient += besides
        return head.backward(gradient, self.logits, hidden)
