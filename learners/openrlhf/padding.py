"""The functions of flash-attn's `bert_padding` that OpenRLHF packs with. They need neither a GPU nor flash-attn."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from einops import rearrange

__all__ = ["index_first_axis", "pad_input", "rearrange", "unpad_input"]

Unpadded: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, Any]


def index_first_axis(tensor: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    return tensor[indices]


def unpad_input(hidden: torch.Tensor, attention_mask: torch.Tensor) -> Unpadded:
    """Of (B, L, ...): (N, ...) without padding, the places of its rows in (B L), where each sequence begins, the length
    of the longest, and all lengths."""
    lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
    indices = attention_mask.flatten().nonzero().flatten()
    begins = torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return hidden.flatten(0, 1)[indices], indices, begins, int(lengths.max()), lengths


def pad_input(hidden: torch.Tensor, indices: torch.Tensor, batch: int, length: int) -> torch.Tensor:
    """Back from (N, ...) to (B, L, ...), zero between."""
    whole = hidden.new_zeros(batch * length, *hidden.shape[1:])
    return whole.index_copy(0, indices, hidden).unflatten(0, (batch, length))
