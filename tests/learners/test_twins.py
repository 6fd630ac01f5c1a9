"""Two policies that give every string the same probability are one policy, whatever their tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learners import registry
from learners.batch import build_batch
from learners.example import Example
from learners.protocol import Learner
from learners.tabular import TabularLearner
from mutual_env.types import (
    AuthorPolicy,
    Completion,
    Experience,
    Lesson,
    PolicyGradient,
    Task,
    TeacherDivergence,
    Verdict,
)
from sharing.testing import scripted_task
from tests.learners.twins import (
    PEER,
    PROMPTS,
    READER,
    VARIANTS,
    VOTED,
    WROTE,
    Pair,
    Twin,
    assert_same_update,
    gradients,
    model_of,
    strategies,
)
from tests.tokenizers_bridge.published import loaded
from tokenizers_bridge import CharTokenizer, PairTokenizer, Tokenizer, TokenizerBridge

pytestmark = pytest.mark.torch

ALPHABET = "abcdefghijklmnopqrstuvwxyzï0123456789 .,:()>'?-"
CHARS = CharTokenizer(ALPHABET)
PAIRS = PairTokenizer(ALPHABET, [("y", "e"), ("ye", "s"), ("n", "o"), ("1", "2"), (" ", "o"), ("a", "l")])
REAL = [("gpt2", "qwen"), ("smollm2", "gemma3"), ("smollm2", "gpt2"), ("gemma3", "llama3"), ("llama3", "deepseek")]
EVERY = [*strategies().items(), *VARIANTS]


def table(tokenizer: Tokenizer) -> Learner:
    """A policy that finds each token of what will be written more or less likely."""
    policy = TabularLearner(tokenizer, name=READER, learning_rate=20.0)
    draw = np.random.default_rng(4)
    for prompt, texts in zip(PROMPTS, zip(*WROTE.values(), *VOTED.values(), strict=True), strict=True):
        for text in dict.fromkeys(text for group in texts for text in group):
            ids = np.append(tokenizer.encode_batch([text])[0], tokenizer.stop_id).astype(np.int32)
            rendered, advantages = (
                tokenizer.render_prompt(scripted_task(prompt).prompt),
                draw.uniform(-0.3, 1.0, ids.size),
            )
            loss = PolicyGradient(ratio="none")
            policy.update([Example(rendered, ids, np.ones(ids.size, np.bool_), ids.size * advantages, loss)])
    return policy


@pytest.mark.parametrize(("strategy", "options"), EVERY, ids=repr)
@pytest.mark.parametrize("names", ["pairs from characters", "characters from pairs"])
def test_twins_teach_a_table_what_its_own_tokenizer_would(
    names: str, strategy: str, options: Mapping[str, Any]
) -> None:
    mine, other = (CHARS, PAIRS) if names.startswith("characters") else (PAIRS, CHARS)
    assert_same_update(table(mine), other, strategy, options)


@pytest.fixture(scope="module")
def published() -> dict[str, Tokenizer]:
    return {name: loaded(name) for pair in REAL for name in pair}


@pytest.mark.real_tokenizers
@pytest.mark.parametrize(("strategy", "options"), EVERY, ids=repr)
def test_twins_of_real_tokenizers_teach_a_model_alike(
    published: dict[str, Tokenizer], strategy: str, options: Mapping[str, Any]
) -> None:
    """Each on one pair, all pairs in turn."""
    mine, other = REAL[EVERY.index((strategy, options)) % len(REAL)]
    taught_by_a_twin(published, mine, other, strategy, options)


@pytest.mark.long
@pytest.mark.real_tokenizers
@pytest.mark.parametrize(("strategy", "options"), EVERY, ids=repr)
def test_they_do_whatever_the_pair(published: dict[str, Tokenizer], strategy: str, options: Mapping[str, Any]) -> None:
    for mine, other in REAL:
        taught_by_a_twin(published, mine, other, strategy, options)


def taught_by_a_twin(
    published: dict[str, Tokenizer], mine: str, other: str, strategy: str, options: Mapping[str, Any]
) -> None:
    reader = registry.make("torch", name=READER, **model_of(published[mine]))
    assert_same_update(reader, published[other], strategy, options)


@pytest.mark.real_tokenizers
@pytest.mark.parametrize("strategy", ["prp", "graft", "hacpo", "ftis"])
def test_so_they_do_at_another_temperature_than_one(published: dict[str, Tokenizer], strategy: str) -> None:
    reader = registry.make("torch", name=READER, temperature=0.6, **model_of(published["llama3"]))
    assert_same_update(reader, published["deepseek"], strategy, strategies()[strategy])


@pytest.mark.real_tokenizers
def test_a_teacher_that_is_ones_twin_pulls_nowhere(published: dict[str, Tokenizer]) -> None:
    reader = registry.make("torch", name=READER, **model_of(published["gpt2"]))
    taught = Pair(reader, published["llama3"]).batch("kdrl", teacher=PEER, coefficient=2.0).examples
    pull = tuple(replace(example, advantages=0.0 * example.advantages) for example in taught)
    norms = [sum(float(g.norm()) ** 2 for g in gradients(reader, found).values()) ** 0.5 for found in (pull, taught)]
    assert norms[0] < 1e-5 * norms[1]  # what float32 leaves


# -- worked by hand ---------------------------------------------------------------------------------------------------

AB = CharTokenizer("ab?")
JOINED = PairTokenizer("ab?", [("a", "b")])
TASK = Task("t", "?", "")


def wrote_ab(tokenizer: Tokenizer, logprobs: list[float]) -> Experience:
    """The text "ab" and the stop token."""
    ids = np.append(tokenizer.encode_batch(["ab"])[0], tokenizer.stop_id).astype(np.int32)
    completion = Completion("ab", ids, np.array(logprobs), "stop", 0, tokenizer.fingerprint)
    return Experience(TASK, PEER, completion, Verdict.scored(1.0, correct=True), 0)


def reader_of_ab() -> TabularLearner:
    """P(a) = .5 or P(b) = .5 first; after a surely b, then surely the end: P("ab") = .5, as its author's one token."""
    reader = TabularLearner(AB, name=READER, learning_rate=1.0)
    a, b, stop = (*AB.encode_batch(["ab"])[0].tolist(), AB.stop_id)
    prompt = AB.render_prompt("?")
    for position, before, likely in ((0, (), (a, b)), (1, (a,), (b,)), (2, (b,), (stop,))):
        row = np.full(AB.vocab_size, -60.0)
        row[list(likely)] = 0.0
        reader._table[(*prompt.tolist(), -1, position, *before)] = row
    return reader


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_chunk_has_one_ratio_and_its_slope_goes_to_all_its_tokens(advantage: float) -> None:
    # S_π("ab") = log .5 = S_β("ab"): ρ = 1, nothing is clipped, and each token's slope is -A. Spread evenly over "a"
    # and "b", log .5 / 2 each, the ratios would be .707 and 1.414, and the slope at A = -1 would be 0 at "a".
    reader = reader_of_ab()
    lesson = Lesson(wrote_ab(JOINED, [np.log(0.5), 0.0]), advantage, correction=AuthorPolicy())
    (example,) = build_batch([lesson], reader, TokenizerBridge([AB, JOINED])).examples
    assert example.units is not None
    assert example.units.tolist() == [0, 0, 1]
    (moved,) = [row for key, row in gradients(reader, (example,)).items() if "-1, 0" in key]
    # d log P(a) by the logits of a and b is (1 - .5, -.5); divided by three tokens.
    a, b = AB.encode_batch(["ab"])[0].tolist()
    assert moved[[a, b]].tolist() == pytest.approx([advantage * 0.5 / 3, -advantage * 0.5 / 3])


def test_a_twin_that_teaches_leaves_its_pupil_where_it_is() -> None:
    reader = reader_of_ab()
    experience = wrote_ab(AB, [np.log(0.5), 0.0, 0.0])
    own = Lesson(
        Experience(TASK, READER, experience.completion, experience.verdict, 0),
        0.0,
        correction=TeacherDivergence(PEER, 1.0),
    )
    twin = Twin(PEER, JOINED)
    ids = np.append(JOINED.encode_batch(["ab"])[0], JOINED.stop_id).astype(np.int32)
    twin.known[JOINED.render_prompt("?").tobytes(), ids.tobytes()] = np.array([np.log(0.5), 0.0])
    bridge = TokenizerBridge([AB, JOINED])
    before = {key: row.copy() for key, row in reader._table.items()}
    for _ in range(300):
        reader.update(build_batch([own], reader, bridge, {PEER: twin}).examples)  # type: ignore[dict-item]
    assert all(np.allclose(reader._table[key], row, rtol=0, atol=1e-12) for key, row in before.items())
