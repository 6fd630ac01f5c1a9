"""One update, whatever the backend: minibatches, anchors, references, the loop over optimizer steps, metrics.

A backend scores examples and takes one optimizer step; it knows no minibatch, no anchor and no metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np

from learners.behaviour import Behaviour, Mode, measured
from learners.example import Example
from learners.losses import is_own, needs_of, own_scales, scales
from learners.minibatches import By, minibatches
from learners.step import Part, Step, Stepped
from learners.update_metrics import own_gaps, slope_metrics
from mutual_env.errors import InvalidInputError
from mutual_env.types import Aggregation, Floats, Metrics

PerExample: TypeAlias = Mapping[int, Floats]
"""One number for each response token, by the `id` of the example."""


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How an update is made of examples, with every backend.

    Steps: `minibatches` an epoch, cut by "prompts" or by "samples" (`minibatches_by`), `epochs`, `shuffle` (another
    order of prompts or samples in each epoch); see `learners.minibatches`.
    Terms: `aggregation` (where a strategy does not say), with "constant" over sequences of `constant_length` tokens;
    `kl_coefficient` to the policy that training began with, and `entropy_coefficient`, a bonus for the entropy of the
    distribution that each token was drawn from; both on own samples. `reference_reset`: after every so many updates the
    policy as it then is takes the place of the one that training began with (0: never).
    `behaviour`, `behaviour_cap` and `behaviour_floor`: how own samples are weighed that another version, engine or
    precision of the policy wrote (see `Behaviour`; YAML reads `off` as false, which means the same).
    """

    minibatches: int = 1
    minibatches_by: By = "prompts"
    epochs: int = 1
    shuffle: bool = False
    aggregation: Aggregation = "token_mean"
    constant_length: int = 0
    kl_coefficient: float = 0.0
    reference_reset: int = 0
    entropy_coefficient: float = 0.0
    behaviour: Mode | Literal[False] = "token"
    behaviour_cap: float = 2.0
    behaviour_floor: float | None = None

    def __post_init__(self) -> None:
        if self.behaviour is False:
            object.__setattr__(self, "behaviour", "off")
        _ = self.rule  # which refuses what it cannot be
        for name in ("minibatches", "epochs"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        for name, values in (("minibatches_by", get_args(By)), ("aggregation", get_args(Aggregation))):
            if getattr(self, name) not in values:
                raise InvalidInputError(f"{name} must be one of {', '.join(values)}, got {getattr(self, name)!r}")
        for name in ("kl_coefficient", "entropy_coefficient", "constant_length", "reference_reset"):
            if getattr(self, name) < 0:
                raise InvalidInputError(f"{name} must not be negative, got {getattr(self, name)!r}")
        if self.reference_reset and not self.kl_coefficient:
            raise InvalidInputError(
                f"reference_reset={self.reference_reset} resets what a KL term pulls to, and there is no such term: "
                "give a kl_coefficient above 0"
            )

    @property
    def rule(self) -> Behaviour:
        """How own samples are weighed."""
        return Behaviour(self.behaviour or "off", self.behaviour_cap, self.behaviour_floor)

    def resets_after(self, updates: int) -> bool:
        """Whether the reference is now to become the policy, after so many updates in all."""
        return self.reference_reset > 0 and updates % self.reference_reset == 0

    @property
    def regularised(self) -> bool:
        """Whether own samples teach something whatever they are worth."""
        return self.kl_coefficient != 0.0 or self.entropy_coefficient != 0.0

    @property
    def length(self) -> int:
        """That of a sequence, where a loss is averaged over sequences of a constant length."""
        return max(self.constant_length, 1)


class Backend(Protocol):
    """What an update asks of those that hold the weights."""

    @property
    def learning_rate(self) -> float:
        """Of the next optimizer step."""

    def current(self, examples: Sequence[Example]) -> list[Floats]:
        """log π of every response token, now."""

    def reference(self, examples: Sequence[Example]) -> list[Floats]:
        """The same under the policy that is pulled to; asked only with a `kl_coefficient`."""

    def step(self, step: Step) -> Stepped:
        """One optimizer step. A loss or gradient that is not finite raises, and touches no weight."""


def update(examples: Sequence[Example], backend: Backend, options: UpdateOptions) -> Metrics:
    """The optimizer steps that these examples ask for: none, if they teach nothing."""
    learning_rate = backend.learning_rate
    plan = minibatches(
        examples,
        options.minibatches,
        by=options.minibatches_by,
        epochs=options.epochs,
        shuffle=options.shuffle,
        teaches=partial(teaches, regularised=options.regularised),
    )
    starts = _known(backend.current, _later_starts(plan, options))
    asking = [e for e in examples if options.kl_coefficient != 0.0 and is_own(e) and e.mask.any()]
    references = _known(backend.reference, asking)
    taken: list[tuple[Step, Stepped]] = []
    for index, members in enumerate(plan):
        step = _step(members, index, starts if index else {}, references, options)
        if step.parts:
            taken.append((step, backend.step(step)))
    return {
        "loss": float(np.mean([stepped.loss for _, stepped in taken])) if taken else 0.0,
        "gradient_norm": float(np.mean([stepped.gradient_norm for _, stepped in taken])) if taken else 0.0,
        "learning_rate": learning_rate,
        "optimizer_steps": float(len(taken)),
        "trained_tokens": float(sum(int(example.mask.sum()) for example in examples)),
        **slope_metrics(taken),
        **measured(_gaps_of_an_epoch(taken, plan, options), options.rule),
    }


def _gaps_of_an_epoch(
    taken: Sequence[tuple[Step, Stepped]], plan: Sequence[Sequence[Example]], options: UpdateOptions
) -> list[Floats]:
    first = len(plan) // options.epochs
    return own_gaps([(step, stepped) for step, stepped in taken if step.minibatch < first])


def teaches(example: Example, *, regularised: bool = False) -> bool:
    """Whether this example can move the policy: something is masked in, and a term of it is not identically zero."""
    mask = example.mask
    if not mask.any():
        return False
    if regularised and is_own(example):
        return True
    if example.weight == 0.0:
        return False
    if not needs_of(example.loss).advantage:
        return True
    pulled = (
        example.kl_weight != 0.0 and example.reference is not None and bool(np.isfinite(example.reference[mask]).any())
    )
    return pulled or bool(np.any(example.advantages[mask] != 0.0))


def _step(
    members: Sequence[Example], index: int, starts: PerExample, references: PerExample, options: UpdateOptions
) -> Step:
    scale = scales(members, options.aggregation, options.length)
    own_scale = own_scales(members, options.aggregation, options.length) if options.regularised else 0.0 * scale
    parts = [
        Part(
            example,
            float(scale[at]),
            starts.get(id(example)) if example.anchor is None else example.anchor,
            references.get(id(example)),
            options.kl_coefficient * float(own_scale[at]),
            starts.get(id(example)),
            options.entropy_coefficient * float(own_scale[at]),
        )
        for at, example in enumerate(members)
        if teaches(example, regularised=options.regularised)
    ]
    return Step(tuple(parts), index, options.rule)


def _later_starts(plan: Sequence[Sequence[Example]], options: UpdateOptions) -> list[Example]:
    """The examples that need log π from before the first step: in the first, the policy is still the old one."""
    later = {id(e): e for members in plan[1:] for e in members if teaches(e, regularised=options.regularised)}
    weighed = options.behaviour != "off"
    return [
        e
        for e in later.values()
        if (e.anchor is None and needs_of(e.loss).anchor) or (e.behaviour is not None and weighed)
    ]


def _known(score: ScoresExamples, examples: Sequence[Example]) -> PerExample:
    if not examples:
        return {}
    return {id(example): values for example, values in zip(examples, score(examples), strict=True)}


class ScoresExamples(Protocol):
    def __call__(self, examples: Sequence[Example], /) -> list[Floats]: ...
