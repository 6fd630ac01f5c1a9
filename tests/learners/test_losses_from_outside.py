"""A loss of another package reaches every learner by its name, and is held to what ours are held to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mutual_env
import sharing
from learners import build_batch
from learners.losses import example_loss, loss_of, names
from learners.protocol import Learner
from learners.tabular import TabularLearner
from learners.testing import check_loss
from mutual_env.errors import InvalidInputError, UnknownNameError
from mutual_env.types import LossSpec, NamedLoss
from tests.learners.outside_loss import install
from tests.learners.tiny_policies import TOKENIZER, learner, llama
from tokenizers_bridge import TokenizerBridge

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(install(tmp_path)))
    loss_of.cache_clear()
    yield
    loss_of.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tempered"]:
        del sys.modules[name]


def table() -> Learner:
    return TabularLearner(TOKENIZER, name="toy", max_new_tokens=10, learning_rate=5.0)


def model() -> Learner:
    return learner(llama())


def test_it_is_known_by_name_and_conforms() -> None:
    assert "tempered" in names()
    loss = loss_of(NamedLoss.of("tempered", power=0.7))
    assert (loss.name, loss.options) == ("tempered", {"power": 0.7})
    check_loss(loss)


def test_a_name_or_an_option_that_is_not_there_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'tempered'"):
        loss_of(NamedLoss.of("temperd"))
    with pytest.raises(UnknownNameError, match="'power'"):
        loss_of(NamedLoss.of("tempered", powr=0.5))
    with pytest.raises(InvalidInputError, match=r"NamedLoss\.of"):
        loss_of("tempered")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [table, model])
def test_its_strategy_trains_every_learner(make: type[Learner]) -> None:
    policy = make()
    env = sharing.make(
        "tempered", mutual_env.make("mutual/arithmetic-v0", agents=["toy"], group_size=8, prompts_per_round=2)
    )
    observations, _ = env.reset(seed=0)
    groups = policy.act(observations["toy"]["prompts"], 8, seed=0)
    lessons = env.step({"toy": groups})[-1]["toy"]["lessons"]
    # An untaught policy may have no success to learn from: credit by turns.
    lessons = [replace(lesson, advantage=(-1.0) ** index) for index, lesson in enumerate(lessons)]
    batch = build_batch(lessons, policy, TokenizerBridge([TOKENIZER]))
    before = policy.score([e.prompt_ids for e in batch.examples], [e.response_ids for e in batch.examples])
    expected = sum(example_loss(e, s, s)[0] for e, s in zip(batch.examples, before, strict=True))
    metrics = policy.update(batch.examples)
    assert metrics["loss"] == pytest.approx(expected / sum(e.mask.sum() for e in batch.examples), abs=1e-6)
    assert metrics["gradient_norm"] > 0.0


def test_a_spec_is_hashable_and_plain() -> None:
    spec: LossSpec = NamedLoss.of("tempered", power=0.7)
    assert spec == NamedLoss.of("tempered", power=0.7)
    assert hash(spec) == hash(NamedLoss.of("tempered", power=0.7))
    assert dict(spec.options) == {"power": 0.7}
    assert np.isfinite(spec.options["power"])  # type: ignore[arg-type]
