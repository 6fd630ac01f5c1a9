"""Attention over samples that share their prompt, behind the interface that transformers' models call.

A model's forward is given a `layout` that says which keys each query sees; the attention function hands it the layer's
queries, keys and values, rotary positions already applied. So the models themselves stay untouched, and no cache of
theirs is used. Shapes: B rows, H heads, K key-value heads, L positions, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.nn import functional
from transformers import AttentionInterface, PretrainedConfig

from mutual_env.errors import InvalidInputError

IMPLEMENTATION = "mutual_env_layout"

# What transformers passes to every attention function, and the layouts need not know.
_HARMLESS = {"position_ids", "output_attentions", "use_cache", "cache_position", "is_causal", "position_embeddings"}


class Layout(Protocol):
    """Which keys each query sees."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        """(B, H, L, D) queries to (B, H, L, D) outputs."""


def layout_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **features: Any,
) -> tuple[torch.Tensor, None]:
    for name, value_of in features.items():
        if name not in _HARMLESS and value_of is not None and value_of is not False:
            raise InvalidInputError(
                f"attention feature {name!r} of {type(module).__name__} is not supported by the torch learner"
            )
    layer: int = module.layer_idx
    output = layout.attend(layer, query, key, value, scaling or query.shape[-1] ** -0.5, sliding_window)
    return output.transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, layout_attention)


@contextmanager
def layouts(config: PretrainedConfig) -> Iterator[None]:
    """Inside, the model of this config takes `layout=`; the backward of a checkpointed forward belongs inside too."""
    before = config._attn_implementation
    config._attn_implementation = IMPLEMENTATION
    try:
        yield
    finally:
        config._attn_implementation = before


class CausalRows:
    """Each row is one sequence, padded on the right: causal order alone hides the padding."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        length = query.shape[2]
        if window is None or length <= window:
            return sdpa(query, key, value, scaling, None)
        distance = (
            torch.arange(length, device=query.device)[:, None] - torch.arange(length, device=query.device)[None, :]
        )
        return sdpa(query, key, value, scaling, ((distance >= 0) & (distance < window))[None, None])


class Prefill(CausalRows):
    """Causal rows, computed some at a time, whose keys and values (P, K, T, D) are kept for the samples to follow."""

    def __init__(self, rows: int, longest: int) -> None:
        self._rows = rows
        self._longest = longest
        self._at = slice(0, rows)
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def begin(self, rows: slice) -> None:
        """What follows is the forward of these rows."""
        self._at = rows

    def offsets(self, rows: int) -> list[int]:
        """How many tokens of each of the rows are known, and not part of the forward."""
        return [0] * rows

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        for kept, new in ((self.keys, key), (self.values, value)):
            if layer == len(kept):
                kept.append(new.new_zeros(self._rows, new.shape[1], self._longest, new.shape[3]))
            kept[layer][self._at, :, : new.shape[2]] = new
        return super().attend(layer, query, key, value, scaling, window)


class OneByOne:
    """Another layout's (B, L) tokens, computed as B·L rows of one token: the form of a decoding step."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self._layout = layout
        self._rows = rows

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        output = self._layout.attend(
            layer, self._together(query), self._together(key), self._together(value), scaling, window
        )
        return output.transpose(1, 2).flatten(0, 1)[:, :, None]

    def _together(self, apart: torch.Tensor) -> torch.Tensor:
        return apart[:, :, 0].unflatten(0, (self._rows, -1)).transpose(1, 2)


class PackedGroups:
    """Each row is one prompt (segment 0) and several responses to it (segments 1, 2, ...), then padding (-1).

    A response sees the prompt and itself. `segments` and `positions` are (B, L). `span`: positions of the longest.
    """

    def __init__(self, segments: torch.Tensor, positions: torch.Tensor) -> None:
        length = segments.shape[1]
        order = torch.arange(length, device=segments.device)
        causal = order[:, None] >= order[None, :]
        own = segments[:, :, None] == segments[:, None, :]
        prompt = (segments == 0)[:, None, :] & (segments >= 0)[:, :, None]
        self._visible = (causal & (own | prompt))[:, None]
        self._positions = positions
        self.span = int(positions.max()) + 1

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        visible = self._visible
        if window is not None and self.span > window:
            near = self._positions[:, :, None] - self._positions[:, None, :] < window
            visible = visible & near[:, None]
        return sdpa(query, key, value, scaling, visible)


def sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, mask: torch.Tensor | None
) -> torch.Tensor:
    """Of (B, H, L, D) queries; keys and values have as many heads or fewer. Without a mask: causal."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling
    )
