"""What an update adds to the lessons' losses, and how they are averaged: each against its closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import sharing
from learners.batch import build_batch
from learners.example import Example
from learners.losses import own_scales, scales
from learners.tabular import TabularLearner
from learners.torch.options import TorchOptions
from mutual_env.errors import InvalidInputError
from mutual_env.types import (
    AuthorPolicy,
    Completion,
    CrossEntropy,
    Experience,
    Floats,
    Lesson,
    LossSpec,
    NamedLoss,
    PolicyGradient,
    Task,
    Verdict,
)
from sharing.testing import ScriptedEnv, play, scripted_completion
from tests.learners.tiny_policies import TOKENIZER, gemma, learner, llama
from tests.learners.twins import gradients
from tokenizers_bridge import CharTokenizer, TokenizerBridge

CHARS = CharTokenizer("ab")
PROMPT = CHARS.render_prompt("a")
A, B = (int(CHARS.encode_batch([text])[0][0]) for text in "ab")
ROW = (*PROMPT.tolist(), -1, 0)


def policy_at(p: float, **options: Any) -> TabularLearner:
    """Writes "a" with this probability, and otherwise "b"; its first weights are the uniform policy."""
    policy = TabularLearner(CHARS, name="p", learning_rate=1.0, behaviour="off", **options)
    policy._table[ROW] = logits(p)
    return policy


def logits(p: float) -> np.ndarray[Any, Any]:
    row = np.full(CHARS.vocab_size, -60.0)
    row[[A, B]] = math.log(p), math.log(1.0 - p)
    return row


def wrote(token: int, advantage: float = 0.0, loss: LossSpec | None = None, size: int = 1, **changes: Any) -> Example:
    """A sample of `size` tokens, of which the first is this one."""
    ids = np.array([token] + [B] * (size - 1), np.int32)
    mask, credit = np.ones(size, np.bool_), np.full(size, advantage)
    return replace(Example(PROMPT, ids, mask, credit, loss or PolicyGradient()), **changes)


def move(policy: TabularLearner, *examples: Example) -> float:
    """What the logit of "a" moves by: minus the gradient."""
    before = policy._table[ROW][A]
    policy.update(examples)
    return float(policy._table[ROW][A] - before)


# -- the learner's own KL ---------------------------------------------------------------------------------------------


def kl_move(p: float) -> float:
    """k3's slope at "a" is 1 - π_0 / π with π_0 uniform over the table's first row; the logit moves against it."""
    initial = math.log(1.0 / CHARS.vocab_size)
    first = TabularLearner(CHARS)._initial
    initial = float(first[A] - np.log(np.exp(first).sum()))
    return -(1.0 - math.exp(initial) / p) * (1.0 - p)


@pytest.mark.parametrize("weight", [0.0, 1.0, 10.0])
def test_the_pull_to_the_first_weights_is_the_same_whatever_a_lesson_weighs(weight: float) -> None:
    moved = move(policy_at(0.6, kl_coefficient=0.5), wrote(A, weight=weight))
    assert moved == pytest.approx(0.5 * kl_move(0.6))


def test_what_a_peer_wrote_and_what_is_imitated_pulls_nowhere_and_dilutes_no_pull() -> None:
    # Half of a gradient whose denominator counts own tokens alone.
    own = move(policy_at(0.6, kl_coefficient=0.5), wrote(A))
    assert move(policy_at(0.6, kl_coefficient=0.5), wrote(A), wrote(A, own=False)) == own
    assert move(policy_at(0.6, kl_coefficient=0.5), wrote(A, own=False)) == 0.0
    imitated = move(policy_at(0.6, kl_coefficient=0.5), wrote(A, loss=CrossEntropy(), weight=1e-300))
    assert imitated == pytest.approx(0.0)


def test_the_denominator_of_the_pull_is_that_of_own_samples() -> None:
    step = [wrote(A, size=3), wrote(A, size=5, own=False), wrote(A, loss=CrossEntropy(), size=2), wrote(B, weight=7.0)]
    assert own_scales(step) == pytest.approx([1 / 4, 0.0, 0.0, 1 / 4])
    assert own_scales(step, "sequence_mean") == pytest.approx([1 / 3 / 2, 0.0, 0.0, 1 / 2])
    assert own_scales(step, "constant", 8) == pytest.approx([1 / 8 / 2, 0.0, 0.0, 1 / 8 / 2])


# -- entropy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_bonus_is_the_gradient_of_the_entropy_that_is_sampled_with(temperature: float) -> None:
    # Two arms with P(a) = σ(θ / T): dH/dθ = -p (1 - p) log(p / (1 - p)) / T, whatever was sampled and was worth.
    p = 0.6 ** (1 / temperature) / (0.6 ** (1 / temperature) + 0.4 ** (1 / temperature))
    slope = -p * (1.0 - p) * math.log(p / (1.0 - p)) / temperature
    options = {"entropy_coefficient": 0.3, "temperature": temperature}
    for examples in ([wrote(A)], [wrote(B, weight=7.0)], [wrote(A), wrote(A, own=False)]):
        assert move(policy_at(0.6, **options), *examples) == pytest.approx(0.3 * slope)
    assert move(policy_at(0.6, **options), wrote(A, own=False)) == 0.0
    # Half of the tokens of the step have no entropy to gain: the second token of the long one.
    assert move(policy_at(0.6, **options), wrote(A, size=2)) == pytest.approx(0.3 * slope / 2)


@pytest.mark.torch
@pytest.mark.parametrize("build", [llama, gemma])
@pytest.mark.parametrize("chunk", [1, 128])
def test_a_models_bonus_is_that_of_a_plain_forward(build: Callable[[], Any], chunk: int) -> None:
    policy = learner(build(), entropy_coefficient=0.3, temperature=0.7, max_gradient_norm=0.0, logits_chunk_mib=chunk)
    ids = TOKENIZER.encode_batch(["1+2=", "abc de", "4"])
    own = [Example(ids[0], r, np.arange(r.size) != 1, np.full(r.size, 0.5)) for r in ids[1:]]
    borrowed = Example(ids[0], ids[0], np.ones(ids[0].size, np.bool_), np.zeros(ids[0].size), own=False)
    got = gradients(policy, (*own, borrowed))
    model, total = build(), torch.zeros(())
    count = sum(int(e.mask.sum()) for e in own)
    for example in own:
        row = torch.tensor(np.concatenate([example.prompt_ids, example.response_ids]).astype(np.int64))[None]
        logits = model(input_ids=row).logits[0, ids[0].size - 1 : -1, : TOKENIZER.vocab_size].float() / 0.7
        logs, mask = logits.log_softmax(-1), torch.tensor(example.mask)
        picked = logs[torch.arange(mask.numel()), torch.tensor(example.response_ids.astype(np.int64))]
        entropy = -(logs.exp() * logs).sum(-1)
        # The borrowed one counts in the denominator of the credit, not in that of the bonus.
        total = total - 0.5 * (picked - picked.detach())[mask].sum() / (count + ids[0].size)
        total = total - 0.3 * entropy[mask].sum() / count
    total.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(got[name], parameter.grad, rtol=1e-4, atol=1e-6), name


# -- averages ---------------------------------------------------------------------------------------------------------


def test_a_rescue_weighs_against_an_own_sample_whatever_else_is_in_the_step() -> None:
    rescue = wrote(A, loss=CrossEntropy("policy_gradient"), size=2, weight=0.1)
    # λ = .1 over the step's four policy-gradient tokens: an own token with |A| = 1 has 1/4.
    own = [wrote(A, 1.0, size=3), wrote(A, 1.0)]
    assert scales([*own, rescue]) == pytest.approx([1 / 4, 1 / 4, 0.1 / 4])
    # It counts in no denominator: others are what they were, and so is a second rescue.
    assert scales([*own, rescue, rescue]) == pytest.approx([1 / 4, 1 / 4, 0.1 / 4, 0.1 / 4])
    # Sequences: own ones of three tokens and of one; the rescue's mean over its two, divided by two sequences.
    assert scales([*own, rescue], "sequence_mean") == pytest.approx([1 / 3 / 2, 1 / 2, 0.1 / 2 / 2])
    # Alone in a step it has its own tokens.
    assert scales([rescue, rescue]) == pytest.approx([0.1 / 4, 0.1 / 4])


def lessons(strategy: str, **options: Any) -> tuple[Lesson, ...]:
    """Four prompts; the reader fails on the first two, where its peer does not."""
    wrote = {"me": [["no", "nope"]] * 2 + [["yes", "no"]] * 2, "peer": [["yes", "yes, really"]] * 4}
    env = sharing.make(strategy, ScriptedEnv(("me", "peer"), prompts=4, group=2), **options)
    said = {a: [[scripted_completion(t) for t in g] for g in groups] for a, groups in wrote.items()}
    found: tuple[Lesson, ...] = play(env, said)["me"]["lessons"]
    return found


def test_sgt_weighs_per_rescue_where_it_is_asked_to() -> None:
    for options, loss in (({}, CrossEntropy()), ({"per_rescue": True}, CrossEntropy("policy_gradient"))):
        rescues = [x for x in lessons("sgt", **options) if x.experience.author == "peer"]
        assert [x.loss for x in rescues] == [loss, loss]
        assert [x.weight for x in rescues] == [0.1, 0.1]


def test_a_strategy_says_how_its_loss_is_averaged() -> None:
    assert {x.aggregation for x in lessons("independent")} == {None}
    assert {x.aggregation for x in lessons("independent", ratio="sequence")} == {"sequence_mean"}  # GSPO
    assert {x.aggregation for x in lessons("independent", aggregation="constant")} == {"constant"}
    assert {x.aggregation for x in lessons("hacpo")} == {"sequence_mean"}
    assert {x.aggregation for x in lessons("hacpo", aggregation=None)} == {None}
    assert {x.aggregation for x in lessons("trrd", teacher="peer", aggregation="sequence_mean")} == {"sequence_mean"}
    with pytest.raises(InvalidInputError, match=r"aggregation.*must be one of 'token_mean'"):
        lessons("independent", aggregation="mean")
    with pytest.raises(InvalidInputError, match=r"Lesson.aggregation must be None or one of token_mean"):
        replace(lessons("independent")[0], aggregation="mean")


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        # Two sequences of one and three tokens whose first is "a" with A = 1: each gives .4 over its denominator.
        ("token_mean", 2 * 0.4 / 4),
        ("sequence_mean", 0.4 / 2 + 0.4 / 2 / 3),
        # Dr. GRPO: over two sequences of 8 tokens, the most that this policy writes; or of the length that is given.
        ("constant", 2 * 0.4 / (2 * 8)),
    ],
)
def test_averages_over_tokens_over_sequences_and_over_a_constant(aggregation: str, expected: float) -> None:
    short, long = wrote(A, 1.0), wrote(A, 1.0, size=3)
    assert move(policy_at(0.6, aggregation=aggregation), short, long) == pytest.approx(expected)
    # What the lesson says goes before what the learner does.
    said = [replace(e, aggregation=aggregation) for e in (short, long)]
    assert move(policy_at(0.6), *said) == pytest.approx(expected)


def test_the_constant_length_is_the_most_that_is_written_unless_it_is_given() -> None:
    assert TorchOptions(max_new_tokens=100).length == 100
    assert TorchOptions(max_new_tokens=100, constant_length=7).length == 7
    policy = policy_at(0.6, aggregation="constant", constant_length=5)
    assert move(policy, wrote(A, 1.0)) == pytest.approx(0.4 / 5)


# -- shares -----------------------------------------------------------------------------------------------------------


def test_the_borrowed_share_of_the_gradient_counts_slopes_and_not_credit() -> None:
    # The reader's tokens are a, b and the stop token: each has probability 1/3 and own slopes |A| = 1.
    policy = TabularLearner(CHARS, name="me", alphabet="ab")
    (old,) = policy.score([PROMPT], [np.array([A, CHARS.stop_id], np.int32)])
    own = Lesson(experience("me", old), 1.0)
    far = experience("peer", old - np.array([1.0, 0.1]))  # the reader finds "a" e times as likely as its author

    def share(lesson: Lesson) -> float:
        reader = TabularLearner(CHARS, name="me", alphabet="ab")
        examples = build_batch([own, lesson], reader, TokenizerBridge([CHARS])).examples
        return reader.update(examples)["batch/borrowed_gradient_share"]

    # PRP: the ratio at the stop token is e^.1, the one at "a" is beyond the clip. With A = -1 its slope is e.
    stop = math.exp(0.1)
    assert share(Lesson(far, 1.0, correction=AuthorPolicy())) == pytest.approx(stop / (stop + 2.0))
    assert share(Lesson(far, -1.0, correction=AuthorPolicy())) == pytest.approx(1.0 - 2.0 / (math.e + stop + 2.0))
    # LUFFY: p γ / (p + γ)² at both tokens.
    shaped = float(sum(p * 0.1 / (p + 0.1) ** 2 for p in np.exp(old)))
    assert share(Lesson(far, 1.0, NamedLoss.of("shaped_probability"))) == pytest.approx(shaped / (shaped + 2.0))
    # A rescue: two own tokens with |A| = 1 have mean 1, its mean has weight .1.
    assert share(Lesson(far, 1.0, CrossEntropy(), weight=0.1)) == pytest.approx(0.1 / 1.1)
    reader = TabularLearner(CHARS, name="me", alphabet="ab")
    alone = reader.update(build_batch([own], reader, TokenizerBridge([CHARS])).examples)
    assert "batch/borrowed_gradient_share" not in alone


def experience(author: str, logprobs: Floats) -> Experience:
    ids = np.array([A, CHARS.stop_id], np.int32)
    completion = Completion("a", ids, logprobs, "stop", 0, CHARS.fingerprint)
    return Experience(Task("t", "a", ""), author, completion, Verdict.scored(1.0, correct=True), 0)
