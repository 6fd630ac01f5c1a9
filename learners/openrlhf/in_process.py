"""A policy trained by OpenRLHF's own classes, in this process, on the CPU or one GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from learners.example import Example
from learners.openrlhf.make_actor import make_actor
from learners.openrlhf.options import ActorOptions
from learners.openrlhf.trainer import ActorTrainer
from learners.torch.model import LanguageModel
from learners.torch.optimizer import Optimizer
from learners.torch.options import TorchOptions
from learners.torch.reference import ReferencePolicy
from learners.torch.trainer import memory_errors
from mutual_env.types import Floats, Ids, Metrics


class OptimizerSteps:
    """Gradients accumulate on the parameters; the optimizer is the torch learner's."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    @property
    def learning_rate(self) -> float:
        return self._optimizer.learning_rate

    def zero_grad(self) -> None:
        self._optimizer.zero_grad()

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        loss.backward()

    def step(self, loss: float) -> float:
        return self._optimizer.step(loss)


class InProcessTrainer:
    """Trains a model as OpenRLHF's `Actor`."""

    def __init__(
        self,
        model: LanguageModel,
        optimizer: Optimizer,
        options: TorchOptions,
        name: str,
        *,
        computed: ActorOptions,
    ) -> None:
        self._name = name
        self._actor = make_actor(model, options.temperature, computed)
        self.pulled_to = ReferencePolicy(self._actor, model, options)
        self._trainer = ActorTrainer(self._actor, self.pulled_to, OptimizerSteps(optimizer), options, model.device)

    @property
    def max_sequence(self) -> None:
        """A long row is a micro-batch of its own."""
        return None

    def offload(self) -> None:
        self.pulled_to.offload()

    def restore(self) -> None:
        self.pulled_to.restore()

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        """log π of each response token, at the temperature of `act`."""
        with memory_errors(self._name):
            return self._trainer.score(list(zip(prompt_ids, response_ids, strict=True)))

    def update(self, examples: Sequence[Example]) -> Metrics:
        """The optimizer steps that these examples ask for."""
        with memory_errors(self._name):
            return self._trainer.update(examples)
