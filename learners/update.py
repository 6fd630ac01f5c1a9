"""One update, whatever the backend: minibatches, anchors, references, the loop over optimizer steps, metrics.

A backend scores examples and takes one optimizer step; it knows no minibatch, no anchor and no metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, TypeAlias, get_args

import numpy as np

from learners.behaviour import Behaviour, Mode, measured
from learners.example import Example
from learners.losses import Aggregation, loss_of, scales, term_of, units_of_terms
from mutual_env.errors import InvalidInputError
from mutual_env.types import Floats, Metrics

PerExample: TypeAlias = Mapping[int, Floats]
"""One number for each response token, by the `id` of the example."""


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How an update is made of examples, with every backend.

    `minibatches` optimizer steps per update, `aggregation`, `kl_coefficient` to the policy that training began with;
    `behaviour` and `behaviour_cap`: how own samples are weighed that another version, engine or precision of the policy
    wrote (see `Behaviour`).
    """

    minibatches: int = 1
    aggregation: Aggregation = "token_mean"
    kl_coefficient: float = 0.0
    behaviour: Mode = "token"
    behaviour_cap: float = 2.0

    def __post_init__(self) -> None:
        Behaviour(self.behaviour, self.behaviour_cap)
        if self.minibatches < 1:
            raise InvalidInputError(f"minibatches must be at least 1, got {self.minibatches!r}")
        if self.aggregation not in get_args(Aggregation):
            raise InvalidInputError(f"aggregation must be one of {get_args(Aggregation)}, got {self.aggregation!r}")
        if self.kl_coefficient < 0.0:
            raise InvalidInputError(f"kl_coefficient must not be negative, got {self.kl_coefficient!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One example of an optimizer step.

    `scale` is its weight over its denominator. `anchor` (T) is what its ratio is taken against, None: the policy as it
    is in this step. `reference` (T) is what the learner's own KL term pulls to with `kl_coefficient`; None: no term.
    `start` (T) is log π at the start of the update; None: not known, or as in this step.
    """

    example: Example
    scale: float
    anchor: Floats | None = None
    reference: Floats | None = None
    kl_coefficient: float = 0.0
    start: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one optimizer step computes: the examples that can teach, the others being in the denominators only."""

    parts: tuple[Part, ...]
    minibatch: int
    behaviour: Behaviour = field(default_factory=Behaviour)

    def weights(self, part: Part, logprobs: Floats) -> Floats | None:
        """What the terms of this part are multiplied by (U), with log π of its response tokens now; None: by 1."""
        example = part.example
        if example.behaviour is None or self.behaviour.mode == "off":
            return None
        gaps = ((logprobs if part.start is None else part.start) - example.behaviour)[example.mask]
        whole = loss_of(example.loss).needs.whole_sequences
        return self.behaviour.weights(units_of_terms(example).sums(gaps), whole=whole)


@dataclass(frozen=True, slots=True, eq=False)
class Stepped:
    """What came of it. `logprobs` are those of each part's masked tokens, before the weights moved."""

    loss: float
    gradient_norm: float
    logprobs: tuple[Floats, ...]


class Backend(Protocol):
    """What an update asks of those that hold the weights."""

    @property
    def learning_rate(self) -> float:
        """Of the next optimizer step."""

    def current(self, examples: Sequence[Example]) -> list[Floats]:
        """log π of every response token, now."""

    def initial(self, examples: Sequence[Example]) -> list[Floats]:
        """The same under the policy that training began with; asked only with a `kl_coefficient`."""

    def step(self, step: Step) -> Stepped:
        """One optimizer step. A loss or gradient that is not finite raises, and touches no weight."""


def update(examples: Sequence[Example], backend: Backend, options: UpdateOptions) -> Metrics:
    """The optimizer steps that these examples ask for: none, if they teach nothing."""
    coefficient = options.kl_coefficient
    learning_rate = backend.learning_rate
    plan = minibatches(examples, options.minibatches)
    starts = _known(backend.current, _later_starts(plan, options))
    asking = [example for example in examples if coefficient != 0.0 and teaches(example, coefficient)]
    references = _known(backend.initial, asking)
    taken: list[tuple[Step, Stepped]] = []
    for index, members in enumerate(plan):
        step = _step(members, index, starts, references, options)
        if step.parts:
            taken.append((step, backend.step(step)))
    return {
        "loss": float(np.mean([stepped.loss for _, stepped in taken])) if taken else 0.0,
        "gradient_norm": float(np.mean([stepped.gradient_norm for _, stepped in taken])) if taken else 0.0,
        "learning_rate": learning_rate,
        "optimizer_steps": float(len(taken)),
        "trained_tokens": float(sum(int(example.mask.sum()) for example in examples)),
        "clip_share": _clip_share(taken),
        **measured(_gaps(taken), Behaviour(options.behaviour, options.behaviour_cap)),
    }


def minibatches(examples: Sequence[Example], count: int) -> list[list[Example]]:
    """The examples of each optimizer step: lower `order` first, otherwise as they came, cut into `count` even parts."""
    if count < 1:
        raise InvalidInputError(f"minibatches must be at least 1, got {count}")
    ordered = sorted(examples, key=lambda example: example.order)
    borders = [round(i * len(ordered) / count) for i in range(count + 1)]
    parts = (ordered[start:end] for start, end in pairwise(borders))
    return [part for part in parts if part]


def teaches(example: Example, kl_coefficient: float = 0.0) -> bool:
    """Whether this example can move the policy: something is masked in, and a term of it is not identically zero."""
    mask = example.mask
    if example.weight == 0.0 or not mask.any():
        return False
    if not loss_of(example.loss).needs.advantage or kl_coefficient != 0.0:
        return True
    pulled = (
        example.kl_weight != 0.0 and example.reference is not None and bool(np.isfinite(example.reference[mask]).any())
    )
    return pulled or bool(np.any(example.advantages[mask] != 0.0))


def _step(
    members: Sequence[Example], index: int, starts: PerExample, references: PerExample, options: UpdateOptions
) -> Step:
    coefficient = options.kl_coefficient
    parts = [
        Part(
            example,
            float(scale),
            starts.get(id(example)) if example.anchor is None else example.anchor,
            references.get(id(example)),
            coefficient,
            starts.get(id(example)),
        )
        for example, scale in zip(members, scales(members, options.aggregation), strict=True)
        if teaches(example, coefficient)
    ]
    return Step(tuple(parts), index, Behaviour(options.behaviour, options.behaviour_cap))


def _later_starts(plan: Sequence[Sequence[Example]], options: UpdateOptions) -> list[Example]:
    """The examples that need log π from before the first step: in the first, the policy is still the old one."""
    later = (example for members in plan[1:] for example in members if teaches(example, options.kl_coefficient))
    weighed = options.behaviour != "off"
    return [
        e for e in later if (e.anchor is None and loss_of(e.loss).needs.anchor) or (e.behaviour is not None and weighed)
    ]


def _known(score: ScoresExamples, examples: Sequence[Example]) -> PerExample:
    if not examples:
        return {}
    return {id(example): values for example, values in zip(examples, score(examples), strict=True)}


class ScoresExamples(Protocol):
    def __call__(self, examples: Sequence[Example], /) -> list[Floats]: ...


def _gaps(taken: Sequence[tuple[Step, Stepped]]) -> list[Floats]:
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


def _clip_share(taken: Sequence[tuple[Step, Stepped]]) -> float:
    """The share of the tokens computed whose own ratio went as far as it may: there is credit, and no slope is left."""
    clipped = tokens = 0
    for step, stepped in taken:
        for part, logprobs in zip(step.parts, stepped.logprobs, strict=True):
            tokens += logprobs.size
            clipped += _clipped(part, logprobs, step.minibatch)
    return clipped / max(tokens, 1)


def _clipped(part: Part, logprobs: Floats, minibatch: int) -> int:
    example = part.example
    if part.anchor is None or not loss_of(example.loss).needs.anchor:
        return 0
    _, slope = term_of(example, logprobs, part.anchor[example.mask], minibatch)
    return int(((slope == 0.0) & (example.advantages[example.mask] != 0.0)).sum())
