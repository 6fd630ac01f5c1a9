"""What an optimizer step minimises, as pure functions of log-probabilities: every backend is tested against them.

A step minimises `sum over examples of scale · sum over masked tokens of term`. The scale holds the example's weight and
its denominator, counted over the whole step before anything is computed: how the step is then cut into micro-batches
changes nothing. Losses say whose tokens they are averaged over (`Needs.denominator`): a policy-gradient denominator
counts the tokens of all policy-gradient examples of the step, those with a zero advantage among them; a cross-entropy
term is averaged over cross-entropy tokens alone. Weights enter no denominator. Where an example says that tokens are
compared as one (`Example.units`), a term is one of their sums, its slope goes to each of them, and denominators go on
counting tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from learners.example import Example
from learners.losses.protocol import MAX_LOG_RATIO, Arrays
from learners.losses.registry import loss_of
from learners.units import Units
from mutual_env.types import Floats

Aggregation: TypeAlias = Literal["token_mean", "sequence_mean"]


def scales(examples: Sequence[Example], aggregation: Aggregation = "token_mean") -> Floats:
    """weight / denominator of each example of one optimizer step."""
    shared = [_shared_denominator(example) for example in examples]
    tokens = np.array([int(example.mask.sum()) for example in examples], dtype=np.float64)
    weights = np.array([example.weight for example in examples], dtype=np.float64)
    denominators = np.ones(len(examples))
    for name in dict.fromkeys(shared):
        kind = np.array([other == name for other in shared], dtype=np.bool_)
        if aggregation == "token_mean":
            denominators[kind] = max(tokens[kind].sum(), 1.0)
        else:
            denominators[kind] = np.maximum(tokens[kind], 1.0) * max(int((tokens[kind] > 0).sum()), 1)
    scale: Floats = weights / denominators
    return scale


def _shared_denominator(example: Example) -> str:
    """Examples of the same answer share a denominator."""
    loss = loss_of(example.loss)
    return loss.name if loss.needs.denominator == "own" else loss.needs.denominator


def example_loss(
    example: Example,
    logprobs: Floats,
    anchor: Floats,
    minibatch: int = 0,
    kl_coefficient: float = 0.0,
    reference: Floats | None = None,
    weights: Floats | None = None,
) -> tuple[float, Floats]:
    """The unscaled loss of one example, summed over its masked tokens, and its gradient by `logprobs`.

    `anchor` is what ratios are taken against; `reference` with `kl_coefficient` is the learner's own KL term, beside
    the example's; `weights` (U) multiply the terms of its units, and no KL term.
    """
    mask = example.mask
    gradient = np.zeros(logprobs.shape)
    if not mask.any():
        return 0.0, gradient
    values = np.zeros(logprobs.shape)
    term, slope = term_of(example, logprobs[mask], anchor[mask], minibatch)
    if weights is not None:
        term, slope = term * weights, slope * units_of_terms(example).spread(weights)
    gradient[mask] = slope
    values[np.flatnonzero(mask)[: term.size]] = term
    own = (reference, kl_coefficient, None)
    for target, coefficient, units in ((example.reference, example.kl_weight, example.reference_units), own):
        if target is not None and coefficient != 0.0:
            pulled = mask & np.isfinite(target)
            inside = Units.among(pulled, units)
            value, slope = kl_k3(inside.sums(logprobs[pulled]), inside.sums(target[pulled]))
            values[np.flatnonzero(pulled)[: value.size]] += coefficient * value
            gradient[pulled] += coefficient * inside.spread(slope)
    return float(values.sum()), gradient


def term_of(example: Example, logprobs: Floats, anchor: Floats, minibatch: int = 0) -> tuple[Floats, Floats]:
    """The term of each unit of an example, and its slope at each masked token; both arrays are of those tokens."""
    term, slope = loss_of(example.loss).slope(arrays_of(example, logprobs, anchor, minibatch))
    return term, units_of_terms(example).spread(slope)


def arrays_of(example: Example, logprobs: Floats, anchor: Floats, minibatch: int = 0) -> Arrays:
    """The masked tokens of an example as its loss sees them: unit by unit."""
    units = units_of_terms(example)
    return Arrays(units.sums(logprobs), units.sums(anchor), units.means(example.advantages[example.mask]), minibatch)


def units_of_terms(example: Example) -> Units:
    """What its loss takes as one of its masked tokens. A loss of whole sequences takes tokens, for its means."""
    return Units.among(example.mask, None if loss_of(example.loss).needs.whole_sequences else example.units)


def kl_k3(logprobs: Floats, reference: Floats) -> tuple[Floats, Floats]:
    """exp(d) - d - 1 with d = reference - log π, which estimates KL(π || reference), is never negative; its slope."""
    raw = reference - logprobs
    d = np.clip(raw, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    inside = np.abs(raw) <= MAX_LOG_RATIO
    return np.exp(d) - d - 1.0, np.where(inside, 1.0 - np.exp(d), 0.0)
