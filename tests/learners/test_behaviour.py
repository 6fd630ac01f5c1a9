"""Own rollouts that another version, engine, precision or temperature of the policy wrote: weighed, and measured."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learners.batch import build_batch
from learners.behaviour import Behaviour, Mode
from learners.example import Example
from learners.losses import Tensors
from learners.protocol import Learner
from learners.tabular import TabularLearner
from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from mutual_env.errors import InvalidInputError
from mutual_env.types import AuthorPolicy, Experience, Floats, Lesson, OldPolicy, PolicyGradient, Task, Verdict
from tests.learners.tiny_policies import TOKENIZER, llama
from tokenizers_bridge import CharTokenizer, TokenizerBridge

pytestmark = pytest.mark.torch

CHARS = CharTokenizer("ab")
PROMPT = CHARS.render_prompt("a")
A, B = (int(CHARS.encode_batch([text])[0][0]) for text in "ab")


def at(p: float, **options: Any) -> TabularLearner:
    """A policy that writes "a" with this probability, and otherwise "b"."""
    policy = TabularLearner(CHARS, name="p", max_new_tokens=1, learning_rate=1.0, **options)
    row = np.full(CHARS.vocab_size, -60.0)
    row[[A, B]] = math.log(p), math.log(1.0 - p)
    policy._table[(*PROMPT.tolist(), -1, 0)] = row
    return policy


def arm(token: int, sampled_at: float, advantage: float, **changes: Any) -> Example:
    one = Example(PROMPT, np.array([token], np.int32), np.ones(1, np.bool_), np.array([advantage]))
    return replace(replace(one, behaviour=np.array([math.log(sampled_at)])), **changes)


def moved(policy: TabularLearner, examples: list[Example]) -> float:
    """The update of the logit of "a", which has learning rate 1: the gradient."""
    key = (*PROMPT.tolist(), -1, 0)
    before = policy._table[key][A]
    policy.update(examples)
    return float(policy._table[key][A] - before)


@pytest.mark.parametrize(
    ("options", "gradient"),
    [
        # Arm a is worth 1 and b 0, P(a) is .6, A = r - .6: E_π[A (1[a] - .6)] = .6 .4 .4 + .4 .6 .6 = .24.
        ({"behaviour_cap": math.inf}, 0.24),
        # Sampled at P(a) = .1 and taken for one's own: .1 .4 .4 + .9 .6 .6 = .34.
        ({"behaviour": "off"}, 0.34),
        # Weights .6/.1 = 6, cut at 2, and .4/.9: .1 2 .4 .4 + .9 (.4/.9) .6 .6 = .032 + .144.
        ({}, 0.176),
        # Of these sequences of one token, only what lies within [1/3, 3] is kept: b, with weight 1.
        ({"behaviour": "mask", "behaviour_cap": 3.0}, 0.9 * 0.36),
        # b's ratio .4/.9 is within [1/3, 3] and kept as a weight; a's, 6, is outside.
        ({"behaviour": "icepop", "behaviour_cap": 3.0}, 0.9 * 0.36 * 0.4 / 0.9),
        # A floor of 1/2 leaves b out too, and a cap of 7 lets a in.
        ({"behaviour": "icepop", "behaviour_cap": 7.0, "behaviour_floor": 0.5}, 0.1 * 6 * 0.16),
        ({"behaviour": "mask", "behaviour_cap": 7.0, "behaviour_floor": 0.5}, 0.1 * 0.16),
    ],
)
def test_what_was_sampled_at_another_probability_is_weighed(options: dict[str, Any], gradient: float) -> None:
    samples = [arm(A, 0.1, 0.4)] + [arm(B, 0.9, -0.6)] * 9
    assert moved(at(0.6, **options), samples) == pytest.approx(gradient)


def test_the_clip_is_around_the_policy_at_the_start_of_the_update_and_not_around_the_one_that_sampled() -> None:
    # π / β = 6 is far outside the clip, π / π_prox = 1: no slope is lost. A clip around β would leave none.
    assert moved(at(0.6, behaviour_cap=10.0), [arm(A, 0.1, 1.0)]) == pytest.approx(6 * 0.4)
    assert moved(at(0.6), [arm(A, 0.1, 1.0, behaviour=None, anchor=np.array([math.log(0.1)]))]) == 0.0


def test_the_weight_of_a_later_step_is_that_of_the_start_of_the_update() -> None:
    # Two epochs of one arm, and a clip that is out of the way. w = .5/.25 = 2 in both. The first has ρ = 1 and moves
    # the logits of a and b by 2 (1 - .5) = 1 and -1; then π = σ(2), and the second moves them by 2 (π / .5) (1 - π).
    later = 1.0 / (1.0 + math.exp(-2.0))
    policy = at(0.5, epochs=2)
    assert moved(policy, [arm(A, 0.25, 1.0, loss=PolicyGradient(clip_high=9.0))]) == pytest.approx(
        1.0 + 2.0 * (later / 0.5) * (1.0 - later)
    )


def test_a_policys_own_fresh_samples_have_weight_one_to_the_last_bit() -> None:
    tables = []
    for mode in ("token", "sequence", "mask", "off"):
        policy = TabularLearner(CHARS, name="p", max_new_tokens=4, behaviour=mode, minibatches=2)
        for round in range(3):
            lessons = sampled(policy, round)
            metrics = policy.update(build_batch(lessons, policy, TokenizerBridge([CHARS])).examples)
            assert metrics["behaviour/gap_max"] == 0.0
            assert metrics["behaviour/effective_sample_size"] == pytest.approx(1.0)
        tables.append({key: row.tobytes() for key, row in policy._table.items()})
    assert tables[0] == tables[1] == tables[2] == tables[3]


def sampled(policy: Learner, round: int, prompts: Sequence[str] = ("a", "b")) -> list[Lesson]:
    groups = policy.act(prompts, 4, seed=round)
    return [
        Lesson(Experience(Task(p, p, ""), policy.name, c, Verdict.scored(0.0, correct=False), round), (-1.0) ** i)
        for p, group in zip(prompts, groups, strict=True)
        for i, c in enumerate(group)
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_models_own_fresh_samples_have_weight_one_to_the_last_bit(temperature: float) -> None:
    weights = []
    for mode in ("token", "sequence", "off"):
        options = TorchOptions(device="cpu", temperature=temperature, behaviour=mode, max_new_tokens=6, minibatches=2)
        policy = TorchLearner(llama(), TOKENIZER, name="p", options=options)
        lessons = sampled(policy, 1, ["1+2=", "12"])
        metrics = policy.update(build_batch(lessons, policy, TokenizerBridge([TOKENIZER])).examples)
        assert metrics["behaviour/gap_max"] < 1e-5
        weights.append(torch.cat([p.detach().flatten() for p in policy.language_model.trainable().values()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_samples_of_four_updates_ago_are_weighed_by_what_has_changed_since() -> None:
    # Each token's slope on fresh weights is w A / tokens, w = min(π_now / β, 2): compared token by token.
    policy = TabularLearner(CHARS, name="p", max_new_tokens=4, learning_rate=20.0)
    bridge = TokenizerBridge([CHARS])
    stale = build_batch(sampled(policy, 0), policy, bridge).examples
    for round in range(1, 5):
        policy.update(build_batch(sampled(policy, round), policy, bridge).examples)
    now = policy.score([e.prompt_ids for e in stale], [e.response_ids for e in stale])
    ratios = [np.exp(new - e.behaviour) for new, e in zip(now, stale, strict=True)]
    assert np.concatenate(ratios).min() < 0.5
    assert np.concatenate(ratios).max() > 2.0
    twin = TabularLearner(CHARS, name="p", max_new_tokens=4, learning_rate=20.0, behaviour="off")
    twin._table = {key: row.copy() for key, row in policy._table.items()}
    weighed = [
        replace(e, advantages=e.advantages * np.minimum(ratio, 2.0), behaviour=None)
        for e, ratio in zip(stale, ratios, strict=True)
    ]
    metrics = policy.update(stale)
    twin.update(weighed)
    assert policy._table.keys() == twin._table.keys()
    assert all(np.allclose(policy._table[key], twin._table[key], rtol=0, atol=1e-12) for key in twin._table)
    gaps = np.concatenate([np.log(ratio) for ratio in ratios])
    assert metrics["behaviour/gap_mean"] == pytest.approx(float(np.abs(gaps).mean()))
    assert metrics["behaviour/gap_max"] == pytest.approx(float(np.abs(gaps).max()))
    assert metrics["behaviour/cut_share"] == pytest.approx(float((gaps > math.log(2.0)).mean()))
    assert 0.0 < metrics["behaviour/effective_sample_size"] < 1.0


def test_a_large_gap_that_nothing_is_done_about_is_said() -> None:
    with pytest.warns(UserWarning, match="give the learner behaviour: token"):
        metrics = at(0.6, behaviour="off").update([arm(A, 0.1, 0.4)])
    assert metrics["behaviour/gap_mean"] == pytest.approx(math.log(6.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        at(0.6).update([arm(A, 0.1, 0.4)])


def test_what_is_no_expectation_under_the_old_policy_is_not_weighed() -> None:
    # An own sample whose ratio is against its sampler already has the correction in its anchor; an imitated one none.
    policy = TabularLearner(CHARS, name="p", max_new_tokens=4)
    (lesson, *_) = sampled(policy, 0)
    for correction, weighed in ((OldPolicy(), True), (AuthorPolicy(), False)):
        (example,) = build_batch([replace(lesson, correction=correction)], policy, TokenizerBridge([CHARS])).examples
        assert (example.behaviour is not None) is weighed


def test_what_both_sides_compare_is_taken_at_the_temperature_of_the_samples() -> None:
    # Twins that sample at .6: the reader's own probability of what its twin wrote is what the twin says.
    reader, twin = (TabularLearner(CHARS, name=n, max_new_tokens=4, temperature=0.6) for n in ("reader", "twin"))
    draw = np.random.default_rng(3)
    table = {(*PROMPT.tolist(), -1, 0): draw.normal(size=CHARS.vocab_size)}
    reader._table, twin._table = dict(table), dict(table)
    task = Task("t", "a", "")
    (group,) = twin.act(["a"], 8, seed=5)
    lessons = [
        Lesson(Experience(task, "twin", c, Verdict.scored(0.0, correct=False), 0), 1.0, correction=AuthorPolicy())
        for c in group
    ]
    metrics = build_batch(lessons, reader, TokenizerBridge([CHARS])).metrics
    assert metrics["batch/ratio_mean"] == pytest.approx(1.0)
    assert metrics["batch/ratio_variance"] < 1e-24
    assert metrics["batch/effective_sample_size"] == pytest.approx(1.0)


def test_the_gradient_is_that_of_the_policy_that_is_sampled_from() -> None:
    # P(a) = σ(2 (log .6 - log .4)) at temperature .5; d log P(a) / d logit = (1 - P(a)) / .5.
    p = 0.6**2 / (0.6**2 + 0.4**2)
    policy = at(0.6, temperature=0.5)
    assert policy.score([PROMPT], [np.array([A], np.int32)])[0] == pytest.approx([math.log(p)])
    assert moved(policy, [arm(A, p, 1.0)]) == pytest.approx((1.0 - p) / 0.5)


@given(
    mode=st.sampled_from(("token", "icepop", "sequence", "mask", "off")),
    cap=st.sampled_from((1.0, 2.0, math.inf)),
    floor=st.sampled_from((None, 0.0, 0.9)),
    whole=st.booleans(),
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
def test_weights_in_torch_are_those_of_numpy(
    mode: Mode, cap: float, floor: float | None, whole: bool, seed: int, sizes: list[int]
) -> None:
    draw = np.random.default_rng(seed)
    rule = Behaviour(mode, cap, floor if mode in ("icepop", "mask") else None)
    gaps: list[Floats] = []
    for size in sizes:
        gap = draw.normal(scale=draw.choice([1e-5, 0.3, 30.0]), size=size)
        gaps.append(np.where(draw.random(size) < 0.2, np.nan, gap))
    owners = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
    row = torch.from_numpy(np.concatenate(gaps))
    expected = np.concatenate([rule.weights(gap, whole=whole) for gap in gaps])
    assert rule.weigh(row, Tensors(row, row, row, owners), whole=whole).numpy() == pytest.approx(expected, rel=1e-12)


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="behaviour must be one of token"):
        TorchOptions(behaviour="tokens")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="behaviour_cap must be at least 1"):
        TabularLearner(CHARS, behaviour_cap=0.5)
    with pytest.raises(InvalidInputError, match="behaviour_floor is a ratio from 0 to 1"):
        TabularLearner(CHARS, behaviour_floor=0.5)
