"""What a policy holds on its device, put into the machine's memory and back, bit for bit."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Protocol

import torch


class HasParameters(Protocol):
    def parameters(self) -> Iterable[torch.nn.Parameter]: ...


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the machine's memory: page-locked where there is a GPU, so that it comes back at the bus's speed."""
    host = torch.empty_like(tensor, device="cpu", pin_memory=torch.cuda.is_available())
    return host.copy_(tensor)


def offload(policy: HasParameters) -> None:
    """Every parameter stays the object that others hold; what it points to moves."""
    for parameter in policy.parameters():
        parameter.grad = None
        parameter.data = to_host(parameter.data)


def restore(policy: HasParameters, device: torch.device) -> None:
    for parameter in policy.parameters():
        parameter.data = parameter.data.to(device)


def release() -> None:
    """Give what is no longer used back to the device: torch would keep it for itself."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
