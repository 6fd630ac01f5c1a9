"""The device that a policy computes on, by its name."""

from __future__ import annotations

import torch

from learners.placement import gpus_here
from mutual_env.errors import InvalidInputError


def device_of(name: str) -> torch.device:
    here = gpus_here()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and here != () else "cpu"
    if name == "cuda" and here:
        name = f"cuda:{here[0]}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidInputError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidInputError(
            f"device {name!r} is not there (CUDA devices found: {torch.cuda.device_count()}): use 'cpu' or 'auto'"
        )
    if device.type == "cuda" and here is not None and (device.index or 0) not in here:
        raise InvalidInputError(
            f"device {name!r} is not what `resources` gives to this policy (GPUs {list(here)} of this process): "
            "use 'auto', or say in resources.demands what it takes"
        )
    return device
