"""The losses on tensors: all trained tokens of a micro-batch at once, gradients by autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from learners.behaviour import Behaviour
from learners.losses import MAX_LOG_RATIO, Tensors, loss_of, needs_of, units_of_terms
from learners.step import Part, Step
from learners.units import Ints, Mask, Units
from mutual_env.types import Floats, LossSpec


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """N tokens in U units that stand side by side: `sizes` (U), and the token behind each (`ends`, U, on the CPU)."""

    sizes: torch.Tensor
    ends: Ints

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """(U) of (N). A unit of one token is that token, to the last bit."""
        return torch.segment_reduce(values, "sum", lengths=self.sizes, unsafe=True)

    def part(self, start: int, end: int) -> tuple[slice, Spans]:
        """Which units are the tokens start..end, and they alone."""
        units = slice(*np.searchsorted(self.ends, [start, end], side="right").tolist())
        return units, Spans(self.sizes[units], self.ends[units] - start)


@dataclass(frozen=True, slots=True, eq=False)
class Pull:
    """strength · KL_k3(π || reference), each (U); `reference` is NaN where there is none. `spans` None: of tokens."""

    reference: torch.Tensor
    strength: torch.Tensor
    spans: Spans | None = None

    def part(self, start: int, end: int) -> Pull:
        units, spans = _cut(self.spans, start, end)
        return Pull(self.reference[units], self.strength[units], spans)

    def loss(self, logprobs: torch.Tensor) -> torch.Tensor:
        pulled = self.reference.isfinite()
        d = torch.where(pulled, self.reference - _sums(self.spans, logprobs), 0.0).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        return (self.strength * torch.where(pulled, d.exp() - d - 1.0, 0.0)).sum()


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """What importance weights of own samples are made of: log π at the start of the update (U; NaN, or None for all:
    as it is now), and log β (U; NaN where there is nothing to weigh)."""

    start: torch.Tensor | None
    behaviour: torch.Tensor
    rule: Behaviour

    def among(self, units: slice | torch.Tensor) -> Sampled:
        start = None if self.start is None else self.start[units]
        return replace(self, start=start, behaviour=self.behaviour[units])

    def weights(self, at: Tensors, *, whole: bool) -> torch.Tensor:
        now = at.log_pi.detach()
        start = now if self.start is None else torch.where(self.start.isnan(), now, self.start)
        return self.rule.weigh(start - self.behaviour, at, whole=whole)


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What the loss of N trained tokens in U units needs beside their log-probabilities; `spans` None: U = N.

    `owners` (U) numbers the example of each unit; `scale` (U) is the weight over the denominator of the optimizer
    step; `anchor` (U) is NaN where it is the current policy itself. `losses` are the distinct losses, `kinds` (U) which
    of them a unit has. `sampled` None: no own sample is weighed. `entropy` (N) is the scale of each token's entropy in
    the loss, minus which it has; None: 0. That needs more than log-probabilities: who has the logits adds it.
    """

    owners: torch.Tensor
    scale: torch.Tensor
    advantages: torch.Tensor
    anchor: torch.Tensor
    pulls: tuple[Pull, ...]
    losses: tuple[LossSpec, ...]
    kinds: torch.Tensor
    minibatch: int
    spans: Spans | None = None
    sampled: Sampled | None = None
    entropy: torch.Tensor | None = None

    @property
    def separable(self) -> bool:
        """Whether each unit's term depends on that unit alone."""
        if self.sampled is not None and self.sampled.rule.of_sequences:
            return False
        return not any(needs_of(loss).whole_sequences for loss in self.losses)

    def cuts(self, tokens: int, longest: int) -> list[tuple[int, int]]:
        """The tokens 0..tokens in parts of at most `longest`, none of which ends inside a unit: a unit that is longer
        is a part by itself."""
        spans = [spans for spans in (self.spans, *(pull.spans for pull in self.pulls)) if spans is not None]
        allowed = np.ones(tokens + 1, np.bool_)
        for each in spans:
            allowed &= np.bincount(each.ends, minlength=tokens + 1).astype(np.bool_)
        borders = np.flatnonzero(allowed)
        parts, start = [], 0
        while start < tokens:
            reach = int(np.searchsorted(borders, start + longest, side="right")) - 1
            if reach < 0 or borders[reach] <= start:
                reach = int(np.searchsorted(borders, start, side="right"))
            parts.append((start, int(borders[reach])))
            start = int(borders[reach])
        return parts

    def part(self, start: int, end: int) -> Terms:
        """The same of the tokens start..end; only where separable."""
        units, spans = _cut(self.spans, start, end)
        return replace(
            self,
            owners=self.owners[units],
            scale=self.scale[units],
            advantages=self.advantages[units],
            anchor=self.anchor[units],
            kinds=self.kinds[units],
            pulls=tuple(pull.part(start, end) for pull in self.pulls),
            spans=spans,
            sampled=None if self.sampled is None else self.sampled.among(units),
            entropy=None if self.entropy is None else self.entropy[start:end],
        )


