"""flash-attn's kernels for rows of several lengths, in plain torch: all that a CPU lacks for a ring.

The signatures are those of flash-attn 2.8.3. Its functions beside the kernels need no GPU and are stated here as there.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch


def install() -> None:
    """In this process `flash_attn` is what stands here."""
    from learners.openrlhf import padding

    _module("flash_attn", flash_attn_func=_refuse, flash_attn_varlen_func=_refuse)
    _module("flash_attn.bert_padding", **{name: getattr(padding, name) for name in padding.__all__})
    _module("flash_attn.utils")
    _module("flash_attn.utils.distributed", all_gather=_AllGather.apply)
    _module(
        "flash_attn.flash_attn_interface",
        _flash_attn_forward=_refuse,
        _flash_attn_backward=_refuse,
        _flash_attn_varlen_forward=varlen_forward,
        _flash_attn_varlen_backward=varlen_backward,
    )


def varlen_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int = -1,
    window_size_right: int = -1,
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    return_softmax: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, None, None]:
    """Of (N, H, D) queries and (M, K, D) keys; the last query of a row sees its last key."""
    assert (causal, dropout_p, window_size_left, window_size_right, softcap) == (True, 0.0, -1, -1, 0.0)
    outs, sums = [], []
    for (q0, q1), (k0, k1) in zip(_rows(cu_seqlens_q), _rows(cu_seqlens_k), strict=True):
        repeats = q.shape[1] // k.shape[1]
        keys, values = (t[k0:k1].repeat_interleave(repeats, dim=1).float() for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[q0:q1].float(), keys) * softmax_scale
        seen = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril((k1 - k0) - (q1 - q0))
        scores = scores.masked_fill(~seen, float("-inf"))
        sums.append(scores.logsumexp(-1))
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).to(q.dtype))
    return torch.cat(outs), torch.cat(sums, dim=1), None, None


def varlen_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    softmax_lse: torch.Tensor,
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    alibi_slopes: torch.Tensor | None,
    deterministic: bool,
) -> None:
    """Writes the slopes into `dq`, `dk` and `dv`."""
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    with torch.enable_grad():
        again = varlen_forward(
            *leaves, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal
        )
    for target, slope in zip((dq, dk, dv), torch.autograd.grad(again[0], leaves, dout), strict=True):
        target.copy_(slope)


def _rows(ends: torch.Tensor) -> list[tuple[int, int]]:
    return list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))


class _AllGather(torch.autograd.Function):
    """flash-attn's: what came in from each rank gets the sum of the slopes of all."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        ranks = torch.distributed.get_world_size(group)
        whole = tensor.new_empty(ranks * tensor.shape[0], *tensor.shape[1:])
        torch.distributed.all_gather_into_tensor(whole, tensor.contiguous(), group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None]:
        ranks = torch.distributed.get_world_size(ctx.group)
        own = slope.new_empty(slope.shape[0] // ranks, *slope.shape[1:])
        torch.distributed.reduce_scatter_tensor(own, slope.contiguous(), group=ctx.group)
        return own, None


def _module(name: str, **contents: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    vars(module).update(contents)
    sys.modules[name] = module


def _refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise AssertionError("a ring computes rows of several lengths, by itself")
