"""What the torch sampler draws: the distribution, the recorded log-probabilities, where a sample ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from learners.protocol import Learner
from learners.sampling import Sampling
from learners.tabular import TabularLearner
from learners.torch import decoding, sampler
from learners.torch.decoding import COPIED
from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from learners.torch.sampler import pick
from mutual_env.errors import TrainingError
from tests.learners.tiny_policies import TOKENIZER, gemma, learner, llama, neox
from tokenizers_bridge import CharTokenizer

pytestmark = pytest.mark.torch

PROMPTS = ["1+2=", "12+34=", "abc"]


def sampling(**changes: Any) -> Sampling:
    return dataclasses.replace(Sampling(1, max_new_tokens=8), **changes)


def test_tokens_are_drawn_with_their_probabilities() -> None:
    # 3000 tokens, in many blocks; evenly spread uniform numbers give each token its share to within 1/N.
    torch.manual_seed(0)
    logits = torch.randn(3000)
    draws = 20_000
    uniforms = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    tokens, logprobs = pick(logits.expand(draws, -1).clone(), uniforms, sampling())
    shares = torch.bincount(tokens, minlength=3000) / draws
    assert torch.allclose(shares, logits.softmax(-1), atol=2 / draws)
    assert torch.allclose(logprobs, logits.double().log_softmax(-1)[tokens], atol=1e-6)


def test_recorded_log_probabilities_are_those_of_the_distribution_sampled_from() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    uniform = torch.tensor([0.0], dtype=torch.float64)
    last = torch.tensor([1 - 1e-12], dtype=torch.float64)
    # Temperature 0.5 doubles the logits.
    _, logprob = pick(logits.clone(), uniform, sampling(temperature=0.5))
    assert float(logprob) == pytest.approx(float((logits * 2).log_softmax(-1)[0, 0]), abs=1e-6)
    # The two most likely tokens alone: the last number of all draws the second.
    token, logprob = pick(logits.clone(), last, sampling(top_k=2))
    assert (int(token), float(logprob)) == (1, pytest.approx(float(logits[:, :2].log_softmax(-1)[0, 1]), abs=1e-6))
    # Softmax of the logits is .644, .237, .087, .032: .8 of the mass needs two tokens, .9 three.
    for top_p, expected in ((0.6, 0), (0.8, 1), (0.9, 2)):
        assert int(pick(logits.clone(), last, sampling(top_p=top_p))[0]) == expected


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.full((1, 2500), -torch.inf)
    logits[0, [5, 300, 2450]] = 0.0
    for u in (0.0, 0.2, 1 / 3, 0.5, 2 / 3, 0.9, 1 - 2**-53):
        token, _ = pick(logits.clone(), torch.tensor([u], dtype=torch.float64), sampling())
        assert int(token) in (5, 300, 2450)


def test_a_sample_is_the_same_however_the_call_is_cut() -> None:
    whole = learner(llama(), max_rows=1000).act(PROMPTS, 4, seed=9)
    cut = learner(llama(), max_rows=5).act(PROMPTS, 4, seed=9)
    assert [[c.text for c in g] for g in whole] == [[c.text for c in g] for g in cut]


def drawn(policy: TorchLearner, seed: int = 9) -> list[list[tuple[list[int], list[float]]]]:
    groups = policy.act(PROMPTS, 6, seed=seed)
    return [[(c.token_ids.tolist(), c.logprobs.tolist()) for c in group] for group in groups]


@pytest.mark.parametrize("build", [llama, neox, gemma])
@pytest.mark.parametrize("stop", [(), ("1", "ab")], ids=["tokens", "texts"])
def test_ids_are_the_same_where_the_host_looks_seldom(
    build: Callable[[], PreTrainedModel], stop: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = drawn(learner(build(), max_new_tokens=30, stop=stop))
    monkeypatch.setattr(sampler, "looks_every", lambda device: 7)
    found = drawn(learner(build(), max_new_tokens=30, stop=stop))
    assert len({len(ids) for group in found for ids, _ in group}) > 2
    for mine, theirs in zip(found, expected, strict=True):
        assert [ids for ids, _ in mine] == [ids for ids, _ in theirs]
        for (_, some), (_, others) in zip(mine, theirs, strict=True):
            assert np.abs(np.array(some) - np.array(others)).max() < 1e-5


def test_the_host_looks_once_in_so_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    whole = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: (looks.append(self.shape), whole(self))[1])
    monkeypatch.setattr(sampler, "looks_every", lambda device: 7)
    drawn(learner(llama(), max_new_tokens=28))
    assert looks == [(7, 18)] * 2 * 4 or len(looks) <= 2 * 4  # ids and log-probabilities, at most every seventh step
    assert all(shape[0] == 7 for shape in looks)


def test_broken_weights_are_said_also_where_the_host_looks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = learner(llama(), max_new_tokens=12)
    monkeypatch.setattr(sampler, "looks_every", lambda device: 5)
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="logits are NaN"):
        policy.act(PROMPTS, 2, seed=0)


@pytest.mark.parametrize("build", [llama, neox, gemma])
@pytest.mark.parametrize("prompts", [PROMPTS, ["12+34=" * 7, "abc" * 14]], ids=["copied", "shared"])
def test_caches_that_grow_give_the_same_bits(
    build: Callable[[], PreTrainedModel], prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = learner(build(), max_new_tokens=40).act(prompts, 6, seed=3)
    widths: list[int] = []
    whole = decoding._Cache.widened
    monkeypatch.setattr(decoding._Cache, "widened", lambda self, width: (widths.append(width), whole(self, width))[1])
    monkeypatch.setattr(decoding, "FIRST_ROOM", 5)
    found = learner(build(), max_new_tokens=40).act(prompts, 6, seed=3)
    for mine, theirs in zip(found, expected, strict=True):
        assert [c.token_ids.tolist() for c in mine] == [c.token_ids.tolist() for c in theirs]
        assert [c.logprobs.tolist() for c in mine] == [c.logprobs.tolist() for c in theirs]
    assert {width - min(widths) + 10 for width in widths} == {10, 20, 40}


def test_room_for_long_responses_is_made_for_the_rows_that_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 rows, of which most end early: never as much as all rows at the longest length."""
    monkeypatch.setattr(decoding, "FIRST_ROOM", 8)
    most = 0
    begin = decoding.GroupDecode.begin

    def watched(self: decoding.GroupDecode, step: int) -> None:
        nonlocal most
        begin(self, step)
        most = max(most, self._caches[0]._keys.untyped_storage().nbytes())

    monkeypatch.setattr(decoding.GroupDecode, "begin", watched)
    groups = learner(llama(), max_new_tokens=200).act(PROMPTS[:2], 6, seed=3)
    assert max(c.token_ids.size for group in groups for c in group) > 32
    each = 2 * 8 * 4  # two key-value heads of width 8, in float32
    assert most < 0.5 * 12 * (200 + 6) * each


