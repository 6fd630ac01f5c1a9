"""One decoding step without the module machinery around it, for the families whose arithmetic is written out here.

A small model's step is mostly the cost of calling Python modules and of many small operations. Where a decoder is of a
known class, its own weights are used directly; the result is compared with the decoder's when the learner is built, and
a decoder that is not known, or that does not agree, is simply called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from learners.torch.attention import Layout

JOINED_BELOW = 4_000_000
"""Matrices that read the same input are put together, for one call of decoding, in decoders of fewer parameters: a copy
of larger ones takes memory, and their products are no faster for it."""

LENGTH_DEPENDENT = ("dynamic", "longrope")  # rotations that are others in a longer call: no table can hold them

Step: TypeAlias = Callable[[torch.Tensor, torch.Tensor, Layout], torch.Tensor]
"""(R) tokens at (R) positions to their last hidden states, (R, width)."""


class Lean(Protocol):
    """A decoder whose step is written out."""

    def step(self, positions: int) -> Step:
        """For as long as the weights stay as they are, and for positions below this number."""


def turns_with_length(decoder: nn.Module) -> bool:
    """Whether a position is rotated in another way in a longer call."""
    return getattr(getattr(decoder, "rotary_emb", None), "rope_type", None) in LENGTH_DEPENDENT


def lean_decoder(decoder: nn.Module) -> Lean | None:
    """The lean form of a decoder of a known class whose layers are plain linear layers."""
    if any("lora" in name for name, _ in decoder.named_parameters()):
        return None
    if turns_with_length(decoder):
        return None
    match type(decoder).__name__:
        case "LlamaModel" | "Qwen2Model":
            return LeanLlama(decoder)
        case "GPTNeoXModel":
            return LeanNeoX(decoder)
    return None


class LeanLlama:
    """Root-mean-square norms, rotary positions, gated feed-forward."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def step(self, positions: int) -> Step:
        decoder = self._decoder
        layers = [_llama_layer(layer, join=_is_small(decoder)) for layer in decoder.layers]
        return _LlamaStep(decoder.embed_tokens.weight, layers, _Rotation.of(decoder, positions), _Rms.of(decoder.norm))


