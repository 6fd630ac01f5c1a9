"""A twin of another tokenizer teaches OpenRLHF's actor what a twin of its own tokenizer would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

pytest.importorskip("openrlhf")

from learners import registry
from tests.learners.twins import READER, VARIANTS, assert_same_update, model_of, strategies
from tokenizers_bridge import Tokenizer, load

pytestmark = pytest.mark.openrlhf

PAIRS = [("gpt2", "deepseek"), ("deepseek", "gpt2")]


@pytest.fixture(scope="module")
def published() -> dict[str, Tokenizer]:
    return {name: load(name) for name in ("gpt2", "deepseek")}


@pytest.mark.parametrize(("strategy", "options"), [*strategies().items(), *VARIANTS], ids=repr)
def test_twins_of_real_tokenizers_teach_an_actor_alike(
    published: dict[str, Tokenizer], strategy: str, options: Mapping[str, Any]
) -> None:
    for mine, other in PAIRS:
        reader = registry.make("openrlhf", name=READER, **model_of(published[mine]))
        assert_same_update(reader, published[other], strategy, options)
