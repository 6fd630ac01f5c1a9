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
            return _sdpa(query, key, value, scaling, None)
        distance = (
            torch.arange(length, device=query.device)[:, None] - torch.arange(length, device=query.device)[None, :]
        )
        return _sdpa(query, key, value, scaling, ((distance >= 0) & (distance < window))[None, None])


class Prefill(CausalRows):
    """Causal rows whose keys and values are kept, for the samples that will follow them."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        self.keys.append(key)
        self.values.append(value)
        return super().attend(layer, query, key, value, scaling, window)


class PackedGroups:
    """Each row is one prompt (segment 0) and several responses to it (segments 1, 2, ...), then padding (-1).

    A response sees the prompt and itself. `segments` and `positions` are (B, L).
    """

    def __init__(self, segments: torch.Tensor, positions: torch.Tensor) -> None:
        length = segments.shape[1]
        order = torch.arange(length, device=segments.device)
        causal = order[:, None] >= order[None, :]
        own = segments[:, :, None] == segments[:, None, :]
        prompt = (segments == 0)[:, None, :] & (segments >= 0)[:, :, None]
        self._visible = (causal & (own | prompt))[:, None]
        self._positions = positions
        self._span = int(positions.max()) + 1

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
        if window is not None and self._span > window:
            near = self._positions[:, :, None] - self._positions[:, None, :] < window
            visible = visible & near[:, None]
        return _sdpa(query, key, value, scaling, visible)


class GroupDecode:
    """One new token a row: it sees its prompt, computed once for the group, and the tokens of its own row.

    Rows are laid out (P prompts, G slots); `slots` maps each live row to its place there, None while all are live.
    """

    def __init__(self, prefill: Prefill, lengths: torch.Tensor, group: int, new_tokens: int) -> None:
        prompts = lengths.numel()
        self._prompt_keys = prefill.keys
        self._prompt_values = prefill.values
        self._lengths = lengths
        self._group = group
        self._capacity = new_tokens
        self._rows = prompts * group
        self._slots: torch.Tensor | None = None
        self._prompt_of = torch.arange(prompts, device=lengths.device).repeat_interleave(group)
        self._keys = [self._buffer(key) for key in prefill.keys]
        self._values = [self._buffer(value) for value in prefill.values]
        self._step = 0
        self._masks: dict[int | None, torch.Tensor] = {}

    def begin(self, step: int) -> None:
        """What follows is the forward of the step-th new token of each row."""
        self._step = step
        self._masks = {}

    def _buffer(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_empty(self._rows, like.shape[1], self._capacity, like.shape[3])

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone (indices among the live ones, ascending)."""
        self._keys = [buffer[rows] for buffer in self._keys]
        self._values = [buffer[rows] for buffer in self._values]
        owners = self._prompt_of[rows]
        live, owners, counts = torch.unique_consecutive(owners, return_inverse=True, return_counts=True)
        if live.numel() < self._lengths.numel():
            longest = int(self._lengths[live].max())
            self._prompt_keys = [key[live, :, :longest] for key in self._prompt_keys]
            self._prompt_values = [value[live, :, :longest] for value in self._prompt_values]
            self._lengths = self._lengths[live]
        self._group = int(counts.max())
        starts = torch.cumsum(counts, 0) - counts
        rank = torch.arange(rows.numel(), device=rows.device) - starts[owners]
        self._prompt_of = owners
        self._slots = owners * self._group + rank
        self._rows = rows.numel()

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        rows, heads, _, width = query.shape
        kv_heads = key.shape[1]
        used = self._step + 1
        self._keys[layer][:, :, self._step] = key[:, :, 0]
        self._values[layer][:, :, self._step] = value[:, :, 0]
        own_keys, own_values = self._keys[layer][:, :, :used], self._values[layer][:, :, :used]
        grouped = query.reshape(rows, kv_heads, heads // kv_heads, width) * scaling
        prompt_scores = self._over_prompts(grouped, self._prompt_keys[layer].transpose(2, 3))
        own_scores = torch.matmul(grouped, own_keys.transpose(2, 3))
        if window not in self._masks:
            self._masks[window] = self._hidden(prompt_scores.shape[-1], used, window, query.dtype)
        scores = torch.cat((prompt_scores, own_scores), dim=-1).add_(self._masks[window])
        weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        prompt_weights, own_weights = weights.split((prompt_scores.shape[-1], used), dim=-1)
        output = self._over_prompts(prompt_weights, self._prompt_values[layer]) + torch.matmul(own_weights, own_values)
        return output.reshape(rows, heads, 1, width)

    def _over_prompts(self, rows: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        """(rows, K, r, X) times each row's prompt's (K, X, Y): one product a prompt, not one a row."""
        prompts, kv_heads = shared.shape[:2]
        places = prompts * self._group
        if self._slots is not None:
            spread = rows.new_zeros(places, *rows.shape[1:])
            spread[self._slots] = rows
        else:
            spread = rows
        repeats = rows.shape[2]
        by_prompt = spread.reshape(prompts, self._group, kv_heads, repeats, -1).transpose(1, 2)
        product = torch.matmul(by_prompt.reshape(prompts, kv_heads, self._group * repeats, -1), shared)
        back = (
            product.reshape(prompts, kv_heads, self._group, repeats, -1)
            .transpose(1, 2)
            .reshape(places, kv_heads, repeats, -1)
        )
        return back if self._slots is None else back[self._slots]

    def _hidden(self, prompt_width: int, used: int, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """0 where a key is seen and -inf where it is not, (rows, 1, 1, prompt_width + used)."""
        lengths = self._lengths[self._prompt_of][:, None]
        place = torch.arange(prompt_width, device=lengths.device)[None, :]
        seen = place < lengths
        own = torch.arange(used, device=lengths.device)[None, :].expand(lengths.shape[0], used)
        own_seen = torch.ones_like(own, dtype=torch.bool)
        if window is not None:
            now = lengths + self._step
            seen = seen & (now - place < window)
            own_seen = self._step - own < window
        visible = torch.cat((seen, own_seen), dim=-1)
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)[
            :, None, None
        ]


def _sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, mask: torch.Tensor | None
) -> torch.Tensor:
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling
    )
