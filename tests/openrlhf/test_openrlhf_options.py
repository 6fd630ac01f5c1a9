"""Every option of OpenRLHF's learners does something, on the real classes and without a GPU: it moves the numbers that
it is about, or it is read back from the actor, from the strategy and from what DeepSpeed is configured with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openrlhf")

from learners import registry
from learners.openrlhf.options import ActorOptions, ClusterOptions
from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from mutual_env.errors import InvalidInputError
from tests.learners.test_torch_options import DEFAULTS, MOVES, checkpointed, lived, passes
from tests.learners.tiny_policies import TOKENIZER, llama

pytestmark = [pytest.mark.openrlhf, pytest.mark.filterwarnings("ignore:own samples were written")]

COSTS: Mapping[str, tuple[Any, Callable[[TorchLearner], object]]] = {
    # option: another value, and where it shows; the numbers stay
    "attention": ("eager", lambda policy: policy.model.config._attn_implementation),
    "conversation_mb": (0, lambda policy: policy._conversations._limit),
    "device": ("cpu", lambda policy: policy.device),
    "gradient_checkpointing": (True, checkpointed),
    "max_rows": (4, passes),
    "micro_batch_tokens": (40, lambda policy: len(policy._trainer._trainer._batches([20] * 9))),  # type: ignore[attr-defined]
    "refill": (True, passes),
    "packing": (True, lambda policy: policy._trainer._actor.packing_samples),  # type: ignore[attr-defined]
}
REFUSED = {
    "compile": "use learner torch",
    "logits_chunk_mib": "lower micro_batch",
    "share_prompts": "lower micro_batch",
}
"""Of the torch learner's own forward, with the remedy."""


def build(**options: Any) -> TorchLearner:
    settings = {"device": "cpu", "max_new_tokens": 10, "learning_rate": 1e-2, **options}
    made = registry.make("openrlhf", name="toy", model=llama(), tokenizer=TOKENIZER, **settings)
    assert isinstance(made, TorchLearner)
    return made


@cache
def usual(beside: tuple[tuple[str, Any], ...]) -> tuple[TorchLearner, list[list[int]], np.ndarray[Any, Any]]:
    return lived(dict(beside), build)


def test_every_option_is_in_one_of_the_tables() -> None:
    names = {f.name for cls in (TorchOptions, ActorOptions) for f in dataclasses.fields(cls)}
    assert MOVES.keys() | COSTS.keys() | REFUSED.keys() == names


@pytest.mark.parametrize("name", sorted(MOVES))
def test_an_option_moves_what_is_sampled_or_what_is_learnt(name: str) -> None:
    value, beside = MOVES[name]
    before = {**beside, **({name: DEFAULTS[name]} if name in DEFAULTS else {})}
    _, written, weights = usual(tuple(before.items()))
    _, now_written, now_weights = lived({**beside, name: value}, build)
    assert written != now_written or not np.array_equal(weights, now_weights)


@pytest.mark.parametrize("name", sorted(COSTS))
def test_an_option_of_memory_or_place_moves_no_number(name: str) -> None:
    value, shown = COSTS[name]
    policy, written, weights = usual(())
    other, now_written, now_weights = lived({name: value}, build)
    assert written == now_written
    assert np.abs(weights - now_weights).max() < 1e-4
    assert name == "device" or shown(policy) != shown(other)


@pytest.mark.parametrize("options", [{}, {"entropy_coefficient": 0.1, "kl_coefficient": 0.1}, {"lora_rank": 2}])
def test_packed_rows_teach_what_padded_rows_teach(options: Mapping[str, Any]) -> None:
    """Also where several rows share a micro-batch and others do not fit, and where an entropy is asked for."""
    padded, packed = (lived({**options, "packing": it, "micro_batch_tokens": 40}, build) for it in (False, True))
    assert padded[1] == packed[1]
    assert np.abs(padded[2] - packed[2]).max() < 1e-4


def test_what_is_not_installed_or_cannot_be_is_said_in_a_sentence() -> None:
    with pytest.raises(InvalidInputError, match="needs the module 'flash_attn', which is not installed"):
        build(attention="flash_attention_2", dtype="bfloat16")
    with pytest.raises(InvalidInputError, match="attention must be one of eager, sdpa"):
        build(attention="ring")
    for name in REFUSED:
        with pytest.raises(InvalidInputError, match=f"{name} is no option of learner 'openrlhf': .*{REFUSED[name]}"):
            build(**{name: TorchOptions.__dataclass_fields__[name].default})


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_options_of_the_cluster_reach_what_deepspeed_is_configured_with(stage: int) -> None:
    from learners.openrlhf.cluster.deepspeed import ClusterStrategy

    options = TorchOptions(dtype="bfloat16", max_gradient_norm=0.25, seed=7)
    cluster = ClusterOptions(nodes=2, gpus_per_node=3, zero_stage=stage, offload_optimizer=True)
    strategy = ClusterStrategy(options, cluster)
    read = strategy.get_ds_train_config()
    assert (strategy.stage, strategy.seed, strategy.param_dtype) == (stage, 7, "bf16")
    assert read["zero_optimization"]["stage"] == stage
    assert read["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert (read["bf16"]["enabled"], read["gradient_clipping"]) == (True, 0.25)
    assert (read["train_batch_size"], read["train_micro_batch_size_per_gpu"]) == (6, 1)
    plain = ClusterStrategy(TorchOptions(), ClusterOptions()).get_ds_train_config()
    assert plain["zero_optimization"]["offload_optimizer"]["device"] == "none"
    assert (plain["bf16"]["enabled"], plain["train_batch_size"]) == (False, 1)


def test_a_model_directory_is_the_model_that_was_saved_there(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    read = registry.make("openrlhf", name="toy", path=str(tmp_path), tokenizer=TOKENIZER, device="cpu")
    rows = [np.array([1, 2, 3], np.int32)], [np.array([4, 5], np.int32)]
    assert np.array_equal(read.score(*rows)[0], build().score(*rows)[0])
