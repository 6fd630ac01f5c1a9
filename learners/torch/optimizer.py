"""AdamW over the trained parameters: float32 masters, a schedule, clipping, and a state that is plain tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from learners.checks import check_finite
from learners.torch.master import accumulate_in_float32
from learners.torch.offload import to_host
from learners.torch.options import TorchOptions
from mutual_env.errors import StorageError

MOMENTS = ("exp_avg", "exp_avg_sq")
UNDECAYED = ("bias", "layer_norm.weight", "layernorm.weight", "norm.weight", "ln_f.weight")
"""What a parameter's name holds that `weight_decay` leaves alone: scales and offsets, by the rule of OpenRLHF, so that
the same options are the same updates there."""


def schedule_factor(options: TorchOptions, step: int) -> float:
    """What the learning rate is multiplied by at the step-th optimizer step."""
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    if options.schedule == "constant":
        return 1.0
    progress = (step - options.warmup_steps) / (options.total_steps - options.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def _groups(masters: Mapping[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    kept = {name for name in masters if any(part in name for part in UNDECAYED)}
    return [
        {"params": [p for name, p in masters.items() if name not in kept], "weight_decay": weight_decay},
        {"params": [masters[name] for name in masters if name in kept], "weight_decay": 0.0},
    ]


class Optimizer:
    """Steps parameters of any dtype; those not in float32 have float32 masters, no small step is rounded away."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], options: TorchOptions, learner: str) -> None:
        self._parameters = dict(parameters)
        self._options = options
        self._learner = learner
        self._masters = {
            name: p if p.dtype == torch.float32 else nn.Parameter(p.detach().float())
            for name, p in self._parameters.items()
        }
        self._adam = torch.optim.AdamW(
            _groups(self._masters, options.weight_decay),
            lr=options.learning_rate,
            betas=(options.beta1, options.beta2),
            fused=True,
        )
        self.steps = 0
        self._device = next((p.device for p in self._parameters.values()), torch.device("cpu"))
        for name, parameter in self._parameters.items():
            if self._masters[name] is not parameter:
                accumulate_in_float32(parameter, self._masters[name])

    def offload(self) -> None:
        """Moments, and masters that are no parameters themselves, into the machine's memory."""
        self.zero_grad()
        for name, master in self._masters.items():
            if master is not self._parameters[name]:
                master.data = to_host(master.data)
            state = self._adam.state.get(master, {})
            state.update({key: to_host(value) for key, value in state.items()})

    def restore(self) -> None:
        for name, master in self._masters.items():
            if master is not self._parameters[name]:
                master.data = master.data.to(self._device)
            state = self._adam.state.get(master, {})
            state.update({key: value.to(self._device) for key, value in state.items()})

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self._options.learning_rate * schedule_factor(self._options, self.steps)

    def zero_grad(self) -> None:
        for parameter in (*self._parameters.values(), *self._masters.values()):
            parameter.grad = None

    def step(self, loss: float) -> float:
        """Apply the accumulated gradients; returns their norm. What is not finite raises, and touches no weight."""
        gradients = [master.grad for master in self._masters.values() if master.grad is not None]
        norm_tensor = nn.utils.get_total_norm(gradients)
        norm = float(norm_tensor)
        check_finite(self._learner, loss, norm)
        limit = self._options.max_gradient_norm
        if limit > 0.0 and norm > limit:
            nn.utils.clip_grads_with_norm_(self._masters.values(), limit, norm_tensor)
        for group in self._adam.param_groups:
            group["lr"] = self.learning_rate
        self._adam.step()
        self._publish()
        self.steps += 1
        self.zero_grad()
        return norm

    def tensors(self, *, copy: bool = False) -> dict[str, torch.Tensor]:
        """Moments, step counts and masters, by name, in the machine's memory. `copy`: also what is there already."""
        tensors: dict[str, torch.Tensor] = {}
        for name, master in self._masters.items():
            state = self._adam.state.get(master)
            if state:
                tensors.update({f"{key}.{name}": state[key].to("cpu", copy=copy) for key in (*MOMENTS, "step")})
            if master is not self._parameters[name]:
                tensors[f"master.{name}"] = master.detach().to("cpu", copy=copy)
        return tensors

    def forget(self) -> None:
        """The moments begin anew; masters and schedule stay."""
        self._adam.state.clear()

    def load(self, tensors: Mapping[str, torch.Tensor], steps: int) -> None:
        for key in tensors:
            if key.partition(".")[2] not in self._masters:
                raise StorageError(f"optimizer state {key!r} belongs to no trained parameter of {self._learner}")
        with torch.no_grad():
            for name, master in self._masters.items():
                self._adam.state.pop(master, None)
                if f"step.{name}" in tensors:
                    moments = {key: tensors[f"{key}.{name}"].to(master.device, copy=True) for key in MOMENTS}
                    # On CUDA the fused kernel wants the count beside the parameter, on the CPU it may be anywhere.
                    count = tensors[f"step.{name}"].to(master.device, copy=True)
                    self._adam.state[master] = {"step": count, **moments}
                if f"master.{name}" in tensors:
                    master.copy_(tensors[f"master.{name}"])
        self.steps = steps
        self.zero_grad()

    def _publish(self) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                if self._masters[name] is not parameter:
                    parameter.copy_(self._masters[name])
