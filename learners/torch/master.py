"""Gradients of parameters in fewer bits, summed in float32: many small parts in bfloat16 lose what each adds."""

from __future__ import annotations

import torch
from torch import nn

_MASTER = "mutual_env_master"  # an attribute of a parameter: its float32 twin, whose `grad` is the sum
ROWS = 32_768  # of a product that is made in one piece


def accumulate_in_float32(parameter: nn.Parameter, master: nn.Parameter) -> None:
    """From here on the gradient of `parameter` is to be found on `master`, and there alone."""
    setattr(parameter, _MASTER, master)
    parameter.register_post_accumulate_grad_hook(_move)


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    """Where the parameter's gradient is summed; zeros, if there is none yet."""
    owner: torch.Tensor = getattr(parameter, _MASTER, parameter)
    if owner.grad is None:
        owner.grad = torch.zeros_like(owner)
    return owner.grad


def has_master(parameter: torch.Tensor) -> bool:
    return hasattr(parameter, _MASTER)


def add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """total += left @ right, where the total may have more bits than the factors."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
        return
    for start in range(0, left.shape[0], ROWS):
        total[start : start + ROWS] += left[start : start + ROWS] @ right


def _move(parameter: torch.Tensor) -> None:
    part, parameter.grad = parameter.grad, None
    if part is not None:
        gradient(parameter).add_(part.float() if part.is_sparse else part)
