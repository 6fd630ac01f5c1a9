"""One optimizer step: what it computes, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from learners.behaviour import Behaviour
from learners.example import Example
from learners.losses import needs_of, units_of_terms
from mutual_env.types import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One example of an optimizer step.

    `scale` is its weight over its denominator. `anchor` (T) is what its ratio is taken against, None: the policy as it
    is in this step. `reference` (T) is what the learner's own KL term pulls to; None: no term. `kl_scale` is the
    coefficient of that term over a denominator of its own: it is taken on own samples alone, whatever they weigh.
    `entropy_scale` is the same for the entropy of the policy at each masked token, which is to rise.
    `start` (T) is log π at the start of the update; None: not known, or as in this step.
    """

    example: Example
    scale: float
    anchor: Floats | None = None
    reference: Floats | None = None
    kl_scale: float = 0.0
    start: Floats | None = None
    entropy_scale: float = 0.0

    def idle(self) -> Part:
        """The same forward and backward, adding nothing: for who must keep step with others."""
        return replace(self, scale=0.0, kl_scale=0.0, entropy_scale=0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one optimizer step computes: the examples that can teach, the others being in the denominators only."""

    parts: tuple[Part, ...]
    minibatch: int
    behaviour: Behaviour = field(default_factory=Behaviour)

    def weights(self, part: Part, logprobs: Floats) -> Floats | None:
        """What the terms of this part are multiplied by (U), with log π of its masked tokens now; None: by 1."""
        gaps = own_gap(part, logprobs)
        if gaps is None or self.behaviour.mode == "off":
            return None
        whole = needs_of(part.example.loss).whole_sequences
        return self.behaviour.weights(units_of_terms(part.example).sums(gaps), whole=whole)


def own_gap(part: Part, logprobs: Floats) -> Floats | None:
    """log π at the start of the update - log β at the masked tokens; None: nothing is to be weighed. `logprobs` are log
    π now."""
    if part.example.behaviour is None:
        return None
    mask = part.example.mask
    return (logprobs if part.start is None else part.start[mask]) - part.example.behaviour[mask]


@dataclass(frozen=True, slots=True, eq=False)
class Stepped:
    """What came of it. `logprobs` are those of each part's masked tokens, before the weights moved."""

    loss: float
    gradient_norm: float
    logprobs: tuple[Floats, ...]
