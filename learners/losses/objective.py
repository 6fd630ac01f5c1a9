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

from collections.abc import Mapping, Sequence

import numpy as np

from learners.example import Example
from learners.losses.protocol import MAX_LOG_RATIO, Arrays, Denominator
from learners.losses.registry import loss_of, needs_of
from learners.units import Ints, Units
from mutual_env.types import Aggregation, Floats

CREDIT: Denominator = "policy_gradient"


def scales(examples: Sequence[Example], aggregation: Aggregation = "token_mean", length: int = 1) -> Floats:
    """weight / denominator of each example of one optimizer step; `length`: that of a sequence, where it is constant.
    What an example says of its aggregation goes before `aggregation`."""
    weights = np.array([example.weight for example in examples], dtype=np.float64)
    scale: Floats = weights / _denominators(examples, aggregation, length)
    return scale


def own_scales(examples: Sequence[Example], aggregation: Aggregation = "token_mean", length: int = 1) -> Floats:
    """1 / denominator of what a learner regularises itself by, of each example of one optimizer step: over its own
    samples, whatever their weight. 0 for others."""
    own = [example for example in examples if is_own(example)]
    known = dict(zip(map(id, own), 1.0 / _denominators(own, aggregation, length), strict=True)) if own else {}
    return np.array([known.get(id(example), 0.0) for example in examples])


def is_own(example: Example) -> bool:
    """Whether it is a sample of the reader's policy, and not one that it imitates."""
    return example.own and needs_of(example.loss).advantage


def _denominators(examples: Sequence[Example], aggregation: Aggregation, length: int) -> Floats:
    tokens = [int(example.mask.sum()) for example in examples]
    counted: dict[str, tuple[int, int]] = {}  # what a denominator counts: tokens, and sequences that have any
    for example, size in zip(examples, tokens, strict=True):
        total, sequences = counted.get(_counted_in(example), (0, 0))
        counted[_counted_in(example)] = total + size, sequences + (size > 0)
    return np.array(
        [
            _denominator(example, size, counted, example.aggregation or aggregation, length)
            for example, size in zip(examples, tokens, strict=True)
        ]
    )


def _counted_in(example: Example) -> str:
    loss = loss_of(example.loss)
    return loss.needs.denominator if loss.needs.denominator == CREDIT else loss.name


def _denominator(
    example: Example, size: int, counted: Mapping[str, tuple[int, int]], chosen: Aggregation, length: int
) -> float:
    credit = needs_of(example.loss).denominator == "others_policy_gradient" and counted.get(CREDIT, (0, 0))[0] > 0
    total, sequences = counted[CREDIT if credit else _counted_in(example)]
    if chosen == "token_mean":
        return float(max(total, 1))
    return float(max(sequences, 1) * (length if chosen == "constant" else max(size, 1)))


def example_loss(
    example: Example, logprobs: Floats, anchor: Floats, minibatch: int = 0, weights: Floats | None = None
) -> tuple[float, Floats]:
    """The unscaled loss of one example, summed over its masked tokens, and its gradient by `logprobs`.

    `anchor` is what ratios are taken against; `weights` (U) multiply the terms of its units, and no KL term.
    """
    mask = example.mask
    gradient = np.zeros(logprobs.shape)
    if not mask.any():
        return 0.0, gradient
    term, slope = term_of(example, logprobs[mask], anchor[mask], minibatch)
    if weights is not None:
        term, slope = term * weights, slope * units_of_terms(example).spread(weights)
    gradient[mask] = slope
    total = float(term.sum())
    if example.reference is not None and example.kl_weight != 0.0:
        value, slope = pull(example, logprobs, example.reference, example.reference_units)
        total, gradient = total + example.kl_weight * value, gradient + example.kl_weight * slope
    return total, gradient


def pull(example: Example, logprobs: Floats, reference: Floats, units: Ints | None = None) -> tuple[float, Floats]:
    """KL_k3(π || reference), summed over the masked tokens at which the reference is known, and its gradient."""
    pulled = example.mask & np.isfinite(reference)
    inside = Units.among(pulled, units)
    value, slope = kl_k3(inside.sums(logprobs[pulled]), inside.sums(reference[pulled]))
    gradient = np.zeros(logprobs.shape)
    gradient[pulled] = inside.spread(slope)
    return float(value.sum()), gradient


def term_of(example: Example, logprobs: Floats, anchor: Floats, minibatch: int = 0) -> tuple[Floats, Floats]:
    """The term of each unit of an example, and its slope at each masked token; both arrays are of those tokens."""
    units = units_of_terms(example)
    term, slope = loss_of(example.loss).slope(arrays_of(example, logprobs, anchor, minibatch, units))
    return term, units.spread(slope)


def arrays_of(example: Example, logprobs: Floats, anchor: Floats, minibatch: int, units: Units) -> Arrays:
    """The masked tokens of an example as its loss sees them: unit by unit."""
    credit = units.means(example.advantages[example.mask])
    return Arrays(units.sums(logprobs), units.sums(anchor), credit, minibatch)


def units_of_terms(example: Example) -> Units:
    """What its loss takes as one of its masked tokens. A loss of whole sequences takes tokens, for its means."""
    return Units.among(example.mask, None) if needs_of(example.loss).whole_sequences else example.trained_units


def kl_k3(logprobs: Floats, reference: Floats) -> tuple[Floats, Floats]:
    """exp(d) - d - 1 with d = reference - log π, which estimates KL(π || reference), is never negative; its slope."""
    raw = reference - logprobs
    d = np.clip(raw, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    inside = np.abs(raw) <= MAX_LOG_RATIO
    return np.exp(d) - d - 1.0, np.where(inside, 1.0 - np.exp(d), 0.0)
