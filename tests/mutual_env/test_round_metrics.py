"""What a round says of how long, how whole and how varied its samples are."""

from __future__ import annotations

import numpy as np
import pytest

from learners.tabular import TabularLearner
from mutual_env.env import summarize
from mutual_env.types import Completion, FinishReason, Verdict
from tokenizers_bridge import CharTokenizer


def completion(logprobs: list[float], finish: FinishReason = "stop") -> Completion:
    return Completion("x", np.arange(len(logprobs), dtype=np.int32), np.array(logprobs), finish, 0, "toy")


def test_the_share_of_what_was_cut_off_and_the_estimated_entropy() -> None:
    written = [completion([-1.0, -2.0]), completion([-3.0], "length"), completion([], "length"), completion([0.0])]
    metrics = summarize((), written, [Verdict.wrong_format()] * 4)
    assert metrics["length/tokens"] == 1.0
    assert metrics["length/truncated"] == 0.5
    assert metrics["entropy"] == 6.0 / 4


def test_texts_alone_have_neither() -> None:
    metrics = summarize((), [Completion.from_text("x")], [Verdict.wrong_format()])
    assert not {"length/truncated", "entropy"} & metrics.keys()
    unknown = summarize((), [completion([float("nan")])], [Verdict.wrong_format()])
    assert "entropy" not in unknown


def test_the_estimate_is_the_entropy_of_the_policy_that_was_sampled_from() -> None:
    # A fresh tabular policy is uniform over what it may write, three characters and its stop: log 4 a token.
    policy = TabularLearner(CharTokenizer("01="), name="a", max_new_tokens=3)
    written = [c for group in policy.act(["0="], 16, seed=1) for c in group]
    metrics = summarize((), written, [Verdict.wrong_format()] * 16)
    assert metrics["entropy"] == pytest.approx(np.log(4))
