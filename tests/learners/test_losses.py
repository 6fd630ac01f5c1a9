"""The losses: the numpy reference against worked numbers and finite differences, the tensors against the reference."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.example import Example
from learners.losses import CappedSequence, ShapedProbability, example_loss, kl_k3, pull, scales
from learners.torch.losses import Pull, Terms, total_loss
from learners.update import teaches
from mutual_env.types import CrossEntropy, Floats, LossSpec, PolicyGradient

LOSSES: list[LossSpec] = [
    PolicyGradient(),
    PolicyGradient(clip_low=0.1, clip_high=0.28, ratio_cap=1.15),
    PolicyGradient(ratio="sequence", clip_low=3e-4, clip_high=4e-4),
    PolicyGradient(ratio="sequence"),
    PolicyGradient(ratio="none"),
    CrossEntropy(),
    ShapedProbability(),
    CappedSequence(),
    CappedSequence(floor=0.5, alpha=3.0, cap=1.2),
]


def example(loss: LossSpec, advantages: list[float], mask: list[bool] | None = None, **changes: object) -> Example:
    size = len(advantages)
    base = Example(
        np.array([1], np.int32),
        np.zeros(size, np.int32),
        np.array(mask or [True] * size),
        np.array(advantages),
        loss,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_the_clip_stops_what_has_moved_far_enough_in_its_own_direction() -> None:
    # Ratios 1.5, 1.5, 0.5, 0.5 with advantages 1, -1, 1, -1 and clip 0.2:
    # -min(1.5, 1.2) = -1.2, -min(-1.5, -1.2) = 1.5, -min(0.5, 0.8) = -0.5, -min(-0.5, -0.8) = 0.8; sum 0.6.
    # Slopes by log π are -ρA where the plain side is taken: 0, 1.5, -0.5, 0.
    logprobs = np.log([0.75, 0.75, 0.25, 0.25])
    loss, slope = example_loss(example(PolicyGradient(), [1, -1, 1, -1]), logprobs, np.log(np.full(4, 0.5)))
    assert loss == pytest.approx(0.6)
    assert slope == pytest.approx([0.0, 1.5, -0.5, 0.0])


def test_a_sequence_ratio_is_the_geometric_mean_of_the_token_ratios() -> None:
    # Ratios 2 and 1/2 have geometric mean 1: no clip, loss -A each, and the slope -A ρ / T summed over T tokens is -A.
    logprobs, anchor = np.log([0.5, 0.25]), np.log([0.25, 0.5])
    loss, slope = example_loss(example(PolicyGradient(ratio="sequence"), [2.0, 2.0]), logprobs, anchor)
    assert loss == pytest.approx(-4.0)
    assert slope == pytest.approx([-2.0, -2.0])


@pytest.mark.parametrize(
    ("loss", "value", "slopes"),
    [
        # Ratios 3 and .5, A = -1, cap 2: the term is min(ρ, 2); "clamp" leaves no slope above the cap, "weight" that of
        # the weight 2, "mask" not even the term. Below, 1 - .2 is where the clip stops.
        (PolicyGradient(ratio_cap=2.0), 2.0 + 0.8, [0.0, 0.0]),
        (PolicyGradient(ratio_cap=2.0, above_cap="weight"), 2.0 + 0.8, [2.0, 0.0]),
        (PolicyGradient(ratio_cap=2.0, above_cap="mask"), 0.8, [0.0, 0.0]),
        # At most 2.5 |A|, and no slope from there on.
        (PolicyGradient(dual_clip=2.5), 2.5 + 0.8, [0.0, 0.0]),
        (PolicyGradient(dual_clip=3.5), 3.0 + 0.8, [3.0, 0.0]),
    ],
)
def test_what_bounds_a_ratio_of_what_is_to_become_less_likely(
    loss: PolicyGradient, value: float, slopes: list[float]
) -> None:
    logprobs = np.log([0.3, 0.05])
    total, slope = example_loss(example(loss, [-1.0, -1.0]), logprobs, np.log([0.1, 0.1]))
    assert total == pytest.approx(value)
    assert slope == pytest.approx(slopes)


def test_shaped_probability_is_p_over_p_plus_gamma() -> None:
    # p = 0.1, gamma = 0.1: f = 0.5, loss -0.5; slope by log p = -p gamma / (p + gamma)^2 = -0.01 / 0.04 = -0.25.
    loss, slope = example_loss(example(ShapedProbability(), [1.0]), np.log([0.1]), np.zeros(1))
    assert (loss, slope[0]) == (pytest.approx(-0.5), pytest.approx(-0.25))


def test_a_capped_sequence_learns_only_between_its_floor_and_its_cap() -> None:
    # s = 0.81 with floor 0.8: -0.81^2 A per token at minibatch 0; at minibatch 1 the floor is 0.825 and the slope is 0.
    lesson = example(CappedSequence(), [1.0, 1.0])
    logprobs = np.full(2, math.log(0.81))
    loss, slope = example_loss(lesson, logprobs, np.zeros(2), minibatch=0)
    assert loss == pytest.approx(-2 * 0.81**2)
    assert slope == pytest.approx([-(0.81**2)] * 2)
    loss, slope = example_loss(lesson, logprobs, np.zeros(2), minibatch=1)
    assert loss == pytest.approx(-2 * 0.825**2)
    assert slope.tolist() == [0.0, 0.0]


def test_kl_is_zero_at_the_reference_and_counts_nothing_where_there_is_none() -> None:
    assert kl_k3(np.array([-1.0]), np.array([-1.0]))[0].tolist() == [0.0]
    # d = log 2: 2 - log 2 - 1.
    pulled = example(PolicyGradient(), [0, 0], reference=np.array([np.nan, math.log(0.5)]), kl_weight=0.5)
    loss, slope = example_loss(pulled, np.log([0.3, 0.25]), np.log([0.3, 0.25]))
    assert loss == pytest.approx(0.5 * (1 - math.log(2)))
    assert slope == pytest.approx([0.0, 0.5 * (1 - 2)])


def test_a_ratio_beyond_every_float_gives_finite_numbers() -> None:
    for advantage in (1.0, -1.0):
        loss, slope = example_loss(example(PolicyGradient(), [advantage]), np.array([-1.0]), np.array([-2000.0]))
        assert np.isfinite([loss, *slope]).all()


def test_denominators_count_tokens_of_their_own_kind_and_ignore_weights() -> None:
    # Policy-gradient tokens: 3 + 1 (zero advantage counts) = 4; cross-entropy tokens: 2.
    step = [
        example(PolicyGradient(), [1, 1, 1], weight=2.0),
        example(PolicyGradient(), [0, 0, 0], [True, False, False]),
        example(CrossEntropy(), [0, 0], weight=0.1),
    ]
    assert scales(step) == pytest.approx([2 / 4, 1 / 4, 0.1 / 2])
    # Sequence mean: over the mean of each of two policy-gradient sequences, and of one cross-entropy sequence.
    assert scales(step, "sequence_mean") == pytest.approx([2 / 3 / 2, 1 / 1 / 2, 0.1 / 2])
    # Dr. GRPO: each sum over a sequence is divided by the number of sequences and one constant length.
    assert scales(step, "constant", 8) == pytest.approx([2 / 2 / 8, 1 / 2 / 8, 0.1 / 8])
    # What a lesson says goes before what the learner does.
    said = [replace(step[0], aggregation="sequence_mean"), *step[1:]]
    assert scales(said) == pytest.approx([2 / 3 / 2, 1 / 4, 0.1 / 2])


def test_what_teaches() -> None:
    assert teaches(example(PolicyGradient(), [1.0]))
    assert not teaches(example(PolicyGradient(), [0.0]))
    assert not teaches(example(PolicyGradient(), [1.0], [False]))
    assert not teaches(example(PolicyGradient(), [1.0], weight=0.0))
    assert teaches(example(CrossEntropy(), [0.0]))
    assert teaches(example(PolicyGradient(), [0.0]), regularised=True)
    assert teaches(example(PolicyGradient(), [0.0], reference=np.array([-1.0]), kl_weight=0.1))
    assert not teaches(example(PolicyGradient(), [0.0], reference=np.array([np.nan]), kl_weight=0.1))


@settings(max_examples=60, deadline=None)
@given(loss=st.sampled_from(LOSSES), seed=st.integers(0, 10**6), size=st.integers(1, 6), minibatch=st.integers(0, 3))
def test_slopes_are_those_of_finite_differences(loss: LossSpec, seed: int, size: int, minibatch: int) -> None:
    lesson, logprobs, anchor, reference = draw(loss, seed, size)
    if isinstance(loss, CappedSequence):
        loss = replace(loss, alpha=0.0)  # s · stopgrad(s)^alpha is no function whose slope a difference could show
        lesson = replace(lesson, loss=loss)
    _, slope = with_kl(lesson, logprobs, anchor, minibatch, reference)
    step = 1e-6
    for t in range(size):
        moved = [
            with_kl(lesson, logprobs + sign * step * np.eye(size)[t], anchor, minibatch, reference)[0]
            for sign in (1, -1)
        ]
        difference = (moved[0] - moved[1]) / (2 * step)
        if isinstance(loss, PolicyGradient) and loss.ratio == "none":
            difference += -lesson.advantages[t] * lesson.mask[t]  # its value is -A, its slope that of -A log π
        assert slope[t] == pytest.approx(difference, abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(
    losses=st.lists(st.sampled_from(LOSSES), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
    minibatch=st.integers(0, 3),
)
def test_tensors_agree_with_the_reference(losses: list[LossSpec], seed: int, minibatch: int) -> None:
    drawn = [draw(loss, seed + i, 1 + (seed + i) % 5) for i, loss in enumerate(losses)]
    lessons = [d[0] for d in drawn]
    scale = scales(lessons)
    expected, slopes = 0.0, []
    for (lesson, logprobs, anchor, reference), s in zip(drawn, scale, strict=True):
        value, slope = with_kl(lesson, logprobs, anchor, minibatch, reference)
        expected += s * value
        slopes.append((s * slope)[lesson.mask])
    counts = [int(lesson.mask.sum()) for lesson in lessons]
    distinct = tuple(dict.fromkeys(losses))

    def flat(arrays: list[Floats]) -> torch.Tensor:
        return torch.tensor(np.concatenate([a[lesson.mask] for a, lesson in zip(arrays, lessons, strict=True)]))

    def spread(values: list[float]) -> torch.Tensor:
        return torch.tensor(np.repeat(values, counts))

    weights = [lesson.kl_weight for lesson in lessons]
    terms = Terms(
        owners=spread(list(range(len(lessons)))),
        scale=spread(scale.tolist()),
        advantages=flat([lesson.advantages for lesson in lessons]),
        anchor=flat([d[2] for d in drawn]),
        pulls=(
            Pull(
                flat([lesson.reference for lesson in lessons]),
                spread([w * s for w, s in zip(weights, scale, strict=True)]),
            ),
            Pull(flat([d[3] for d in drawn]), spread([0.05 * s for s in scale])),
        ),
        losses=distinct,
        kinds=spread([distinct.index(loss) for loss in losses]),
        minibatch=minibatch,
    )
    leaf = flat([d[1] for d in drawn]).requires_grad_()
    total = total_loss(leaf, terms)
    total.backward()
    assert float(total.detach()) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert leaf.grad.numpy() == pytest.approx(np.concatenate(slopes), rel=1e-9, abs=1e-12)


def with_kl(
    lesson: Example, logprobs: Floats, anchor: Floats, minibatch: int, reference: Floats
) -> tuple[float, Floats]:
    """With the learner's own pull, at .05 of the lesson's scale."""
    loss, slope = example_loss(lesson, logprobs, anchor, minibatch)
    value, pulling = pull(lesson, logprobs, reference)
    return loss + 0.05 * value, slope + 0.05 * pulling


def draw(loss: LossSpec, seed: int, size: int) -> tuple[Example, Floats, Floats, Floats]:
    """A lesson, log-probabilities near their anchor, and a reference; some tokens masked, some without a reference."""
    numbers = np.random.default_rng(seed)
    logprobs = np.log(numbers.uniform(0.05, 0.95, size))
    mask = numbers.random(size) < 0.8
    mask[0] = True
    lesson = Example(
        np.array([1], np.int32),
        np.zeros(size, np.int32),
        mask,
        numbers.normal(size=size) if not isinstance(loss, CappedSequence) else np.full(size, numbers.normal()),
        loss,
        weight=float(numbers.uniform(0.2, 2.0)),
        reference=np.where(numbers.random(size) < 0.3, np.nan, logprobs + numbers.normal(scale=0.3, size=size)),
        kl_weight=float(numbers.uniform(0, 0.3)),
    )
    anchor = logprobs + numbers.normal(scale=0.2, size=size)
    return lesson, logprobs, anchor, logprobs + numbers.normal(scale=0.3, size=size)
