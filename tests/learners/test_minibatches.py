"""Optimizer steps are cut by prompt, and what is imitated changes nobody's company."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sharing
from learners import registry
from learners.batch import build_batch
from learners.example import Example
from learners.minibatches import minibatches
from learners.tabular import TabularLearner
from mutual_env.errors import InvalidInputError
from mutual_env.types import Completion, CrossEntropy, Lesson, LossSpec, NamedLoss, PolicyGradient
from sharing.testing import ScriptedEnv, play, scripted_task
from tests.learners.twins import gradients, model_of
from tokenizers_bridge import CharTokenizer, TokenizerBridge

TOKENIZER = CharTokenizer("yesno.t?0123456789")
READER, PEER = "reader", "peer"


def sample(prompt: int, tag: int, loss: LossSpec | None = None, **changes: Any) -> Example:
    """The sample numbered `tag` of a prompt; its credit is its number."""
    one = Example(
        np.array([prompt], np.int32),
        np.array([tag], np.int32),
        np.ones(1, np.bool_),
        np.array([float(tag)]),
        loss or PolicyGradient(),
    )
    return replace(one, **changes)


def tags(plan: list[list[Example]]) -> list[list[int]]:
    return [[int(example.response_ids[0]) for example in part] for part in plan]


def test_the_samples_of_a_prompt_meet_in_one_step() -> None:
    # Prompts 0, 1, 2 have 3, 2 and 1 samples: two and one prompt, where even halves would part the second.
    examples = [sample(p, 10 * p + i) for p, size in enumerate((3, 2, 1)) for i in range(size)]
    assert tags(minibatches(examples, 2)) == [[0, 1, 2, 10, 11], [20]]
    assert tags(minibatches(examples, 2, by="samples")) == [[0, 1, 2], [10, 11, 20]]


def test_what_a_peer_wrote_and_what_is_imitated_stand_with_their_prompt() -> None:
    own = [sample(p, 10 * p + i) for p in range(4) for i in range(2)]
    borrowed, rescue = sample(1, 50), sample(0, 60, CrossEntropy())
    assert tags(minibatches([*own, borrowed, rescue], 2)) == [[0, 1, 10, 11, 50, 60], [20, 21, 30, 31]]
    # Cut by samples, a rescue still follows, and moves no border.
    assert tags(minibatches([*own, rescue], 4, by="samples")) == [[0, 1, 60], [10, 11], [20, 21], [30, 31]]


def test_imitation_of_prompts_that_are_not_there_is_dealt_evenly() -> None:
    own = [sample(p, p) for p in range(4)]
    replayed = [sample(9, 90 + i, CrossEntropy()) for i in range(3)]
    assert tags(minibatches([*own, *replayed], 2)) == [[0, 1, 90, 91], [2, 3, 92]]
    # Imitation alone is cut as samples with credit are.
    alone = [sample(p, p, CrossEntropy()) for p in range(4)]
    assert tags(minibatches(alone, 2)) == [[0, 1], [2, 3]]


def test_a_rescue_makes_no_step_that_would_not_be_taken_without_it() -> None:
    # Two prompts a step; 20, 30 and 60, 70 teach nothing by themselves. Their rescues go on to the next step, the last
    # ones back to the last that is taken.
    own = [sample(p, 10 * p, weight=float(p not in (2, 3, 6, 7))) for p in range(8)]
    rescues = [sample(p, 10 * p + 1, CrossEntropy()) for p in (0, 2, 3, 7)]

    def teaches(example: Example) -> bool:
        return example.weight > 0.0

    steps = minibatches([*own, *rescues], 4, teaches=teaches)
    assert tags(steps) == [[0, 10, 1], [20, 30], [40, 50, 21, 31, 71], [60, 70]]
    # What is dealt evenly is dealt over these; where nothing would be taken, everything stays as it was cut.
    replayed = [sample(9, 90 + i, CrossEntropy()) for i in range(2)]
    assert tags(minibatches([*own, *replayed], 4, teaches=teaches)) == [[0, 10, 90], [20, 30], [40, 50, 91], [60, 70]]
    alone = [e for e in own if e.weight == 0.0]
    assert tags(minibatches([*alone, *rescues[1:]], 2, teaches=teaches)) == [[20, 30, 21, 31], [60, 70, 71]]


def test_a_higher_order_comes_last_and_takes_its_prompt_along() -> None:
    examples = [sample(p, 10 * p + i, order=int(p == 0)) for p in range(4) for i in range(2)]
    assert tags(minibatches(examples, 2)) == [[10, 11, 20, 21], [30, 31, 0, 1]]
    # GRAFT with peers first, pooled with the reader's own samples of that prompt.
    pooled = [*examples[2:], sample(3, 39, order=-1)]
    assert tags(minibatches(pooled, 3)) == [[30, 31, 39], [10, 11], [20, 21]]


def test_epochs_repeat_all_and_a_shuffle_draws_an_order_for_each() -> None:
    examples = [sample(p, 10 * p + i, order=int(p == 5)) for p in range(6) for i in range(2)]
    assert tags(minibatches(examples, 2, epochs=2)) == 2 * tags(minibatches(examples, 2))
    shuffled = tags(minibatches(examples, 3, epochs=2, shuffle=True))
    assert shuffled == tags(minibatches(examples, 3, epochs=2, shuffle=True))
    first, second = shuffled[:3], shuffled[3:]
    assert first != second
    for epoch in (first, second):
        assert sorted(t for part in epoch for t in part) == [10 * p + i for p in range(6) for i in range(2)]
        assert all({t // 10 for t in part} == {t // 10 for t in part if t % 10 == 1} for part in epoch)
        assert epoch[-1][-2:] == [50, 51]  # a higher order is last in a shuffle too
    # A rescue draws no other order.
    rescued = minibatches([*examples, sample(2, 99, CrossEntropy())], 3, epochs=2, shuffle=True)
    assert [[t for t in part if t != 99] for part in tags(rescued)] == shuffled


def test_there_are_no_more_steps_than_prompts_and_none_is_empty() -> None:
    assert tags(minibatches([sample(0, 0), sample(1, 1)], 5)) == [[0], [1]]
    assert minibatches([], 3) == []
    with pytest.raises(InvalidInputError, match="minibatches"):
        minibatches([sample(0, 0)], 0)


def test_what_a_single_step_makes_inert_is_said() -> None:
    with pytest.warns(UserWarning, match="GRAFT's peers last"):
        minibatches([sample(0, 0), sample(1, 1, order=1)], 1)
    with pytest.warns(UserWarning, match="HACPO's floor"):
        minibatches([sample(0, 0, NamedLoss.of("capped_sequence"))], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        minibatches([sample(0, 0), sample(1, 1, order=1)], 2)
        minibatches([sample(0, 0), sample(1, 1)], 1)


# -- SGT with λ -> 0 is GRPO, whatever the number of optimizer steps --------------------------------------------------


def lessons(policy: TabularLearner, strategy: str, **options: Any) -> tuple[Lesson, ...]:
    """A round of 12 prompts, on 7 of which the reader fails and its peer does not."""
    wrote = {
        READER: [["no", "nono", "no", "noo"] if p < 7 else ["yes", "no", "yess", "nono"] for p in range(12)],
        PEER: [["yes", "no", "yes", "no"] for _ in range(12)],
    }
    env = sharing.make(strategy, ScriptedEnv((READER, PEER), prompts=12, group=4), **options)
    said = {a: [[completion(policy, p, t) for t in g] for p, g in enumerate(gs)] for a, gs in wrote.items()}
    found: tuple[Lesson, ...] = play(env, said)[READER]["lessons"]
    return found


def completion(policy: TabularLearner, prompt: int, text: str) -> Completion:
    ids = np.append(TOKENIZER.encode_batch([text])[0], TOKENIZER.stop_id).astype(np.int32)
    (logprobs,) = policy.score([TOKENIZER.render_prompt(scripted_task(f"t0.{prompt}").prompt)], [ids])
    return Completion(text, ids, logprobs, "stop", 0, TOKENIZER.fingerprint)


@pytest.mark.parametrize("options", [{}, {"minibatches_by": "samples"}, {"epochs": 2, "shuffle": True}], ids=repr)
@pytest.mark.parametrize("count", [1, 4, 8])
def test_rescues_that_weigh_nothing_leave_grpo_as_it_is(count: int, options: dict[str, Any]) -> None:
    tables = []
    for strategy, given in (("independent", {}), ("sgt", {"weight": 1e-300}), ("sgt", {"weight": 1e-12})):
        policy = TabularLearner(TOKENIZER, name=READER, learning_rate=2.0, minibatches=count, **options)
        chosen = lessons(policy, strategy, **given)
        assert len(chosen) == 48 + 7 * (strategy == "sgt")
        batch = build_batch(chosen, policy, TokenizerBridge([TOKENIZER]))
        policy.update(batch.examples)
        tables.append(policy._table)
    grpo, nothing, little = tables
    assert all(np.array_equal(row, nothing[key]) for key, row in grpo.items())
    assert all(np.allclose(row, little[key], rtol=0, atol=1e-10) for key, row in grpo.items())


def trained(strategy: str, count: int, **given: Any) -> np.ndarray[Any, Any]:
    """The weights of a model after one update with Adam, in which some steps have no credit of their own."""
    policy: Any = registry.make("torch", name=READER, minibatches=count, learning_rate=1e-3, **model_of(TOKENIZER))
    table = TabularLearner(TOKENIZER, name=READER)
    policy.update(build_batch(lessons(table, strategy, **given), policy, TokenizerBridge([TOKENIZER])).examples)
    return np.concatenate([p.detach().numpy().ravel() for p in policy.model.parameters()])


@pytest.mark.torch
@pytest.mark.parametrize("count", [1, 4, 8])
def test_so_it_is_with_an_optimizer_that_moves_in_every_step(count: int) -> None:
    grpo = trained("independent", count)
    for strategy in ("sgt", "memory", "auto"):
        # To rounding: more rows in a matrix product are added up in another order, on some processors.
        assert np.abs(trained(strategy, count, weight=1e-300) - grpo).max() < 1e-8
    assert np.abs(trained("sgt", count, weight=1e-12) - grpo).max() < 1e-7
    assert np.abs(trained("sgt", count) - grpo).max() > 1e-3


@pytest.mark.torch
def test_a_weightless_rescue_changes_no_bit_of_a_models_gradient() -> None:
    policy = registry.make("torch", name=READER, minibatches=1, **model_of(TOKENIZER))
    table = TabularLearner(TOKENIZER, name=READER)
    batch = build_batch(lessons(table, "sgt"), table, TokenizerBridge([TOKENIZER]))
    own = tuple(e for e in batch.examples if not isinstance(e.loss, CrossEntropy))
    silent = tuple(replace(e, weight=0.0) if isinstance(e.loss, CrossEntropy) else e for e in batch.examples)
    first, second = gradients(policy, own), gradients(policy, silent)
    assert all(np.array_equal(first[name], second[name]) for name in first)
