"""A policy's whole state out of DeepSpeed's pieces and back, so that checkpoints are plain tensors by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)

from learners.openrlhf.cluster.deepspeed import DeepspeedSteps
from learners.openrlhf.cluster.pieces import dealt
from learners.torch.model import LanguageModel
from learners.torch.optimizer import MOMENTS
from mutual_env.errors import StorageError


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank keeps of a model and its optimizer: some of the tensors, whole."""

    weights: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]


class ClusterState:
    """Of one rank; every method is a collective: all ranks call it."""

    def __init__(self, model: LanguageModel, steps: DeepspeedSteps) -> None:
        self._model = model
        self._steps = steps

    def read(self, rank: int, ranks: int) -> Share:
        """One tensor after the other is made whole on all ranks; each keeps those that are dealt to it."""
        share = Share({}, {})
        parameters = self._model.trainable()
        kept = dealt({name: whole_shape(p).numel() for name, p in parameters.items()}, ranks)[rank]
        for name, parameter in parameters.items():
            self._read(share if name in kept else None, name, parameter)
        return share

    def _read(self, share: Share | None, name: str, parameter: torch.nn.Parameter) -> None:
        master = safe_get_full_fp32_param(parameter)
        if share is not None:
            master = master.cpu()
            share.weights[name] = master.to(self._model.dtype)
            if self._model.dtype != torch.float32:
                share.moments[f"master.{name}"] = master
        if not self._steps.counted:
            return
        for key in MOMENTS:
            moment = safe_get_full_optimizer_state(parameter, key)
            if share is not None:
                share.moments[f"{key}.{name}"] = moment.cpu()
        if share is not None:
            share.moments[f"step.{name}"] = torch.tensor(float(self._steps.counted))

    def writer(self) -> StateWriter:
        return StateWriter(self._model, self._steps)


class StateWriter:
    """What `storage.load` writes to, as a model and as its optimizer."""

    def __init__(self, model: LanguageModel, steps: DeepspeedSteps) -> None:
        self._model = model
        self._steps = steps

    def trainable(self) -> dict[str, _Weight]:
        return {name: _Weight(parameter) for name, parameter in self._model.trainable().items()}

    def load(self, tensors: Mapping[str, torch.Tensor], steps: int) -> None:
        parameters = self._model.trainable()
        for key in tensors:
            if key.partition(".")[2] not in parameters:
                raise StorageError(f"optimizer state {key!r} belongs to no trained parameter of this policy")
        for name, parameter in parameters.items():
            if f"master.{name}" in tensors:
                safe_set_full_fp32_param(parameter, tensors[f"master.{name}"].to(parameter.device))
        self._set_moments(tensors)
        counts = [int(tensors[f"step.{name}"]) for name in parameters if f"step.{name}" in tensors]
        self._steps.restore(steps, max(counts, default=0))

    def forget(self) -> None:
        """The moments begin anew; weights and schedule stay."""
        self._set_moments({})
        self._steps.restore(self._steps.steps, 0)

    def _set_moments(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self._model.trainable().items():
            for key in MOMENTS:
                empty = torch.zeros(whole_shape(parameter))
                moment = tensors.get(f"{key}.{name}", empty)
                safe_set_full_optimizer_state(parameter, moment.to(parameter.device), key)


class _Weight:
    """One parameter, written whole: DeepSpeed's float32 copy and the one that computes."""

    def __init__(self, parameter: torch.nn.Parameter) -> None:
        self._parameter = parameter

    @property
    def shape(self) -> torch.Size:
        return whole_shape(self._parameter)

    def copy_(self, value: torch.Tensor) -> None:
        value = value.to(self._parameter.device)
        with writable(self._parameter):
            self._parameter.data.copy_(value)
        safe_set_full_fp32_param(self._parameter, value.float())


def gathered(parameters: Sequence[torch.nn.Parameter]) -> AbstractContextManager[Any]:
    """Inside, these are whole on every rank, where DeepSpeed cuts weights at all."""
    cut = [p for p in parameters if hasattr(p, "ds_id")]
    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(cut, enabled=bool(cut))
    return context


@contextmanager
def writable(parameter: torch.nn.Parameter) -> Iterator[None]:
    """Inside, the parameter is whole, and what is written on the first rank reaches all."""
    cut = hasattr(parameter, "ds_id")
    with deepspeed.zero.GatheredParameters([parameter] if cut else [], modifier_rank=0, enabled=cut):
        yield


def whole_shape(parameter: torch.nn.Parameter) -> torch.Size:
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape
