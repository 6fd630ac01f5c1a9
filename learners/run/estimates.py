"""What a policy of a run takes, estimated from its model's size and the GPUs that there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learners import registry
from learners.resources import Supply
from learners.resources.estimate import Estimate, Setup, Work, estimate
from learners.resources.hardware import Gpu, gpu_named, gpu_of_size
from learners.resources.shapes import shape_of
from learners.run.config import EnvConfig, PolicyConfig
from mutual_env.errors import ConfigError, UnknownNameError

PROMPT_TOKENS = 200
"""Of a prompt, where resources.assumptions does not say."""

TRANSFERS = {"file": 0.49e9, "ipc": 8e9, "nccl": 8e9}
"""Bytes a second to vLLM. The file's is measured; the others' are assumed: 1B parameters in 0.3 s."""


def can_use_gpus(policy: PolicyConfig) -> bool:
    return (
        "device" in registry.options(policy.learner, policy.options) and policy.options.get("device", "auto") != "cpu"
    )


def gpus_of(policy: PolicyConfig) -> int:
    """How many the learner spreads over."""
    options = policy.options
    return int(options.get("nodes", 1)) * int(options.get("gpus_per_node", 1))


def estimated(policy: PolicyConfig, env: EnvConfig, supply: Supply, assumptions: Mapping[str, Any]) -> Estimate | None:
    """None where the model's size is not known, or nothing is there to compute on."""
    path = policy.options.get("path")
    shape = shape_of(path) if path and isinstance(path, str) else None
    if shape is None or not supply.gpus or not can_use_gpus(policy):
        return None
    work = _work(policy.options, env, assumptions)
    _check_length(policy, work, assumptions)
    return estimate(shape, gpu_of(supply), work, _setup(policy))


def _check_length(policy: PolicyConfig, work: Work, assumptions: Mapping[str, Any]) -> None:
    """How long prompts are is a guess, unless the configuration says it."""
    longest = policy.options.get("engine", {}).get("max_model_len") if policy.learner == "vllm" else None
    prompt = work.prompt if "prompt_tokens" in assumptions else 1
    if isinstance(longest, int) and prompt + work.longest > longest:
        raise ConfigError(
            f"prompts of {prompt} tokens or more and max_new_tokens {work.longest} of {policy.options.get('path')} are "
            f"more than its engine.max_model_len {longest}: raise that, or lower max_new_tokens"
        )


def gpu_of(supply: Supply) -> Gpu:
    """What the GPUs of the supply are taken for; of several kinds, the smallest."""
    node = min((node for node in supply.nodes if node.gpus), key=lambda node: node.gpu_memory)
    try:
        return gpu_named(node.kind)
    except UnknownNameError:
        return gpu_of_size(node.gpu_memory or gpu_named("H100").memory)


def check_assumptions(assumptions: Mapping[str, Any]) -> None:
    for key, value in assumptions.items():
        if key not in ("prompt_tokens", "response_tokens"):
            raise UnknownNameError.of("key in resources.assumptions", key, ("prompt_tokens", "response_tokens"))
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"resources.assumptions.{key} must be a whole number of at least 1, got {value!r}")


def _work(options: Mapping[str, Any], env: EnvConfig, assumptions: Mapping[str, Any]) -> Work:
    longest = int(options.get("max_new_tokens", 64))
    mean = min(longest, int(assumptions.get("response_tokens", max(1, longest // 2))))
    prompt = int(assumptions.get("prompt_tokens", PROMPT_TOKENS))
    return Work(env.prompts_per_round, env.group_size, prompt, mean, longest)


def _setup(policy: PolicyConfig) -> Setup:
    options = policy.options
    engine = policy.learner == "vllm"
    rows = options.get("engine", {}).get("max_num_seqs", 256) if engine else options.get("max_rows", 256)
    return Setup(
        gpus=gpus_of(policy),
        engine=engine,
        split=min(gpus_of(policy), int(options.get("engine", {}).get("tensor_parallel_size", 1))) if engine else 1,
        width=2 if options.get("dtype") == "bfloat16" else 4,
        lora=int(options.get("lora_rank", 0)) > 0,
        checkpointing=bool(options.get("gradient_checkpointing", False)),
        micro_batch=int(options.get("micro_batch_tokens", 4096)),
        rows=int(rows),
        logits=int(options.get("logits_chunk_mib", 128)) << 20,
        transfer=TRANSFERS.get(str(options.get("transport", "file")), TRANSFERS["file"]),
    )