class LeanNeoX:
    """Layer norms, partly rotary positions, attention and feed-forward side by side."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def step(self, positions: int) -> Step:
        decoder = self._decoder
        parallel = bool(decoder.config.use_parallel_residual)
        layers = [_neox_layer(layer) for layer in decoder.layers]
        rotation = _Rotation.of(decoder, positions)
        return _NeoXStep(decoder.embed_in.weight, layers, rotation, decoder.final_layer_norm, parallel)


@dataclass(frozen=True, slots=True, eq=False)
class _Linear:
    """A product, and others of the same input side by side with it."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    others: tuple[_Linear, ...] = ()

    @classmethod
    def of(cls, *modules: Any, join: bool = False) -> _Linear:
        first, *others = modules
        if not others or not join:
            return cls(first.weight, first.bias, tuple(cls(other.weight, other.bias) for other in others))
        bias = None if first.bias is None else torch.cat([module.bias for module in modules])
        return cls(torch.cat([module.weight for module in modules]), bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        first = functional.linear(x, self.weight, self.bias)
        return first if not self.others else torch.cat((first, *(other(x) for other in self.others)), dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Residual:
    """A product that is added to what went before."""

    weight: torch.Tensor  # transposed
    bias: torch.Tensor | None

    @classmethod
    def of(cls, module: Any) -> _Residual:
        return cls(module.weight.T, module.bias)

    def __call__(self, before: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(before if self.bias is None else before + self.bias, x, self.weight)


@dataclass(frozen=True, slots=True, eq=False)
class _Rms:
    """x / √(mean x² + ε) · weight. In float32 on the CPU PyTorch's own is made of many small operations."""

    weight: torch.Tensor
    epsilon: float
    scaled: torch.Tensor | None  # weight · √width, so that the norm needs no mean
    floor: torch.Tensor

    @classmethod
    def of(cls, module: Any) -> _Rms:
        weight, epsilon = module.weight, module.variance_epsilon
        width = weight.numel()
        by_hand = weight.device.type == "cpu" and weight.dtype == torch.float32
        floor = torch.full((1,), math.sqrt(width * epsilon), device=weight.device)
        return cls(weight, epsilon, weight * math.sqrt(width) if by_hand else None, floor)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.scaled is None:
            return functional.rms_norm(x, self.weight.shape, self.weight, self.epsilon)
        length = torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.floor)
        return (x / length).mul_(self.scaled)


@dataclass(frozen=True, slots=True, eq=False)
class _Rotation:
    """Cosines and sines (positions, 1, D), the sign of the rotation in the sines."""

    cos: torch.Tensor
    sin: torch.Tensor

    @classmethod
    def of(cls, decoder: Any, positions: int) -> _Rotation:
        weight = next(decoder.parameters())
        cos, sin = decoder.rotary_emb(weight, torch.arange(positions, device=weight.device)[:, None])
        half = sin.shape[-1] // 2
        return cls(cos, torch.cat((-sin[..., :half], sin[..., half:]), dim=-1))

    def at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cos.index_select(0, positions), self.sin.index_select(0, positions)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat((second, first), dim=-1), sin)


@dataclass(frozen=True, slots=True, eq=False)
class _LlamaLayer:
    before: _Rms
    query_key_value: _Linear
    heads: int
    head_width: int
    scaling: float
    output: _Residual
    between: _Rms
    gate_up: _Linear
    down: _Residual


def _llama_layer(layer: Any, *, join: bool) -> _LlamaLayer:
    attention, mlp = layer.self_attn, layer.mlp
    return _LlamaLayer(
        before=_Rms.of(layer.input_layernorm),
        query_key_value=_Linear.of(attention.q_proj, attention.k_proj, attention.v_proj, join=join),
        heads=attention.q_proj.weight.shape[0] // attention.head_dim,
        head_width=attention.head_dim,
        scaling=attention.scaling,
        output=_Residual.of(attention.o_proj),
        between=_Rms.of(layer.post_attention_layernorm),
        gate_up=_Linear.of(mlp.gate_proj, mlp.up_proj, join=join),
        down=_Residual.of(mlp.down_proj),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _LlamaStep:
    embedding: torch.Tensor
    layers: Sequence[_LlamaLayer]
    rotation: _Rotation
    after: _Rms

    def __call__(self, tokens: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor:
        rows = tokens.shape[0]
        x = functional.embedding(tokens, self.embedding)
        cos, sin = self.rotation.at(positions)
        for index, layer in enumerate(self.layers):
            mixed = layer.query_key_value(layer.before(x)).view(rows, -1, layer.head_width)
            turning = (layer.heads + mixed.shape[1]) // 2  # queries and keys: there are as many values as keys
            turned = _rotate(mixed[:, :turning], cos, sin)
            query, key = turned[:, : layer.heads, None], turned[:, layer.heads :, None]
            out = layout.attend(index, query, key, mixed[:, turning:, None], layer.scaling, None)
            x = layer.output(x, out.reshape(rows, -1))
            gate, up = layer.gate_up(layer.between(x)).chunk(2, dim=1)
            x = layer.down(x, functional.silu(gate).mul_(up))
        return self.after(x)


@dataclass(frozen=True, slots=True, eq=False)
class _NeoXLayer:
    before: Any
    query_key_value: _Linear
    head_width: int
    scaling: float
    output: _Residual
    between: Any
    widen: _Linear
    activation: Any
    narrow: _Residual


def _neox_layer(layer: Any) -> _NeoXLayer:
    attention, mlp = layer.attention, layer.mlp
    return _NeoXLayer(
        before=layer.input_layernorm,
        query_key_value=_Linear.of(attention.query_key_value),
        head_width=attention.head_size,
        scaling=attention.scaling,
        output=_Residual.of(attention.dense),
        between=layer.post_attention_layernorm,
        widen=_Linear.of(mlp.dense_h_to_4h),
        activation=mlp.act,
        narrow=_Residual.of(mlp.dense_4h_to_h),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _NeoXStep:
    embedding: torch.Tensor
    layers: Sequence[_NeoXLayer]
    rotation: _Rotation
    after: Any
    parallel: bool

    def __call__(self, tokens: torch.Tensor, positions: torch.Tensor, layout: Layout) -> torch.Tensor:
        rows = tokens.shape[0]
        x = functional.embedding(tokens, self.embedding)
        cos, sin = (part[:, None] for part in self.rotation.at(positions))
        turning = cos.shape[-1]
        for index, layer in enumerate(self.layers):
            mixed = layer.query_key_value(layer.before(x)).view(rows, -1, 3, layer.head_width)
            both = mixed[:, :, :2]
            both = torch.cat((_rotate(both[..., :turning], cos, sin), both[..., turning:]), dim=-1)
            query, key, value = both[:, :, 0, None], both[:, :, 1, None], mixed[:, :, 2, None]
            out = layout.attend(index, query, key, value, layer.scaling, None).reshape(rows, -1)
            attended = layer.output(x, out)
            fed = layer.activation(layer.widen(layer.between(x if self.parallel else attended)))
            x = layer.narrow(attended, fed)
        states: torch.Tensor = self.after(x)
        return states


def _is_small(decoder: nn.Module) -> bool:
    count: int = sum(p.numel() for p in decoder.parameters())
    return count < JOINED_BELOW
