"""What is to be known of an update, from the optimizer steps that it took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learners.example import Example
from learners.losses import arrays_of, loss_of, term_of, units_of_terms
from learners.step import Part, Step, Stepped
from mutual_env.types import Floats, Metrics


def own_gaps(taken: Sequence[tuple[Step, Stepped]]) -> list[Floats]:
    """log π at the start of the update - log β of each own sample, where both are known."""
    gaps = []
    for step, stepped in taken:
        for part, logprobs in zip(step.parts, stepped.logprobs, strict=True):
            example = part.example
            if example.behaviour is None or (part.start is None and step.minibatch > 0):
                continue
            start = logprobs if part.start is None else part.start[example.mask]
            gaps.append(start - example.behaviour[example.mask])
    return gaps


def clip_share(taken: Sequence[tuple[Step, Stepped]]) -> float:
    """The share of the tokens computed whose own ratio went as far as it may: there is credit, and no slope is left."""
    clipped = tokens = 0
    for step, stepped in taken:
        for part, logprobs in zip(step.parts, stepped.logprobs, strict=True):
            tokens += logprobs.size
            clipped += _clipped(part, logprobs, step.minibatch)
    return clipped / max(tokens, 1)


def cap_share(taken: Sequence[tuple[Step, Stepped]]) -> Metrics:
    """The share of the tokens, of those whose ratio has a cap, at which that cap is passed."""
    beyond = tokens = 0
    for step, stepped in taken:
        for part, logprobs in zip(step.parts, stepped.logprobs, strict=True):
            if part.anchor is None:
                continue
            anchor = part.anchor[part.example.mask]
            passed = loss_of(part.example.loss).beyond_cap(arrays_of(part.example, logprobs, anchor, step.minibatch))
            if passed is not None:
                beyond += int(units_of_terms(part.example).spread(passed.astype(np.float64)).sum())
                tokens += logprobs.size
    return {"cap_share": beyond / tokens} if tokens else {}


def _clipped(part: Part, logprobs: Floats, minibatch: int) -> int:
    example = part.example
    if part.anchor is None or not loss_of(example.loss).needs.anchor:
        return 0
    _, slope = term_of(example, logprobs, part.anchor[example.mask], minibatch)
    return int(((slope == 0.0) & (example.advantages[example.mask] != 0.0)).sum())


def gradient_shares(taken: Sequence[tuple[Step, Stepped]]) -> Metrics:
    """How much of the gradient borrowed samples are, and those that are imitated: a token's coefficient on grad log π
    is scale · slope, taken at the policy that the step began with, and these are the tokens' shares of the sum of its
    absolute values."""
    pulls = [
        (part.example, abs(part.scale) * float(np.abs(_slopes(step, part, logprobs)).sum()))
        for step, stepped in taken
        for part, logprobs in zip(step.parts, stepped.logprobs, strict=True)
    ]
    total = sum(pull for _, pull in pulls)
    shares = {"borrowed": _is_borrowed, "imitation": _is_imitated}
    return {
        f"batch/{what}_gradient_share": sum(pull for example, pull in pulls if counts(example)) / (total or 1.0)
        for what, counts in shares.items()
        if any(counts(example) for example, _ in pulls)
    }


def _is_borrowed(example: Example) -> bool:
    return not example.own


def _is_imitated(example: Example) -> bool:
    return not loss_of(example.loss).needs.advantage


def _slopes(step: Step, part: Part, logprobs: Floats) -> Floats:
    example = part.example
    anchor = logprobs if part.anchor is None else part.anchor[example.mask]
    _, slope = term_of(example, logprobs, anchor, step.minibatch)
    weights = step.weights(part, logprobs)
    return slope if weights is None else slope * units_of_terms(example).spread(weights)
