"""OpenRLHF's ring attention on the CPU: its actors and `ring_flash_attn` as they are, gloo between the ranks, and
flash-attn's kernels in plain torch (tests/openrlhf/flash_on_cpu.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("openrlhf")

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from learners.openrlhf.cluster.ring import check_ring, require_devices
from learners.openrlhf.make import try_openrlhf_ray
from learners.openrlhf.options import ActorOptions, ClusterOptions
from learners.torch.learner import TorchLearner
from learners.torch.options import TorchOptions
from mutual_env.errors import InvalidInputError
from tests.openrlhf.forked import answers_of
from tests.openrlhf.test_openrlhf_cluster import TOKENIZER, examples_of

pytestmark = [pytest.mark.openrlhf, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore:own samples were")]

OPTIONS = {"device": "cpu", "max_new_tokens": 10, "learning_rate": 1e-2, "temperature": 0.8, "minibatches": 2}
PULLED = {"kl_coefficient": 0.02, "entropy_coefficient": 0.02, "micro_batch_tokens": 40}
RINGS: tuple[tuple[dict[str, int], dict[str, Any]], ...] = (
    ({"gpus_per_node": 4, "ring_attn_size": 2, "ring_attn_head_stride": 2}, PULLED),  # two rings of two
    ({"gpus_per_node": 3, "ring_attn_size": 3, "zero_stage": 3}, {**PULLED, "gradient_checkpointing": True}),
    ({"gpus_per_node": 2, "ring_attn_size": 2}, {"lora_rank": 2}),
    ({"gpus_per_node": 2, "ring_attn_size": 2}, {"dtype": "bfloat16"}),
)


def small() -> LlamaForCausalLM:
    torch.manual_seed(1)
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 64}
    sizes = {"vocab_size": TOKENIZER.vocab_size, "hidden_size": 48, "num_hidden_layers": 2, **heads}
    return LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=None, eos_token_id=TOKENIZER.stop_id))


def alone(options: dict[str, Any]) -> TorchLearner:
    return TorchLearner(small(), TOKENIZER, name="toy", options=TorchOptions.of({**OPTIONS, **options}))


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Any]:
    """What each rank of each ring answered."""
    directory = tmp_path_factory.mktemp("rings")
    small().save_pretrained(directory / "model")
    examples = examples_of(alone({}))
    common = {"path": str(directory / "model"), "vocabulary": TOKENIZER.vocab_size, "examples": examples}
    pairs = [(e.prompt_ids, e.response_ids) for e in examples]
    plans = [
        {**common, "pairs": pairs, "cluster": cluster, "options": {**OPTIONS, **options}} for cluster, options in RINGS
    ]
    answers = answers_of("ring_ranks.py", plans, [cluster["gpus_per_node"] for cluster, _ in RINGS], directory)
    return {(number, rank): told for number, of in enumerate(answers) for rank, told in enumerate(of)}


@pytest.mark.parametrize("number", range(len(RINGS)))
def test_a_ring_learns_what_one_rank_learns(rings: dict[tuple[int, int], Any], number: int) -> None:
    """The stretches of its ranks begin and end inside sequences, and some micro-batches have a token too few."""
    cluster, options = RINGS[number]
    rounded = options.get("dtype") == "bfloat16"  # what is rounded otherwise is amplified by every update
    one = alone(options)
    examples = examples_of(alone({}))
    prompts, responses = [e.prompt_ids for e in examples], [e.response_ids for e in examples]
    before = one.score(prompts, responses)
    said = [one.update(examples) for _ in range(3)]
    after = one.score(prompts, responses)
    assert furthest(before, after) > 0.1
    for rank in range(cluster["gpus_per_node"]):
        there_before, there_said, there_after = rings[number, rank]
        assert furthest(before, there_before) < (0.05 if rounded else 1e-5)
        assert rounded or furthest(after, there_after) < 1e-4
        for ours, theirs in list(zip(said, there_said, strict=True))[: 1 if rounded else 3]:
            for key in ("loss", "gradient_norm"):
                assert theirs[key] == pytest.approx(ours[key], rel=0.05 if rounded else 1e-4)


def furthest(some: list[Any], others: list[Any]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))


SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 8}
HEADS = {**SIZES, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("model", "stride", "why"),
    [
        (lambda: MistralForCausalLM(MistralConfig(**HEADS, sliding_window=4)), 1, "a sliding window of 4 tokens"),
        (lambda: Gemma2ForCausalLM(Gemma2Config(**HEADS, head_dim=2)), 1, "layers of sliding_attention"),
        (
            lambda: Gemma2ForCausalLM(Gemma2Config(**HEADS, head_dim=2, layer_types=["full_attention"] * 2)),
            1,
            "capped attention scores",
        ),
        (
            lambda: GptOssForCausalLM(
                GptOssConfig(**HEADS, head_dim=2, num_local_experts=2, layer_types=["full_attention"] * 2)
            ),
            1,
            "a sliding window|attention sinks",
        ),
        (lambda: Qwen2ForCausalLM(Qwen2Config(**HEADS)), 3, "does not divide this model's 2 key-value heads"),
        (lambda: Qwen2ForCausalLM(Qwen2Config(**HEADS)), 2, ""),
        (small, 1, ""),
    ],
)
def test_what_a_ring_would_compute_otherwise_is_refused(model: Any, stride: int, why: str) -> None:
    made = model()
    rings = ClusterOptions(gpus_per_node=2, ring_attn_size=2, ring_attn_head_stride=stride)
    check_ring(made, made.config, ClusterOptions())
    if not why:
        check_ring(made, made.config, rings)
        return
    with pytest.raises(InvalidInputError, match=why):
        check_ring(made, made.config, rings)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ring_attn_size": 2}, "ring_attn_size 2 does not divide nodes x gpus_per_node, 1"),
        ({"gpus_per_node": 4, "ring_attn_size": 3}, "ring_attn_size 3 does not divide nodes x gpus_per_node, 4"),
        ({"ring_attn_size": 0}, "ring_attn_size must be at least 1, got 0"),
        ({"ring_attn_head_stride": 2}, "ring_attn_head_stride is 2, and there is no ring"),
        ({"gpus_per_node": 2, "ring_attn_size": 2}, "say packing: true and attention: flash_attention_2, got False"),
        (
            {"gpus_per_node": 2, "ring_attn_size": 2, "packing": True, "attention": "flash_attention_2"},
            "needs the module 'flash_attn'",
        ),
    ],
)
def test_a_ring_that_cannot_be_is_refused_before_anything_is_built(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        try_openrlhf_ray(path="models/none", **options)


def test_what_a_ring_needs_is_named() -> None:
    rings = ClusterOptions(gpus_per_node=2, ring_attn_size=2)
    with pytest.raises(InvalidInputError, match="pip install ring-flash-attn"):  # without flash-attn it is of no use
        rings.require(ActorOptions(attention="flash_attention_2", packing=True))
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInputError, match="needs CUDA devices: flash-attn has no kernel for the CPU"):
            require_devices(rings)
