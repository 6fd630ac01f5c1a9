"""The published models themselves, as our code converted them (make test-models)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import mutual_env
from learners.example import Example
from learners.packaged_models import fetch
from learners.run.build import make_learner
from learners.run.config import load_run
from learners.torch.learner import TorchLearner
from learners.torch.make import make_torch
from mutual_env.types import Completion, CrossEntropy, PolicyGradient, Verdict
from tokenizers_bridge import TokenizerBridge
from tokenizers_bridge.kinds.packaged import SOURCES

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]

CONFIG = Path(__file__).parents[2] / "configs" / "smollm2-gemma3.yaml"
DIRECTORY = Path(os.environ.get("MUTUAL_ENV_MODELS", "models"))


@pytest.fixture(scope="module")
def paths() -> dict[str, Path]:
    return {fetched.name: fetched.path for fetched in fetch(list(SOURCES), DIRECTORY)}


def learner(paths: dict[str, Path], name: str, **options: object) -> TorchLearner:
    made = make_torch(str(paths[name]), name=name, device="cpu", **options)
    assert isinstance(made, TorchLearner)
    return made


def test_gemma_adds_small_numbers_from_examples(paths: dict[str, Path]) -> None:
    gemma = learner(paths, "gemma3", max_new_tokens=4, top_k=1)
    shots = "1+1=2\n2+3=5\n4+4=8\n5+2=7\n7+6=13\n3+9=12\n"
    asked = {"2+2=": 4, "3+4=": 7, "6+7=": 13, "1+5=": 6, "8+3=": 11, "4+5=": 9}
    groups = gemma.act([shots + question for question in asked], 1, seed=1)
    answers = [group[0].text.split("\n")[0].strip() for group in groups]
    assert sum(answer == str(right) for answer, right in zip(answers, asked.values(), strict=True)) >= 3, answers


def test_smollm_follows_its_chat_template_and_stops(paths: dict[str, Path]) -> None:
    smollm = learner(paths, "smollm2", max_new_tokens=48, top_k=1)
    prompt = ({"role": "user", "content": "What is the capital of France? Answer with one word."},)
    [[completion]] = smollm.act([prompt], 1, seed=1)
    assert "Paris" in completion.text
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("name", list(SOURCES))
def test_sampler_and_trainer_agree_and_an_update_moves_the_policy(paths: dict[str, Path], name: str) -> None:
    policy = learner(paths, name, max_new_tokens=8, learning_rate=1e-4, micro_batch_tokens=512)
    prompts = ["2+3=", "The capital of Italy is"]
    groups = policy.act(prompts, 2, seed=3)
    ids = [policy.tokenizer.render_prompt(p) for p in prompts for _ in range(2)]
    completions = [c for group in groups for c in group]
    before = policy.score(ids, [c.token_ids for c in completions])
    for completion, score in zip(completions, before, strict=True):
        assert np.isfinite(score).all()
        assert float(np.abs(score - completion.logprobs).max()) < 1e-3
    kinds = (CrossEntropy(), PolicyGradient())
    examples = [
        Example(p, c.token_ids, np.ones(c.token_ids.size, np.bool_), np.ones(c.token_ids.size), kinds[i % 2])
        for i, (p, c) in enumerate(zip(ids, completions, strict=True))
    ]
    metrics = policy.update(examples)
    after = policy.score(ids, [c.token_ids for c in completions])
    assert metrics["gradient_norm"] > 0.0
    assert float(np.concatenate(after).mean()) > float(np.concatenate(before).mean())


@pytest.mark.parametrize("name", list(SOURCES))
def test_the_tokenizer_is_that_of_the_published_file(paths: dict[str, Path], name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(paths[name])
    for text in ("6+7=13, 12 + 34 = 46\n\n  indented\ttab", "naïve café, 日本語 🤖", "def f(x):\r\n    return x**2"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert len(tokenizer) == {"smollm2": 49_152, "gemma3": 262_144}[name]


def test_the_pair_is_of_different_tokenizers_and_the_bridge_carries_text_between_them(paths: dict[str, Path]) -> None:
    smollm = learner(paths, "smollm2", max_new_tokens=12)
    gemma = learner(paths, "gemma3", max_new_tokens=12)
    assert smollm.tokenizer.fingerprint != gemma.tokenizer.fingerprint
    TokenizerBridge([smollm.tokenizer, gemma.tokenizer])
    [[completion]] = smollm.act(["What is 2+2?"], 1, seed=1)
    ids = gemma.tokenizer.encode_batch([completion.text])[0]
    assert gemma.tokenizer.token_bytes(ids) == smollm.tokenizer.token_bytes(completion.token_ids)


def test_weights_are_finite_and_tied(paths: dict[str, Path]) -> None:
    for name in SOURCES:
        model = learner(paths, name).model
        assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
        assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


@pytest.mark.parametrize("name", list(SOURCES))
def test_the_published_models_are_taken_in_bfloat16(paths: dict[str, Path], name: str) -> None:
    """States of their control tokens are far off in bfloat16; those of ordinary text are not."""
    policy = learner(paths, name, dtype="bfloat16", max_new_tokens=8, learning_rate=1e-4, micro_batch_tokens=512)
    [group] = policy.act(["The capital of Italy is"], 4, seed=3)
    prompt = policy.tokenizer.render_prompt("The capital of Italy is")
    scores = policy.score([prompt] * 4, [c.token_ids for c in group])
    apart = np.concatenate([np.abs(s - c.logprobs) for s, c in zip(scores, group, strict=True)])
    assert float(apart.mean()) < 0.1  # 0.03 to 0.04 a token is usual between a cached decoding and a whole forward


def answers_of(paths: dict[str, Path]) -> Iterator[tuple[str, str, Completion, Verdict]]:
    """Policy, expected answer, completion and verdict of every sample of a round of the shipped configuration."""
    config = load_run(CONFIG, [f"policies.{name}.options.path={path}" for name, path in paths.items()])
    names = list(config.policies)
    env = mutual_env.make(
        config.env.id,
        agents=names,
        group_size=config.env.group_size,
        prompts_per_round=config.env.prompts_per_round,
        seed=config.seed,
        **config.env.options,
    )
    observations, _ = env.reset()
    policies = {name: make_learner(name, policy, config.seed) for name, policy in config.policies.items()}
    actions = {name: policy.act(observations[name]["prompts"], 8, seed=1) for name, policy in policies.items()}
    *_, infos = env.step(actions)
    for name in names:
        for group in infos[name]["groups"]:
            yield from ((name, e.task.answer, e.completion, e.verdict) for e in group)


def test_the_shipped_configuration_pays_right_answers_and_no_others(paths: dict[str, Path]) -> None:
    """What a person would say of each sample: its first line is the answer, and it is right or it is not."""
    samples = list(answers_of(paths))
    assert len(samples) == 2 * 4 * 8
    for name, expected, completion, verdict in samples:
        said = completion.text.strip().split("\n")[0].strip()
        shown = f"{name} wrote {completion.text!r} where {expected} was asked for, and got {verdict}"
        assert verdict.correct == (said in (expected, f"{expected}.")), shown
        assert (verdict.status == "wrong_format") == (re.fullmatch(r"-?[\d,]*\.?\d+\.?", said) is None), shown
        assert "\n" not in completion.text.strip("\n"), shown  # nobody goes on with a further sum
        assert verdict.reward == float(verdict.correct)
    for name in paths:
        own = [(completion, verdict) for n, _, completion, verdict in samples if n == name]
        # Both write a number on most lines and stop there, and neither is hopeless nor done: there is room to learn.
        assert np.mean([verdict.status == "ok" for _, verdict in own]) > 0.7, name
        assert np.mean([completion.finish_reason == "stop_string" for completion, _ in own]) > 0.7, name
        assert 0.1 < np.mean([verdict.correct for _, verdict in own]) < 0.9, name
