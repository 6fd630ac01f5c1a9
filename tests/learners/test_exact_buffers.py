"""What a model in bfloat16 keeps exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from tests.learners.tiny_policies import gemma, learner, llama, neox

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("build", [llama, neox, gemma])
def test_what_is_computed_and_not_learnt_stays_exact_in_bfloat16(build: Callable[[], PreTrainedModel]) -> None:
    """Frequencies of rotary positions: rounded, they would turn a place far on by another angle than the model's."""
    policy, plain = learner(build(), dtype="bfloat16").model, build()
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    exact = dict(plain.named_buffers())
    frequencies = {name: buffer for name, buffer in policy.named_buffers() if "inv_freq" in name}
    assert frequencies
    assert all(torch.equal(buffer, exact[name]) for name, buffer in frequencies.items())
