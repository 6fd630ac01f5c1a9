"""What is to be known of an update, from the optimizer steps that it took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from learners.losses import Arrays, loss_of, needs_of, units_of_terms
from learners.step import Part, Step, Stepped, own_gap
from learners.units import Ints, Units
from mutual_env.types import Floats, LossSpec, Metrics

Taken = Sequence[tuple[Step, Stepped]]


def own_gaps(taken: Taken) -> list[Floats]:
    """log π at the start of the update - log β of each own sample, where both are known."""
    gaps = []
    for step, stepped in taken:
        for part, logprobs in zip(step.parts, stepped.logprobs, strict=True):
            gap = own_gap(part, logprobs)
            if gap is not None and not (part.start is None and step.minibatch > 0):
                gaps.append(gap)
    return gaps


def slope_metrics(taken: Taken) -> Metrics:
    """`clip_share`, of the tokens computed: there is credit, and the ratio went as far as it may, so that no slope is
    left. `cap_share`, of the tokens whose ratio has a cap: it is passed. How much of the gradient borrowed samples are,
    and those that are imitated, where there are any: a token's coefficient on grad log π is scale · slope, taken at the
    policy that the step began with, and these are the tokens' shares of the sum of its absolute values."""
    parts = [part for step, _ in taken for part in step.parts]
    groups = {"borrowed": [not p.example.own for p in parts], "imitation": [_is_imitated(p) for p in parts]}
    wanted = any(any(group) for group in groups.values())
    tallies = [tally for step, stepped in taken for tally in _tallies(step, stepped, wanted=wanted)]
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


def _tallies(step: Step, stepped: Stepped, *, wanted: bool) -> list[_Tally]:
    """Of each part of a step. `wanted`: the sum of slopes is, where there is nothing else to find."""
    tallies = [_Tally(logprobs.size) for logprobs in stepped.logprobs]
    alike: dict[tuple[LossSpec, bool], list[int]] = {}
    for at, part in enumerate(step.parts):
        anchored = part.anchor is not None and needs_of(part.example.loss).anchor
        if anchored or wanted:
            alike.setdefault((part.example.loss, anchored), []).append(at)
    for (spec, anchored), indices in alike.items():
        for some in _at_once(step, spec, indices):
            rows = [(step.parts[at], stepped.logprobs[at]) for at in some]
            for at, tally in zip(some, _tallied(step, rows, anchored=anchored), strict=True):
                tallies[at] = tally
    return tallies


def _at_once(step: Step, spec: LossSpec, indices: Sequence[int]) -> Iterable[Sequence[int]]:
    """Parts of one loss, in groups that are counted together: all; where its terms depend on a whole sequence, those of
    one length, or each by itself if it takes one sequence at a time."""
    whole = needs_of(spec).whole_sequences
    if not (whole or step.behaviour.of_sequences):
        return [indices]
    if not (whole and loss_of(spec).several_sequences):
        return [[at] for at in indices]
    lengths: dict[int, list[int]] = {}
    for at in indices:
        lengths.setdefault(int(step.parts[at].example.mask.sum()), []).append(at)
    return lengths.values()


def _tallied(step: Step, rows: Sequence[tuple[Part, Floats]], *, anchored: bool) -> list[_Tally]:
    """Of these parts, which have the same loss; of several with a loss of whole sequences, which have one length."""
    examples = [part.example for part, _ in rows]
    parts, loss = [units_of_terms(example) for example in examples], loss_of(examples[0].loss)
    units = Units.joined(parts)
    now = np.concatenate([logprobs for _, logprobs in rows])
    anchor = np.concatenate([lp if part.anchor is None else part.anchor[part.example.mask] for part, lp in rows])
    credit = np.concatenate([example.advantages[example.mask] for example in examples])
    shape = (len(rows), -1) if loss.needs.whole_sequences and loss.several_sequences else (-1,)
    log_pi, against, advantages = (v.reshape(shape) for v in (units.sums(now), units.sums(anchor), units.means(credit)))
    at = Arrays(log_pi, against, advantages, step.minibatch)
    slope, starts = loss.slope(at)[1].reshape(-1), _starts([part.sizes.size for part in parts])
    still = units.spread(slope == 0.0) & (credit != 0.0)
    clipped = np.add.reduceat(still, _starts([logprobs.size for _, logprobs in rows]), dtype=np.int64)
    passed = loss.beyond_cap(at) if anchored else None
    beyond = None if passed is None else np.add.reduceat(np.where(passed.reshape(-1), units.sizes, 0), starts)
    pulls = np.add.reduceat(np.abs(slope * _weights(step, rows, units)) * units.sizes, starts)
    return [
        _Tally(
            logprobs.size,
            int(clipped[i]) if anchored else 0,
            None if beyond is None else int(beyond[i]),
            abs(part.scale) * float(pulls[i]),
        )
        for i, (part, logprobs) in enumerate(rows)
    ]


def _weights(step: Step, rows: Sequence[tuple[Part, Floats]], units: Units) -> Floats:
    """What the terms of these parts are multiplied by (U)."""
    if all(part.example.behaviour is None for part, _ in rows):
        return np.ones(units.sizes.size)
    whole = needs_of(rows[0][0].example.loss).whole_sequences
    if len(rows) > 1 and (whole or step.behaviour.of_sequences):  # a weight of its own for each sequence
        return np.concatenate([_weights(step, [row], units_of_terms(row[0].example)) for row in rows])
    gaps = [own_gap(part, now) for part, now in rows]
    unknown = [np.full(now.size, np.nan) if gap is None else gap for gap, (_, now) in zip(gaps, rows, strict=True)]
    return step.behaviour.weights(units.sums(np.concatenate(unknown)), whole=whole)


def _starts(sizes: Sequence[int]) -> Ints:
    starts: Ints = np.cumsum([0, *sizes[:-1]])
    return starts
