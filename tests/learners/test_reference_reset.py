"""The policy that a KL term pulls to, where the trained one takes its place every so many updates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learners.example import Example
from learners.tabular import TabularLearner
from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from mutual_env.errors import InvalidInputError
from tests.learners.tiny_policies import TOKENIZER, llama
from tokenizers_bridge import CharTokenizer

pytestmark = pytest.mark.torch

CHARS = CharTokenizer("ab")
PROMPT = CHARS.render_prompt("a")
A, B = (int(CHARS.encode_batch([text])[0][0]) for text in "ab")


def arm(token: int, advantage: float) -> Example:
    return Example(PROMPT, np.array([token], np.int32), np.ones(1, np.bool_), np.array([advantage]))


def table(**options: Any) -> TabularLearner:
    """A policy that writes "a" with P = .5, and otherwise "b"."""
    policy = TabularLearner(CHARS, name="p", max_new_tokens=1, learning_rate=1.0, kl_coefficient=0.5, **options)
    row = np.full(CHARS.vocab_size, -60.0)
    row[[A, B]] = 0.0
    policy._table[(*PROMPT.tolist(), -1, 0)] = row
    policy._reference = dict(policy._table)
    return policy


def likely(policy: TabularLearner) -> float:
    return math.exp(policy.score([PROMPT], [np.array([A], np.int32)])[0][0])


@pytest.mark.parametrize("every", [0, 1, 2, 3])
def test_the_pull_is_to_the_policy_of_the_last_reset(every: int) -> None:
    # One "a" with A = 1 an update: the slope by log P(a) is 1 from the credit and -c (1 - P_ref / P) from k3, and by
    # the logits of a and b 1 - P and -(1 - P): their difference x grows by twice that.
    policy, x, p_ref = table(reference_reset=every), 0.0, 0.5
    for update in range(1, 8):
        policy.update([arm(A, 1.0)])
        p = 1.0 / (1.0 + math.exp(-x))
        x += 2.0 * (1.0 - 0.5 * (1.0 - p_ref / p)) * (1.0 - p)
        p = 1.0 / (1.0 + math.exp(-x))
        assert likely(policy) == pytest.approx(p, abs=1e-12)
        if every and update % every == 0:
            p_ref = p


def test_a_table_that_was_saved_pulls_to_what_it_pulled_to(tmp_path: Path) -> None:
    for updates in (1, 2, 5):  # before the first reset, at one, and after one
        steady, resumed = table(reference_reset=2), table(reference_reset=2)
        for _ in range(updates):
            steady.update([arm(A, 1.0)])
        steady.save(tmp_path / str(updates))
        resumed.load(tmp_path / str(updates))
        for policy in (steady, resumed):
            policy.update([arm(B, 0.5)])
        assert likely(steady) == likely(resumed)


OPTIONS = {"device": "cpu", "learning_rate": 1e-2, "max_new_tokens": 6, "kl_coefficient": 0.5, "minibatches": 2}


def model(**options: Any) -> TorchLearner:
    return TorchLearner(llama(), TOKENIZER, name="p", options=TorchOptions.of({**OPTIONS, **options}))


def wrote(policy: TorchLearner, seed: int, credit: float = 1.0) -> list[Example]:
    groups = policy.act(["1+2=", "12"], 4, seed=seed)
    return [
        Example(
            TOKENIZER.render_prompt(prompt),
            c.token_ids,
            np.ones(c.token_ids.size, np.bool_),
            np.full(c.token_ids.size, credit * (-1.0) ** i),
        )
        for prompt, group in zip(["1+2=", "12"], groups, strict=True)
        for i, c in enumerate(group)
    ]


@pytest.mark.parametrize("lora", [{}, {"lora_rank": 2}], ids=["all parameters", "adapters"])
def test_a_model_that_was_just_reset_is_not_pulled_anywhere(lora: dict[str, Any]) -> None:
    resetting, steady = model(reference_reset=2, minibatches=1, **lora), model(minibatches=1, **lora)
    examples = wrote(steady, 1)
    for policy in (resetting, steady):
        for _ in range(2):
            policy.update(examples)
    calm = wrote(steady, 2, credit=0.0)
    assert steady.update(calm)["loss"] > 1e-4
    assert resetting.update(calm)["loss"] == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("lora", [{}, {"lora_rank": 2}, {"dtype": "bfloat16"}], ids=["all", "adapters", "bfloat16"])
def test_a_model_that_was_saved_goes_on_to_the_last_bit(lora: dict[str, Any], tmp_path: Path) -> None:
    for updates in (3,) if "dtype" in lora else (1, 3):  # before the first reset, and after one
        steady, resumed = model(reference_reset=2, **lora), model(reference_reset=2, **lora)
        for seed in range(updates):
            steady.update(wrote(steady, seed))
        steady.save(tmp_path / str(updates))
        resumed.load(tmp_path / str(updates))
        for policy in (steady, resumed):
            for seed in (7, 8):  # with a reset between the two
                policy.update(wrote(policy, seed))
        for mine, theirs in zip(steady.model.parameters(), resumed.model.parameters(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("more", [{}, {"lora_rank": 2}, {"dtype": "bfloat16"}], ids=["all", "adapters", "bfloat16"])
def test_the_optimizer_begins_anew_with_the_reference_where_that_is_asked_for(
    more: dict[str, Any], tmp_path: Path
) -> None:
    # After a reset a policy steps as a new learner with its weights does: the first step of Adam, and the schedule's.
    schedule = {"schedule": "cosine", "total_steps": 40, "minibatches": 1, **more}
    resetting = model(reference_reset=2, optimizer_reset=True, **schedule)
    keeping = model(reference_reset=2, **schedule)
    for policy in (resetting, keeping):
        for seed in (1, 2):
            policy.update(wrote(policy, seed))
    resetting.save(tmp_path / "reset")
    fresh = model(reference_reset=2, optimizer_reset=True, **schedule)
    fresh.load(tmp_path / "reset")
    assert not [key for key in fresh._optimizer.tensors() if not key.startswith("master.")]
    assert fresh._optimizer.learning_rate == resetting._optimizer.learning_rate < 1e-2
    examples = wrote(resetting, 3)
    before = weights_of(resetting)
    for policy in (resetting, keeping, fresh):
        policy.update(examples)
    assert torch.equal(weights_of(resetting), weights_of(fresh))
    assert not torch.equal(weights_of(resetting), weights_of(keeping))
    if not more:  # Adam's first step is the learning rate in the direction of the sign of each slope
        steps = (weights_of(resetting) - before).abs()
        rate = 1e-2 * 0.5 * (1.0 + math.cos(math.pi * 2 / 40))
        assert float(steps.max()) == pytest.approx(rate, rel=1e-3)


def weights_of(policy: TorchLearner) -> torch.Tensor:
    return torch.cat([p.detach().flatten().double() for p in policy.language_model.trainable().values()])


def test_asking_the_reference_leaves_the_trained_adapters_as_they_were() -> None:
    policy = model(reference_reset=1, lora_rank=2)
    policy.update(wrote(policy, 1))
    policy.update(wrote(policy, 2))
    before = {name: p.detach().clone() for name, p in policy.language_model.trainable().items()}
    trainer: Any = policy._trainer
    examples = wrote(policy, 3)
    same, now = trainer.reference(examples), trainer.current(examples)
    assert all(np.array_equal(a, b) for a, b in zip(same, now, strict=True))
    assert all(torch.equal(before[name], p) for name, p in policy.language_model.trainable().items())


def test_a_reset_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="kl_coefficient above 0"):
        TorchOptions(reference_reset=10)
    with pytest.raises(InvalidInputError, match="reference_reset must not be negative"):
        TabularLearner(CHARS, kl_coefficient=0.1, reference_reset=-1)
    with pytest.raises(InvalidInputError, match="give a reference_reset above 0"):
        TorchOptions(kl_coefficient=0.1, optimizer_reset=True)