def total_loss(logprobs: torch.Tensor, terms: Terms) -> torch.Tensor:
    """The scaled loss, summed over these tokens."""
    log_pi = _sums(terms.spans, logprobs)
    anchor = torch.where(terms.anchor.isnan(), log_pi.detach(), terms.anchor)
    total = logprobs.new_zeros(())
    for kind, spec in enumerate(terms.losses):
        loss, scale, sampled = loss_of(spec), terms.scale, terms.sampled
        at = Tensors(log_pi, anchor, terms.advantages, terms.owners, terms.minibatch)
        if len(terms.losses) > 1:
            chosen = (terms.kinds == kind).nonzero()[:, 0]
            at, scale = at.among(chosen), scale[chosen]
            sampled = None if sampled is None else sampled.among(chosen)
        value = loss.term(at)
        if sampled is not None:
            value = value * sampled.weights(at, whole=loss.needs.whole_sequences)
        total = total + (value * scale).sum()
    for pull in terms.pulls:
        total = total + pull.loss(logprobs)
    return total


def terms_of(parts: Sequence[Part], step: Step, device: torch.device) -> Terms:
    """The masked tokens of these parts of a step, one part after the other."""
    return _Layout(parts, device).terms(step)


class _Layout:
    """Numbers of parts, as tensors over their units."""

    def __init__(self, parts: Sequence[Part], device: torch.device) -> None:
        self._parts = parts
        self._device = device

    def terms(self, step: Step) -> Terms:
        parts = self._parts
        examples = [part.example for part in parts]
        losses = tuple(dict.fromkeys(example.loss for example in examples))
        units = [units_of_terms(example) for example in examples]
        counts = [each.starts.size for each in units]
        joined, credit = Units.joined(units), np.concatenate([e.advantages[e.mask] for e in examples])
        return Terms(
            owners=self._indices(range(len(parts)), counts),
            scale=self._spread([part.scale for part in parts], counts),
            advantages=self._tensor([joined.means(credit)]),
            anchor=self._sums([part.anchor for part in parts], joined),
            pulls=tuple(self._pulls()),
            losses=losses,
            kinds=self._indices([losses.index(example.loss) for example in examples], counts),
            minibatch=step.minibatch,
            spans=self._spans(joined),
            sampled=self._sampled(step.behaviour, joined),
            entropy=self._entropy(),
        )

    def _entropy(self) -> torch.Tensor | None:
        scales = [part.entropy_scale for part in self._parts]
        tokens = [int(part.example.mask.sum()) for part in self._parts]
        return self._spread(scales, tokens) if any(scales) else None

    def _sampled(self, rule: Behaviour, units: Units) -> Sampled | None:
        written = [part.example.behaviour for part in self._parts]
        if rule.mode == "off" or all(each is None for each in written):
            return None
        starts = [part.start for part in self._parts]
        start = None if all(each is None for each in starts) else self._sums(starts, units)
        return Sampled(start, self._sums(written, units), rule)

    def _pulls(self) -> Sequence[Pull]:
        parts = self._parts
        theirs = [p.scale * p.example.kl_weight if p.example.reference is not None else 0.0 for p in parts]
        ours = [p.kl_scale if p.reference is not None else 0.0 for p in parts]
        pulls = []
        if any(theirs):
            units = [Units.among(p.example.mask, p.example.reference_units) for p in parts]
            pulls.append(self._pull([p.example.reference for p in parts], theirs, units))
        if any(ours):
            tokens = [Units.among(p.example.mask, None) for p in parts]
            pulls.append(self._pull([p.reference for p in parts], ours, tokens))
        return pulls

    def _pull(self, references: Sequence[Floats | None], strengths: Sequence[float], units: Sequence[Units]) -> Pull:
        joined, counts = Units.joined(units), [each.starts.size for each in units]
        return Pull(self._sums(references, joined), self._spread(strengths, counts), self._spans(joined))

    def _sums(self, values: Sequence[Floats | None], units: Units) -> torch.Tensor:
        """Values of whole responses, summed over the units of their masked tokens; NaN where there are none."""
        if all(each is None for each in values):
            return self._tensor([np.full(units.sizes.size, np.nan)])
        masks: list[Mask] = [part.example.mask for part in self._parts]
        known = [
            np.full(np.count_nonzero(m), np.nan) if v is None else v[m] for v, m in zip(values, masks, strict=True)
        ]
        return self._tensor([units.sums(np.concatenate(known))])

    def _spans(self, units: Units) -> Spans | None:
        if units.single:
            return None
        return Spans(torch.from_numpy(units.sizes).to(self._device), units.sizes.cumsum())

    def _spread(self, values: Sequence[float], counts: Sequence[int]) -> torch.Tensor:
        return self._tensor([np.repeat(np.asarray(values, dtype=np.float64), counts)])

    def _tensor(self, values: Sequence[Floats]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(values).astype(np.float32)).to(self._device)

    def _indices(self, values: Sequence[int], counts: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(np.repeat(np.asarray(values, dtype=np.int64), counts)).to(self._device)


def _sums(spans: Spans | None, values: torch.Tensor) -> torch.Tensor:
    return values if spans is None else spans.sums(values)


def _cut(spans: Spans | None, start: int, end: int) -> tuple[slice, Spans | None]:
    return (slice(start, end), None) if spans is None else spans.part(start, end)
