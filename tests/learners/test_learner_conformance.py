"""The shipped conformance suite, on every learner this package has without further installs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedModel

from learners.tabular import TabularLearner
from learners.testing import ConformanceError, MakeLearner, check_learner
from tests.learners.tiny_policies import TOKENIZER, gemma, learner, llama, neox
from tests.tiers import rest_long

pytestmark = pytest.mark.torch


def test_the_tabular_learner_conforms() -> None:
    check_learner(lambda: TabularLearner(TOKENIZER, name="table", max_new_tokens=10, learning_rate=5.0))


@pytest.mark.parametrize("build", [llama, neox, gemma])
def test_the_torch_learner_conforms(build: Callable[[], PreTrainedModel]) -> None:
    check_learner(lambda: learner(build()), split=_split(build))


@pytest.mark.parametrize(
    "options",
    rest_long(
        [
            {"lora_rank": 4},
            {"gradient_checkpointing": True},
            {"share_prompts": False, "schedule": "cosine", "total_steps": 1000, "warmup_steps": 2},
            {"aggregation": "sequence_mean"},
        ],
        quick=1,
    ),
    ids=lambda options: next(iter(options)),
)
def test_the_torch_learner_conforms_under_each_option(options: dict[str, Any]) -> None:
    check_learner(lambda: learner(llama(), **options), split=_split(llama, **options))


def _split(build: Callable[[], PreTrainedModel], **options: Any) -> tuple[MakeLearner, MakeLearner]:
    # 24 tokens: the longest toy sequence has 7 + 10, so a forward holds one or two.
    small = {"learning_rate": 1e-4, **options}
    return lambda: learner(build(), **small), lambda: learner(build(), micro_batch_tokens=24, **small)


class Forgetful(TabularLearner):
    """Counts no update that taught nothing."""

    def update(self, examples: Any) -> Any:
        before = self.version
        metrics = super().update(examples)
        if metrics["optimizer_steps"] == 0:
            self._version = before
        return metrics


class Biased(TabularLearner):
    """Scores at another temperature than it samples."""

    def score(self, prompt_ids: Any, response_ids: Any) -> Any:
        return [np.asarray(values) * 1.01 for values in super().score(prompt_ids, response_ids)]


@pytest.mark.parametrize(("broken", "sentence"), [(Forgetful, "version must rise"), (Biased, "must agree")])
def test_the_suite_finds_what_is_broken(broken: type[TabularLearner], sentence: str) -> None:
    with pytest.raises(ConformanceError, match=sentence):
        check_learner(lambda: broken(TOKENIZER, name="table", max_new_tokens=10))
