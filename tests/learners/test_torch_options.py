"""Every option of the torch learner does something: it moves the numbers that it is about, or only what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from learners.example import Example
from learners.torch import sampler
from learners.torch.learner import TorchLearner
from learners.torch.optimizer import Optimizer
from learners.torch.options import TorchOptions
from learners.torch.packing import Item, micro_batches
from mutual_env.errors import InvalidInputError, UnknownNameError
from tests.learners.tiny_policies import learner, llama
from tests.tiers import long

pytestmark = pytest.mark.torch

PROMPTS = ["1+2=", "12+34=", "abc"]
NAMES = {field.name for field in dataclasses.fields(TorchOptions)}

MOVES: Mapping[str, tuple[Any, Mapping[str, Any]]] = {
    # option: another value, and what stands beside it in both
    "aggregation": ("sequence_mean", {}),
    "behaviour": ("off", {}),
    "behaviour_cap": (1.0, {}),
    "behaviour_floor": (1.0, {"behaviour": "icepop"}),
    "beta1": (0.5, {}),
    "beta2": (0.5, {}),
    "constant_length": (3, {"aggregation": "constant"}),
    "dtype": ("bfloat16", {}),
    "entropy_coefficient": (0.5, {}),
    "epochs": (2, {}),
    "kl_coefficient": (0.5, {}),
    "learning_rate": (3e-2, {}),
    "lora_alpha": (64.0, {"lora_rank": 2}),
    "lora_rank": (2, {}),
    "lora_targets": ("q_proj,v_proj", {"lora_rank": 2}),
    "max_gradient_norm": (1e-3, {}),
    "max_new_tokens": (5, {}),
    "minibatches": (2, {}),
    "minibatches_by": ("samples", {"minibatches": 2}),
    "prompt": ({"template": "a {prompt}"}, {}),
    "reference_reset": (1, {"kl_coefficient": 0.5}),
    "optimizer_reset": (True, {"kl_coefficient": 0.5, "reference_reset": 1}),
    "schedule": ("cosine", {"total_steps": 3}),
    "seed": (1, {"lora_rank": 2}),
    "shuffle": (True, {"epochs": 2, "minibatches": 3}),
    "stop": (("1",), {}),
    "temperature": (0.5, {}),
    "top_k": (2, {}),
    "top_p": (0.5, {}),
    "total_steps": (3, {"schedule": "cosine"}),
    "warmup_steps": (3, {}),
    "weight_decay": (0.5, {}),
}
DEFAULTS = {"total_steps": 9}  # where a neighbour asks for more than the default

COSTS: Mapping[str, tuple[Any, Callable[[TorchLearner], object]]] = {
    # option: another value, and where it shows; the numbers stay
    "compile": (True, lambda policy: policy.language_model.compiled is None),
    "conversation_mb": (0, lambda policy: policy._conversations._limit),
    "device": ("cpu", lambda policy: policy.device),
    "gradient_checkpointing": (True, lambda policy: checkpointed(policy)),
    "logits_chunk_mib": (1, lambda policy: policy._trainer._chunk),  # type: ignore[attr-defined]
    "max_rows": (4, lambda policy: passes(policy)),
    "micro_batch_tokens": (40, lambda policy: policy._trainer.max_sequence),
    "refill": (True, lambda policy: passes(policy)),
    "share_prompts": (False, lambda policy: policy._trainer._cost is None),  # type: ignore[attr-defined]
}

TOGETHER: Mapping[str, Any] = {
    **{"device": "cpu", "dtype": "bfloat16", "max_new_tokens": 7, "temperature": 0.8, "top_p": 0.95, "top_k": 12},
    **{"max_rows": 4, "refill": True, "conversation_mb": 3, "stop": ("1",), "prompt": {"template": "a {prompt}"}},
    **{"learning_rate": 1e-2, "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.9, "schedule": "cosine"},
    **{"warmup_steps": 2, "total_steps": 40, "max_gradient_norm": 0.5, "optimizer_reset": True},
    **{"micro_batch_tokens": 48, "logits_chunk_mib": 1, "gradient_checkpointing": True, "share_prompts": False},
    "compile": True,
    **{"lora_rank": 2, "lora_alpha": 8.0, "lora_targets": "q_proj,v_proj", "seed": 3},
    **{"minibatches": 2, "minibatches_by": "samples", "epochs": 2, "shuffle": True},
    **{"aggregation": "constant", "constant_length": 5, "kl_coefficient": 0.1, "reference_reset": 1},
    **{"entropy_coefficient": 0.05, "behaviour": "icepop", "behaviour_cap": 1.5, "behaviour_floor": 0.7},
}
"""Another value of every option than its default, all at once."""


def checkpointed(policy: TorchLearner) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in policy.model.modules())


def passes(policy: TorchLearner) -> int:
    """How often a decoding begins."""
    counted = pytest.MonkeyPatch()
    seen: list[int] = []
    whole = sampler._decode
    counted.setattr(sampler, "_decode", lambda *args: (seen.append(1), whole(*args))[1])
    policy.act(PROMPTS, 4, seed=1)
    counted.undo()
    return len(seen)


def examples(policy: TorchLearner) -> list[Example]:
    """Own samples, the second of each group better than the rest, of lengths that differ."""
    found = []
    for prompt, group in zip(PROMPTS, policy.act(PROMPTS, 4, seed=0), strict=True):
        for index, completion in enumerate(group):
            size = completion.token_ids.size
            credit = np.full(size, 1.0 if index == 1 else -0.4)
            ids = policy.tokenizer.render_prompt(prompt)
            mask = np.ones(size, np.bool_)
            found.append(Example(ids, completion.token_ids, mask, credit, behaviour=completion.logprobs))
    return found


def build(**settings: Any) -> TorchLearner:
    return learner(llama(), **settings)


def lived(
    settings: Mapping[str, Any], build: Callable[..., TorchLearner] = build
) -> tuple[TorchLearner, list[list[int]], np.ndarray[Any, Any]]:
    """A policy that has learnt twice from the same samples (the second time they are old), what it wrote first, and its
    weights."""
    policy = build(**{"weight_decay": 0.0, **settings})
    lessons = examples(policy)
    policy.update(lessons)
    policy.update(lessons)
    weights = np.concatenate([p.detach().float().numpy().ravel() for _, p in policy.export_weights()])
    return policy, [e.response_ids.tolist() for e in lessons], weights


@cache
def usual(beside: tuple[tuple[str, Any], ...]) -> tuple[TorchLearner, list[list[int]], np.ndarray[Any, Any]]:
    return lived(dict(beside))


def test_every_option_is_in_one_of_the_tables() -> None:
    assert MOVES.keys() | COSTS.keys() == NAMES
    assert not MOVES.keys() & COSTS.keys()


@pytest.mark.filterwarnings("ignore:own samples were written")
@pytest.mark.parametrize("name", sorted(MOVES))
def test_an_option_moves_what_is_sampled_or_what_is_learnt(name: str) -> None:
    value, beside = MOVES[name]
    before = {**beside, **({name: DEFAULTS[name]} if name in DEFAULTS else {})}
    _, written, weights = usual(tuple(before.items()))
    _, now_written, now_weights = lived({**beside, name: value})
    assert written != now_written or not np.array_equal(weights, now_weights)


@pytest.mark.parametrize("name", [long(name) if name == "compile" else name for name in sorted(COSTS)])
def test_an_option_of_memory_or_place_moves_no_number(name: str) -> None:
    value, shown = COSTS[name]
    policy, written, weights = usual(())
    other, now_written, now_weights = lived({name: value})
    assert written == now_written
    assert np.abs(weights - now_weights).max() < 1e-4
    assert name == "device" or shown(policy) != shown(other)


def test_small_micro_batches_are_many() -> None:
    policy, _, _ = usual(())
    items = [Item(e.prompt_ids, e.response_ids, np.flatnonzero(e.mask)) for e in examples(policy)]
    device = policy.language_model.device
    many, few = (len(list(micro_batches(items, tokens, None, device))) for tokens in (40, 4096))
    assert many > few


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("aggregation", "mean"),
        ("behaviour", "on"),
        ("behaviour_cap", 0.0),
        ("behaviour_floor", 2.0),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("constant_length", -1),
        ("conversation_mb", -1),
        ("device", "tpu"),
        ("dtype", "float16"),
        ("entropy_coefficient", -1.0),
        ("epochs", 0),
        ("kl_coefficient", -1.0),
        ("learning_rate", -1.0),
        ("logits_chunk_mib", 0),
        ("lora_rank", -1),
        ("lora_targets", "nothing"),
        ("max_gradient_norm", -1.0),
        ("max_new_tokens", 0),
        ("max_rows", 0),
        ("micro_batch_tokens", 0),
        ("minibatches", 0),
        ("minibatches_by", "tokens"),
        ("prompt", {"template": "no place"}),
        ("reference_reset", -1),
        ("optimizer_reset", True),  # of a reference that stays
        ("schedule", "cosine"),  # over no steps
        ("seed", -1),
        ("temperature", 0.0),
        ("top_k", -1),
        ("top_p", 0.0),
        ("total_steps", -1),
        ("warmup_steps", -1),
        ("weight_decay", -1.0),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, value: Any) -> None:
    rank = {"lora_rank": 2} if name == "lora_targets" else {}
    with pytest.raises((InvalidInputError, ValueError)):
        learner(llama(), **{name: value, **rank})


def test_what_is_no_option_is_refused_with_the_nearest_that_is() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'temperature'"):
        TorchOptions.of({"temprature": 1.0})


def test_weight_decay_leaves_biases_and_norms_alone() -> None:
    names = ("layers.0.q_proj.weight", "layers.0.q_proj.bias", "layers.0.input_layernorm.weight", "q_norm.weight")
    parameters = {name: torch.nn.Parameter(torch.ones(3)) for name in names}
    optimizer = Optimizer(parameters, TorchOptions.of({"learning_rate": 0.1, "weight_decay": 0.5}), "toy")
    for parameter in parameters.values():
        parameter.grad = torch.zeros(3)
    optimizer.step(0.0)
    assert [round(float(p.detach()[0]), 6) for p in parameters.values()] == [0.95, 1.0, 1.0, 1.0]
