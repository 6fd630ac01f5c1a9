"""One decoding step without the module machinery around it, for the families whose arithmetic is written out here.

A small model's step is mostly the cost of calling Python modules. Where a decoder is of a known class, its own weights
are used directly; the result is compared with the decoder's when the learner is built, and a decoder that is not known,
or that does not agree, is simply called.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from learners.torch.attention import Layout


class Lean(Protocol):
    """A decoder's step over (R) tokens at (R) positions: last hidden states, (R, width)."""

    def __call__(self, tokens: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor: ...


def lean_decoder(decoder: nn.Module) -> Lean | None:
    """The lean step of a decoder of a known class whose layers are plain linear layers."""
    if any("lora" in name for name, _ in decoder.named_parameters()):
        return None
    match type(decoder).__name__:
        case "LlamaModel":
            return LeanLlama(decoder)
        case "GPTNeoXModel":
            return LeanNeoX(decoder)
    return None


class LeanLlama:
    """Root-mean-square norms, rotary positions, gated feed-forward."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def __call__(self, tokens: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor:
        decoder = self._decoder
        x = functional.embedding(tokens, decoder.embed_tokens.weight)
        cos, sin = _rotation(decoder.rotary_emb, x, positions)
        for index, layer in enumerate(decoder.layers):
            h = _rms(x, layer.input_layernorm)
            attention = layer.self_attn
            query, key, value = (_linear(h, p) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
            width = attention.head_dim
            turned = _rotate(torch.cat((query, key), dim=1).view(len(tokens), -1, width), cos, sin)
            heads = query.shape[1] // width
            out = layout.attend(
                index,
                turned[:, :heads, None],
                turned[:, heads:, None],
                value.view(len(tokens), -1, 1, width),
                attention.scaling,
                None,
            )
            x = x + _linear(out.reshape(len(tokens), -1), attention.o_proj)
            h = _rms(x, layer.post_attention_layernorm)
            gate = functional.silu(_linear(h, layer.mlp.gate_proj))
            x = x + _linear(gate.mul_(_linear(h, layer.mlp.up_proj)), layer.mlp.down_proj)
        return _rms(x, decoder.norm)


class LeanNeoX:
    """Layer norms, partly rotary positions, attention and feed-forward side by side."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._parallel = bool(decoder.config.use_parallel_residual)

    def __call__(self, tokens: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor:
        decoder = self._decoder
        x = functional.embedding(tokens, decoder.embed_in.weight)
        cos, sin = _rotation(decoder.rotary_emb, x, positions)
        turned_width = cos.shape[-1]
        for index, layer in enumerate(decoder.layers):
            attention = layer.attention
            width = attention.head_size
            mixed = _linear(layer.input_layernorm(x), attention.query_key_value).view(len(tokens), -1, 3, width)
            both = mixed[:, :, :2]
            turned = _rotate(both[..., :turned_width], cos[:, None], sin[:, None])
            both = torch.cat((turned, both[..., turned_width:]), dim=-1)
            query, key, value = both[:, :, 0, None], both[:, :, 1, None], mixed[:, :, 2, None]
            out = layout.attend(index, query, key, value, attention.scaling, None)
            attended = _linear(out.reshape(len(tokens), -1), attention.dense)
            start = x if self._parallel else x + attended
            fed = layer.mlp.act(_linear(layer.post_attention_layernorm(start), layer.mlp.dense_h_to_4h))
            x = start + _linear(fed, layer.mlp.dense_4h_to_h)
            if self._parallel:
                x = x + attended
        states: torch.Tensor = decoder.final_layer_norm(x)
        return states


def _linear(x: torch.Tensor, module: Any) -> torch.Tensor:
    return functional.linear(x, module.weight, module.bias)


def _rms(x: torch.Tensor, norm: Any) -> torch.Tensor:
    return functional.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _rotation(embedding: Any, x: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, 1, D) cosines and sines."""
    cos, sin = embedding(x, positions[:, None])
    return cos, sin


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    swapped = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return torch.addcmul(x * cos, swapped, sin)
