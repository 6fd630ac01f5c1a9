"""Tokens that are compared as one: by their sums, in NumPy and in torch, whole or cut into chunks of the vocabulary."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.example import Example
from learners.losses import CappedSequence, example_loss, scales
from learners.step import Part, Step
from learners.torch.head import backward_through_head, target_logprobs
from learners.torch.losses import terms_of, total_loss
from learners.torch.model import Head
from learners.units import Units, units_of
from mutual_env.errors import InvalidInputError, MisalignedError
from mutual_env.types import CrossEntropy, Floats, LossSpec, NamedLoss, PolicyGradient

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
LOSSES: list[LossSpec] = [
    PolicyGradient(),
    PolicyGradient(clip_low=0.5, clip_high=3.0),
    PolicyGradient(ratio="none"),
    PolicyGradient(ratio="sequence"),
    CrossEntropy(),
    NamedLoss.of("shaped_probability", gamma=0.1),
    CappedSequence(floor=0.1, cap=5.0),
]


def test_neighbours_of_one_chunk_are_a_unit_and_what_is_outside_stands_alone() -> None:
    assert units_of(np.array([0, 0, 1, -1, -1, 4, 4, 4])).tolist() == [0, 0, 1, 2, 3, 4, 4, 4]  # type: ignore[union-attr]
    assert units_of(np.array([0, 1, -1, -1, 4])) is None
    assert units_of(np.array([], np.int64)) is None


def test_masked_units_are_left_out_whole() -> None:
    units = Units.among(np.array([True, True, False, False, True]), np.array([0, 0, 1, 1, 2]))
    assert (units.starts.tolist(), units.sizes.tolist()) == ([0, 2], [2, 1])
    assert units.sums(np.array([1.0, 2.0, 4.0])).tolist() == [3.0, 4.0]
    assert units.spread(np.array([3.0, 4.0])).tolist() == [3.0, 3.0, 4.0]


def example(loss: LossSpec, logprobs: Floats, anchor: Floats, **changes: object) -> Example:
    size = logprobs.size
    ids = np.zeros(size, np.int32)
    base = Example(np.ones(1, np.int32), ids, np.ones(size, np.bool_), np.full(size, -1.0), loss, anchor=anchor)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_chunk_is_one_term_and_its_slope_is_every_tokens() -> None:
    # Token ratios 2 and 1/2 make 1: the term is -(1 · -1) = 1 once, its slope -ρA = 1 at both. Token by token the ratio
    # 1/2 would be clipped away at A = -1: terms 2 and .8, slopes 2 and 0.
    logprobs, anchor = np.log([0.5, 0.25]), np.log([0.25, 0.5])
    loss, slope = example_loss(
        example(PolicyGradient(), logprobs, anchor, units=np.zeros(2, np.int64)), logprobs, anchor
    )
    assert (loss, slope.tolist()) == (pytest.approx(1.0), pytest.approx([1.0, 1.0]))
    loss, slope = example_loss(example(PolicyGradient(), logprobs, anchor), logprobs, anchor)
    assert (loss, slope.tolist()) == (pytest.approx(2.8), pytest.approx([2.0, 0.0]))


def test_a_divergence_is_of_the_sums_as_well() -> None:
    # Sums log .125 and log .25: d = log 2, k3 = 2 - log 2 - 1, slope 1 - 2 at both tokens; half of it is asked for.
    logprobs, reference = np.log([0.5, 0.25]), np.log([0.25, 1.0])
    units = np.zeros(2, np.int64)
    pulled = example(PolicyGradient(), logprobs, logprobs, advantages=np.zeros(2))
    pulled = replace(pulled, reference=reference, reference_units=units, kl_weight=0.5)
    loss, slope = example_loss(pulled, logprobs, logprobs)
    assert (loss, slope.tolist()) == (pytest.approx(0.5 * (1 - math.log(2))), pytest.approx([-0.5, -0.5]))


def test_units_that_cannot_be_are_refused() -> None:
    logprobs = np.zeros(3)
    with pytest.raises(MisalignedError, match="units"):
        example(CrossEntropy(), logprobs, logprobs, units=np.zeros(2, np.int64))
    with pytest.raises(InvalidInputError, match="must not fall"):
        example(CrossEntropy(), logprobs, logprobs, units=np.array([0, 1, 0]))
    with pytest.raises(InvalidInputError, match="mask must be the same"):
        example(CrossEntropy(), logprobs, logprobs, units=np.array([0, 0, 1]), mask=np.array([True, False, True]))
    references = {"reference": np.array([np.nan, 0.0, 0.0]), "reference_units": np.array([0, 0, 1])}
    with pytest.raises(InvalidInputError, match="reference must be known"):
        example(CrossEntropy(), logprobs, logprobs, **references)


def drawn(loss: LossSpec, seed: int) -> tuple[Example, Floats]:
    """An example in chunks of one to three tokens, some masked, some without a reference; log π near its anchor."""
    numbers = np.random.default_rng(seed)

    def chunks() -> tuple[np.ndarray, int]:
        sizes = numbers.integers(1, 4, 5)
        return np.arange(5).repeat(sizes), int(sizes.sum())

    units, size = chunks()
    logprobs = np.log(numbers.uniform(0.05, 0.95, size))
    kept = numbers.random(5) < 0.8
    kept[0] = True
    known = np.where(numbers.random(5) < 0.3, np.nan, 0.0)
    made = example(
        loss,
        logprobs,
        logprobs + numbers.normal(scale=0.2, size=size),
        mask=kept[units],
        advantages=np.full(size, numbers.normal()),
        weight=float(numbers.uniform(0.2, 2.0)),
        units=units,
        reference=known[units] + logprobs + numbers.normal(scale=0.3, size=size),
        reference_units=units,
        kl_weight=float(numbers.uniform(0, 0.3)),
    )
    return made, logprobs


@settings(max_examples=60, deadline=None)
@given(losses=st.lists(st.sampled_from(LOSSES), min_size=1, max_size=4), seed=st.integers(0, 10**6))
def test_tensors_agree_with_the_reference(losses: list[LossSpec], seed: int) -> None:
    pairs = [drawn(loss, seed + i) for i, loss in enumerate(losses)]
    scale = scales([e for e, _ in pairs])
    parts = [Part(e, float(s), e.anchor) for (e, _), s in zip(pairs, scale, strict=True)]
    leaf = torch.tensor(np.concatenate([logprobs[e.mask] for e, logprobs in pairs]), dtype=torch.float32)
    leaf.requires_grad_()
    total = total_loss(leaf, terms_of(parts, Step(tuple(parts), 1), CPU))
    total.backward()
    expected, slopes = 0.0, []
    for part, (e, logprobs) in zip(parts, pairs, strict=True):
        value, slope = example_loss(e, logprobs, e.anchor, 1)  # type: ignore[arg-type]
        expected += part.scale * value
        slopes.append((part.scale * slope)[e.mask])
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), np.concatenate(slopes), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 4, 7])
def test_chunks_of_the_vocabulary_cut_no_unit_in_two(chunk: int) -> None:
    pairs = [drawn(PolicyGradient(), seed) for seed in (1, 2, 3)]
    parts = [Part(e, 0.1, e.anchor) for e, _ in pairs]
    terms = terms_of(parts, Step(tuple(parts), 0), CPU)
    tokens = sum(int(e.mask.sum()) for e, _ in pairs)
    cuts = terms.cuts(tokens, chunk)
    assert [a for a, _ in cuts[1:]] == [b for _, b in cuts[:-1]]
    assert (cuts[0][0], cuts[-1][1]) == (0, tokens)
    assert terms.spans is not None
    assert {end for _, end in cuts} <= set(terms.spans.ends.tolist())
    assert all(b - a <= max(chunk, 3) for a, b in cuts)
    torch.manual_seed(0)
    weight, hidden, targets = torch.randn(50, 8), torch.randn(tokens, 8), torch.randint(0, 50, (tokens,))
    head = Head(torch.nn.Parameter(weight.clone()), None, 50, 1.0, None)
    sums, (pull,) = terms.spans.sums(target_logprobs(head, hidden, targets, 99)), terms.pulls
    near = replace(pull, reference=torch.where(pull.reference.isnan(), torch.nan, sums - 0.3))
    terms = replace(terms, anchor=sums - 0.05, pulls=(near,))
    whole = backward_through_head(head, hidden, targets, terms, 999)
    cut = backward_through_head(head, hidden, targets, terms, chunk)
    assert torch.allclose(whole.loss, cut.loss, atol=1e-6)
    assert torch.allclose(whole.hidden, cut.hidden, atol=1e-6)
