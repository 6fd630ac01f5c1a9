"""A policy's own prompts: its system message, its examples, its chat template or none of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import learners
import mutual_env
import sharing
from learners.testing import check_learner
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.prompts import PromptShape
from mutual_env.types import Message
from tests.tokenizers_bridge.published import loaded
from tokenizers_bridge import CharTokenizer, TokenizerBridge
from tokenizers_bridge.kinds.shaped import in_shape
from tokenizers_bridge.protocol import Tokenizer

ALPHABET = "0123456789+=()% \n" + "abcdefghijklmnopqrstuvwxyzA:."
CHARS = CharTokenizer(ALPHABET)


def text_of(tokenizer: Tokenizer, prompt: Any) -> str:
    return tokenizer.token_bytes(tokenizer.render_prompt(prompt)).decode()


def test_a_shape_changes_prompts_and_nothing_else() -> None:
    shaped = in_shape(CHARS, PromptShape(template="1+1=2\n{prompt}"))
    assert text_of(shaped, "2+2=") == "1+1=2\n2+2="
    assert (shaped.fingerprint, shaped.vocab_size, shaped.stop_id) == (
        CHARS.fingerprint,
        CHARS.vocab_size,
        CHARS.stop_id,
    )
    assert text_of(CHARS, "2+2=") == "2+2="
    assert in_shape(CHARS, PromptShape()) is CHARS
    assert in_shape(shaped, PromptShape(chat=True)).render_prompt("2").tolist() != shaped.render_prompt("2").tolist()


def test_the_question_of_a_conversation_is_its_first_message_of_the_user() -> None:
    shaped = in_shape(CHARS, PromptShape(template="{prompt}.", system="be brief"))
    conversation: tuple[Message, ...] = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    )
    assert text_of(shaped, conversation) == "system: be brief\nuser: a.\nassistant: b\nuser: c\nassistant:"


@pytest.mark.real_tokenizers
def test_without_chat_a_chat_model_is_given_text_behind_its_bos_if_it_has_one() -> None:
    for name, bos in (("llama3", ["<|begin_of_text|>"]), ("qwen", []), ("gemma3", ["<bos>"])):
        tokenizer = loaded(name)
        plain = in_shape(tokenizer, PromptShape(chat=False))
        ids = plain.render_prompt(({"role": "user", "content": "1+1="},))
        words = tokenizer.encode_batch(["1+1="])[0]
        assert ids[len(bos) :].tolist() == words.tolist(), name
        assert [tokenizer.specials[int(i)] for i in ids[: len(bos)]] == ["bos"] * len(bos), name
        chat = in_shape(tokenizer, PromptShape(chat=True)).render_prompt("1+1=")
        assert chat.tolist() == tokenizer.render_prompt(({"role": "user", "content": "1+1="},)).tolist()


class Foreign:
    """A third party's tokenizer, without the method."""

    def __init__(self) -> None:
        self._inner = CHARS

    fingerprint, vocab_size = CHARS.fingerprint, CHARS.vocab_size
    specials, stop_id = CHARS.specials, CHARS.stop_id

    def encode_batch(self, texts: Any) -> Any:
        return self._inner.encode_batch(texts)

    def decode(self, ids: Any) -> Any:
        return self._inner.decode(ids)

    def token_bytes(self, ids: Any) -> Any:
        return self._inner.token_bytes(ids)

    def byte_lengths(self, ids: Any) -> Any:
        return self._inner.byte_lengths(ids)

    def render_prompt(self, prompt: Any) -> Any:
        return self._inner.render_prompt(prompt)


def test_a_tokenizer_that_takes_no_shape_says_what_to_do() -> None:
    assert isinstance(Foreign(), Tokenizer)
    assert isinstance(in_shape(Foreign(), PromptShape()), Foreign)
    with pytest.raises(InvalidInputError, match="takes no `prompt`: give it a method with_prompts"):
        in_shape(Foreign(), PromptShape(chat=True))


def test_every_learner_takes_a_prompt_and_refuses_a_wrong_one() -> None:
    options: dict[str, dict[str, Any]] = {
        "tabular": {"tokenizer": CHARS, "max_new_tokens": 2},
        "tiny": {"tokenizer": CHARS, "max_new_tokens": 2, "name": "p", "seed": 0},
    }
    for learner, rest in options.items():
        policy = learners.make(learner, prompt={"template": "1+1=2\n{prompt}"}, stop=["\n"], **rest)
        assert text_of(policy.tokenizer, "2+2=") == "1+1=2\n2+2="
        with pytest.raises(UnknownNameError, match="'template'"):
            learners.make(learner, prompt={"tempalte": "{prompt}"}, **rest)
        assert "prompt" in learners.registry.options(learner)


def test_a_learner_with_a_prompt_of_its_own_is_a_learner_like_any_other() -> None:
    shape = {"system": "a", "template": "1+1=2\n{prompt}"}
    check_learner(lambda: learners.make("tabular", tokenizer=CHARS, prompt=shape, max_new_tokens=3))


def test_policies_that_are_asked_differently_learn_from_each_other_under_their_own_prompts() -> None:

    env = sharing.make(
        "prp", mutual_env.make("mutual/arithmetic-v0", agents=["ada", "bob"], digits=1, prompts_per_round=2)
    )
    shapes = {"ada": {"template": "1+1=2\n{prompt}"}, "bob": {"system": "be brief"}}
    policies = {
        name: learners.make("tabular", name=name, tokenizer=CHARS, prompt=shape, max_new_tokens=2)
        for name, shape in shapes.items()
    }
    observations, _ = env.reset(seed=0)
    assert observations["ada"] == observations["bob"]
    actions = {name: policy.act(observations[name]["prompts"], 8, seed=0) for name, policy in policies.items()}
    *_, infos = env.step(actions)
    bridge = TokenizerBridge([CHARS])
    for name, policy in policies.items():
        batch = learners.build_batch(infos[name]["lessons"], policy, bridge)
        asked = {text_of(policy.tokenizer, prompt) for prompt in observations[name]["prompts"]}
        assert {policy.tokenizer.token_bytes(e.prompt_ids).decode() for e in batch.examples} == asked
        assert len(batch.examples) == 32  # two prompts, eight samples each of both policies
        assert all(np.isfinite(e.advantages).all() for e in batch.examples)