class TwoStops(CharTokenizer):
    """The same tokenizer, whose policy ends a text with one token and a turn with another."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return (1, 0)


@pytest.mark.parametrize("make_learner", ["torch", "tabular"])
def test_a_sample_ends_with_any_of_the_stop_tokens(make_learner: str) -> None:
    tokenizer = TwoStops("0123456789+= abcdefgh")
    policy: Learner
    if make_learner == "tabular":
        policy = TabularLearner(tokenizer, max_new_tokens=40, aversion=0.0)
    else:
        settings = TorchOptions.of({"device": "cpu", "max_new_tokens": 40})
        policy = TorchLearner(llama(), tokenizer, name="p", options=settings)
    completions = [c for group in policy.act(["1+2=", "abc"], 40, seed=2) for c in group]
    last = {int(c.token_ids[-1]) for c in completions if c.finish_reason == "stop"}
    assert last == {0, 1}
    assert not {0, 1} & {i for c in completions for i in c.token_ids[:-1].tolist()}
    assert {0, 1}.isdisjoint(int(c.token_ids[-1]) for c in completions if c.finish_reason == "length")


def test_a_higher_limit_only_adds_tokens() -> None:
    short, long = (learner(llama(), max_new_tokens=limit).act(PROMPTS, 4, seed=9) for limit in (5, 15))
    for few, many in zip(short, long, strict=True):
        assert all(b.text.startswith(a.text) for a, b in zip(few, many, strict=True))
    assert short != long


@pytest.mark.parametrize("build", [llama, neox, gemma])
@pytest.mark.parametrize("longest", [COPIED, COPIED + 8], ids=["copied", "shared"])
def test_the_sampler_agrees_with_the_trainer_while_rows_end_and_prompts_differ(
    build: Callable[[], PreTrainedModel], longest: int
) -> None:
    policy = learner(build(), max_new_tokens=24)
    prompts = ["1+2=", "12+34=" * 3, "abc" * (longest // 3)]
    prompt_ids = [TOKENIZER.render_prompt(prompt) for prompt in prompts]
    groups = policy.act(prompts, 6, seed=3)
    lengths = {completion.token_ids.size for group in groups for completion in group}
    assert len(lengths) > 2  # rows have ended at many different steps
    for ids, group in zip(prompt_ids, groups, strict=True):
        for completion, score in zip(group, policy.score([ids] * 6, [c.token_ids for c in group]), strict=True):
            assert np.abs(score - completion.logprobs).max() < 1e-4
