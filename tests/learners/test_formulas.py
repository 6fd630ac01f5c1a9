"""Every registered strategy's lessons move a policy as their formulas do, across tokenizers and optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import sharing
from learners.batch import build_batch
from learners.example import Example
from learners.tabular import TabularLearner
from mutual_env.seeding import generator
from mutual_env.types import Completion, Lesson, PolicyGradient
from sharing import registry
from sharing.testing import ScriptedEnv, scripted_task
from tests.learners.formulas import Formulas
from tokenizers_bridge import CharTokenizer, PairTokenizer, Tokenizer, TokenizerBridge

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:a strategy")]

READER, PEER, THIRD = "reader", "peer", "third"
ALPHABET = "yesnotr0123456789.,? "
# Chunks of one to three of the reader's tokens: "yes," is y+es+, here and one token there, "not" no+t and n+ot.
TOKENIZERS: dict[str, Tokenizer] = {
    READER: PairTokenizer(ALPHABET, [("e", "s"), ("n", "o"), ("t", "r")]),
    PEER: PairTokenizer(ALPHABET, [("y", "e"), ("ye", "s"), ("yes", ","), ("o", "t"), ("r", "y")]),
    THIRD: CharTokenizer(ALPHABET),
}
# Six prompts: the reader fails on three, of which a peer solves some, all, or none.
WROTE = {
    READER: [["yes", "no, try"], ["not yes", "no"], ["no", "try"], ["no", "nor"], ["yes, yes", "no"], ["not", "yes"]],
    PEER: [["no try", "yes"], ["yes, not", "not"], ["yes", "yes"], ["tre", "no"], ["no", "not"], ["yes no", "no"]],
    THIRD: [["yes, no", "yes"], ["no", "yes try"], ["no", "yes 2"], ["no 3", "0"], ["yes", "yes"], ["not", "noes"]],
}
TOLD: Mapping[str, dict[str, Any]] = {
    "trrd": {"teacher": PEER},
    "kdrl": {"teacher": PEER, "coefficient": 0.5},
    "topd": {"teacher": PEER},
    "offline": {"teacher": PEER},
    "frozen": {"agents": [PEER]},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("independent", {"ratio": "sequence"}),
    ("sgt", {"per_rescue": True}),
    ("sgt", {"compatible": True}),
    ("prp", {"ratio_cap": 1.5}),
    ("ftis", {"normalise": "union", "max_kl": 2.0}),
    ("graft", {"stored": True, "floor": 0.2}),
    ("graft", {"stored": True, "pooled": True, "peers_at": "first", "floor": 0.2}),
    ("topd", {"teacher": THIRD, "alpha": 0.7, "verified": 0.5, "std": "sample"}),
    ("topd", {"alpha": 1.0, "std": False, "aggregation": "sequence_mean"}),
    ("trrd", {"teacher": THIRD, "alpha": 0.0, "log_ratio_limit": 0.3, "aggregation": "sequence_mean"}),
]
EVERY = [(name, {}) for name in sorted({registry.canonical(n) for n in registry.names()})] + VARIANTS


def policy(name: str, minibatches: int) -> TabularLearner:
    """Finds each token of what is written more or less likely than others do."""
    made = TabularLearner(TOKENIZERS[name], name=name, learning_rate=1.0, minibatches=minibatches)
    draw = generator("formulas", name)
    for prompt in range(6):
        rendered = made.tokenizer.render_prompt(scripted_task(f"t0.{prompt}").prompt)
        for text in dict.fromkeys(t for groups in WROTE.values() for t in groups[prompt]):
            ids = tokens(made.tokenizer, text)
            for t in range(ids.size):
                row = made._table.setdefault(made._key(rendered, ids, t), draw.normal(size=made.tokenizer.vocab_size))
                row[ids[t]] += draw.uniform(0.0, 2.0)
    return made


def tokens(tokenizer: Tokenizer, text: str) -> np.ndarray[Any, Any]:
    return np.append(tokenizer.encode_batch([text])[0], tokenizer.stop_id).astype(np.int32)


def wrote(author: TabularLearner, prompt: int, text: str, shift: float) -> Completion:
    """With what its sampler said: some updates ago, `shift` apart."""
    ids = tokens(author.tokenizer, text)
    (said,) = author.score([author.tokenizer.render_prompt(scripted_task(f"t0.{prompt}").prompt)], [ids])
    drift = generator("drift", author.name, prompt, text).normal(scale=shift, size=ids.size) if shift else 0.0
    return Completion(text, ids, said + drift, "stop", 0, author.tokenizer.fingerprint)


def lessons_of(
    strategy: str, options: Mapping[str, Any], policies: Mapping[str, TabularLearner], shift: float
) -> tuple[Lesson, ...]:
    env = sharing.make(strategy, ScriptedEnv(tuple(WROTE), prompts=6, group=2, fixed=True), **options)
    said = {
        name: [[wrote(policies[name], p, text, shift) for text in group] for p, group in enumerate(groups)]
        for name, groups in WROTE.items()
    }
    found: tuple[Lesson, ...] = ()
    for round in range(2):  # what a strategy remembers of the first round counts in the second
        env.reset(seed=3, options={"round": round})
        found = env.step(said)[-1][READER]["lessons"]
    return found


@pytest.mark.parametrize("minibatches", [1, 2, 4])
@pytest.mark.parametrize(("strategy", "options"), EVERY, ids=lambda value: str(value))
def test_an_update_is_what_autograd_makes_of_the_formulas(
    strategy: str, options: dict[str, Any], minibatches: int
) -> None:
    policies = {name: policy(name, minibatches) for name in WROTE}
    lessons = lessons_of(strategy, {**TOLD.get(strategy, {}), **options}, policies, shift=0.3)
    reader, bridge = policies[READER], TokenizerBridge(list(TOKENIZERS.values()))
    formulas = Formulas(reader, bridge, {name: policies[name] for name in (PEER, THIRD)})
    batch = build_batch(lessons, reader, bridge, {name: policies[name] for name in (PEER, THIRD)})
    before = {key: row.copy() for key, row in reader._table.items()}
    reader.update(batch.examples)
    assert formulas.update(lessons, minibatches) == len(batch.examples)
    moved = max(float(np.abs(row - before.get(key, reader._initial)).max()) for key, row in reader._table.items())
    assert moved > 1e-3
    for key, row in reader._table.items():
        assert np.abs(row - formulas.rows[key].detach().numpy()).max() <= 1e-6 * moved, key


def test_the_lessons_above_hold_chunks_of_several_tokens_on_both_sides() -> None:
    policies = {name: policy(name, 1) for name in WROTE}
    bridge = TokenizerBridge(list(TOKENIZERS.values()))
    batch = build_batch(lessons_of("prp", {}, policies, 0.0), policies[READER], bridge)
    assert sum(e.units is not None for e in batch.examples) > 5
    assert batch.metrics["bridge/largest_chunk"] >= 3


def test_a_wrong_formula_is_found() -> None:
    # Own samples taken for fresh ones: the same lessons without their weights are another update.
    policies = {name: policy(name, 2) for name in WROTE}
    lessons = lessons_of("independent", {}, policies, shift=0.3)
    reader, bridge = policies[READER], TokenizerBridge(list(TOKENIZERS.values()))
    formulas = Formulas(reader, bridge, {})
    examples: list[Example] = list(build_batch(lessons, reader, bridge).examples)
    assert all(isinstance(e.loss, PolicyGradient) for e in examples)
    reader.update(examples)
    formulas.update(lessons, 2, cap=1.0)
    apart = max(float(np.abs(row - formulas.rows[key].detach().numpy()).max()) for key, row in reader._table.items())
    assert apart > 1e-3
