"""What OpenRLHF's ring attention can compute, asked before it would compute something else.

Each actor of a ring has a stretch of the packed tokens, and `ring_flash_attn`, which takes the place of transformers'
flash attention, gathers keys and values of all stretches, a few heads at a time. Of what an attention layer may ask for
beside causal attention it looks at a window by the length of one stretch alone, and passes over the rest.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig

from learners.openrlhf.options import ClusterOptions
from mutual_env.errors import InvalidInputError


def require_devices(cluster: ClusterOptions) -> None:
    if cluster.ring_attn_size > 1 and not torch.cuda.is_available():
        raise InvalidInputError(
            f"ring_attn_size {cluster.ring_attn_size} needs CUDA devices: flash-attn has no kernel for the CPU. Use "
            "ring_attn_size 1"
        )


def check_ring(model: nn.Module, config: PreTrainedConfig, cluster: ClusterOptions) -> None:
    """Raise where a ring would compute other attention than this model's, or none."""
    if cluster.ring_attn_size == 1:
        return
    feature = _beyond_causal(model, config)
    if feature:
        raise InvalidInputError(
            f"ring_attn_size {cluster.ring_attn_size}: this model has {feature}, which OpenRLHF's ring attention does "
            "not compute. Use ring_attn_size 1"
        )
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    if heads % cluster.ring_attn_head_stride:
        raise InvalidInputError(
            f"ring_attn_head_stride {cluster.ring_attn_head_stride} does not divide this model's {heads} key-value "
            "heads"
        )


def _beyond_causal(model: nn.Module, config: PreTrainedConfig) -> str:
    """What its layers do beside causal attention over all that came before ("": nothing)."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention"}:
        return f"layers of {', '.join(sorted(kinds - {'full_attention'}))}"
    if not kinds and getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"a sliding window of {config.sliding_window} tokens"
    if getattr(config, "attn_logit_softcapping", None):
        return "capped attention scores (attn_logit_softcapping)"
    if any(name.endswith("sinks") for name, _ in model.named_parameters()):
        return "attention sinks"
    width = getattr(config, "v_head_dim", None)
    if width is not None and width != getattr(config, "qk_head_dim", width):
        return f"values {width} wide beside wider keys"
    return ""
