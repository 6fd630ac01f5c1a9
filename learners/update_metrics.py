"""What is to be known of an update, from the optimizer steps that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learners.losses import arrays_of, loss_of, needs_of, units_of_terms
from learners.step import Part, Step, Stepped
from mutual_env.types import Floats, Metrics

Taken = Sequence[tuple[Step, Stepped]]


def own_gaps(taken: Taken) -> list[Floats]:
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


def slope_metrics(taken: Taken) -> Metrics:
    """`clip_share`, of the tokens computed: there is credit, and the ratio went as far as it may, so that no slope is
    left. `cap_share`, of the tokens whose ratio has a cap: it is passed. How much of the gradient borrowed samples are,
    and those that are imitated, where there are any: a token's coefficient on grad log π is scale · slope, taken at the
    policy that the step began with, and these are the tokens' shares of the sum of its absolute values."""
    parts = [
        (step, part, logprobs)
        for step, stepped in taken
        for part, logprobs in zip(step.parts, stepped.logprobs, strict=True)
    ]
    groups = {"borrowed": [not p.example.own for _, p, _ in parts], "imitation": [_is_imitated(p) for _, p, _ in parts]}
    wanted = any(any(group) for group in groups.values())
    tallies = [_tally(*each, wanted=wanted) for each in parts]
    metrics = {"clip_share": sum(t.clipped for t in tallies) / max(sum(t.tokens for t in tallies), 1)}
    capped = [t for t in tallies if t.beyond_cap is not None]
    if capped:
        metrics["cap_share"] = sum(t.beyond_cap or 0 for t in capped) / sum(t.tokens for t in capped)
    total = sum(t.pull for t in tallies)
    for what, group in groups.items():
        if any(group):
            pull = sum(t.pull for t, counts in zip(tallies, group, strict=True) if counts)
            metrics[f"batch/{what}_gradient_share"] = pull / (total or 1.0)
    return metrics


def _is_imitated(part: Part) -> bool:
    return not needs_of(part.example.loss).advantage


@dataclass(frozen=True, slots=True)
class _Tally:
    """Of one part: its tokens, those whose slope a clip took, those beyond a cap (None: there is none), and the sum of
    |scale · slope|."""

    tokens: int
    clipped: int = 0
    beyond_cap: int | None = None
    pull: float = 0.0


def _tally(step: Step, part: Part, logprobs: Floats, *, wanted: bool) -> _Tally:
    """`wanted`: the sum of slopes is, where there is nothing else to find."""
    example = part.example
    loss = loss_of(example.loss)
    anchored = part.anchor is not None and loss.needs.anchor
    if not (anchored or wanted):
        return _Tally(logprobs.size)
    units = units_of_terms(example)
    anchor = logprobs if part.anchor is None else part.anchor[example.mask]
    at = arrays_of(example, logprobs, anchor, step.minibatch, units)
    slope = units.spread(loss.slope(at)[1])
    clipped = int(((slope == 0.0) & (example.advantages[example.mask] != 0.0)).sum()) if anchored else 0
    passed = loss.beyond_cap(at) if anchored else None
    beyond = None if passed is None else int(units.sizes[passed].sum())
    weights = step.weights(part, logprobs)
    pulls = np.abs(slope if weights is None else slope * units.spread(weights))
    return _Tally(logprobs.size, clipped, beyond, abs(part.scale) * float(pulls.sum()))
