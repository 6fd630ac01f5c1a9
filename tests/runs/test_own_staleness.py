"""Own rollouts of asynchronous rounds are weighed by what has changed since they were sampled: in the real loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learners import registry
from learners.example import Example
from learners.run.config import load_run
from learners.run.results import read_run
from learners.run.training import train
from learners.tabular import TabularLearner
from mutual_env.types import Floats, Metrics

CONFIG = """
name: stale
rounds: 12
env: {id: mutual/arithmetic-v0, group_size: 16, prompts_per_round: 6, options: {digits: 1, modulus: 4}}
sharing: {strategy: independent, options: {max_staleness: 4}}
policies:
  ada:
    learner: watched
    options:
      tokenizer: {kind: char, alphabet: "0123456789+=()%"}
      alphabet: "0123"
      max_new_tokens: 2
      learning_rate: 60.0
resources: {mode: asynchronous}
checkpoint: {every: 0}
"""
SEEN: list[tuple[Floats, Metrics]] = []  # of each update: the log-ratios of own tokens, and what it measured


class Watched(TabularLearner):
    """Compares each of its updates with the closed form."""

    def update(self, examples: Sequence[Example]) -> Metrics:
        now = self.score([e.prompt_ids for e in examples], [e.response_ids for e in examples])
        expected = self._moved(examples, now)
        before = {key: row.copy() for key, row in self._table.items()}
        metrics = super().update(examples)
        for key, row in self._table.items():
            step = row - before.get(key, self._initial)
            np.testing.assert_allclose(step, self._learning_rate * expected.get(key, 0.0), rtol=0, atol=1e-12)
        SEEN.append((np.concatenate([p - behaviour_of(e) for p, e in zip(now, examples, strict=True)]), metrics))
        return metrics

    def _moved(self, examples: Sequence[Example], now: Sequence[Floats]) -> dict[Any, Floats]:
        """min(π / β, 2) A ∇ log π over all tokens, where π is the policy at the start of the only step: ρ = 1."""
        tokens = sum(e.response_ids.size for e in examples)
        moved: dict[Any, Floats] = {}
        for example, logprobs in zip(examples, now, strict=True):
            gaps = logprobs - behaviour_of(example)
            weights = np.minimum(np.exp(np.where(np.abs(gaps) > 1e-4, gaps, 0.0)), 2.0)  # less is rounding
            for t, token in enumerate(example.response_ids):
                key = self._key(example.prompt_ids, example.response_ids, t)
                logits = self._table.get(key, self._initial)
                slope = -np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
                slope[token] += 1.0
                moved[key] = moved.get(key, 0.0) + weights[t] * example.advantages[t] / tokens * slope
        return moved


def behaviour_of(example: Example) -> Floats:
    assert example.behaviour is not None
    return example.behaviour


def test_a_delay_of_four_updates_is_measured_and_weighed(tmp_path: Path) -> None:
    registry.register("watched", lambda name, tokenizer, **options: Watched(tokenizer, name=name, **options))
    (tmp_path / "run.yaml").write_text(CONFIG + f"output: {tmp_path}\n")
    SEEN.clear()
    run = read_run(train(load_run(tmp_path / "run.yaml")).directory)
    assert [age for _, age in run.metrics["ada"]["staleness/max"]] == [0.0, 1.0, 2.0, 3.0] + [4.0] * 8
    assert len(SEEN) == 12
    gaps = np.concatenate([found for found, _ in SEEN])
    assert np.exp(gaps).min() < 0.5  # the ratios are far from 1 on both sides
    assert np.exp(gaps).max() > 2.0
    for (found, metrics), (_, mean), (_, most) in zip(
        SEEN, run.metrics["ada"]["behaviour/gap_mean"], run.metrics["ada"]["behaviour/gap_max"], strict=True
    ):
        assert (mean, most) == (metrics["behaviour/gap_mean"], metrics["behaviour/gap_max"])
        assert most <= np.abs(found).max() + 1e-12
    assert SEEN[0][1]["behaviour/gap_max"] == 0.0  # sampled and learnt by the same weights
    assert max(metrics["behaviour/cut_share"] for _, metrics in SEEN) > 0.0


def test_without_the_weights_it_is_said_once_that_nothing_is_done(tmp_path: Path) -> None:
    plain = CONFIG.replace("watched", "tabular").replace(
        "learning_rate: 60.0", "learning_rate: 60.0\n      behaviour: off"
    )
    (tmp_path / "run.yaml").write_text(plain + f"output: {tmp_path}\n")
    with pytest.warns(UserWarning, match="give the learner behaviour: token"):
        train(load_run(tmp_path / "run.yaml"))
