"""A policy trained by OpenRLHF's own classes, in this process, on the CPU or one GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from learners.example import Example
from learners.openrlhf.make_actor import make_actor
from learners.openrlhf.trainer import ActorTrainer
from learners.protocol import Learner
from learners.registry import takes, tried_by
from learners.torch.initial import InitialPolicy
from learners.torch.learner import TorchLearner, try_torch
from learners.torch.model import LanguageModel, load_pretrained
from learners.torch.optimizer import Optimizer
from learners.torch.options import TorchOptions
from learners.torch.trainer import memory_errors
from mutual_env.errors import InvalidInputError
from mutual_env.types import Floats, Ids, Metrics
from tokenizers_bridge import Tokenizer
from tokenizers_bridge.kinds.loading import load as load_tokenizer


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

    def __init__(self, model: LanguageModel, optimizer: Optimizer, options: TorchOptions, name: str) -> None:
        self._name = name
        self._actor = make_actor(model, options.temperature)
        initial = InitialPolicy(self._actor, model, options.kl_coefficient)
        self._trainer = ActorTrainer(self._actor, initial, OptimizerSteps(optimizer), options, model.device)

    @property
    def max_sequence(self) -> None:
        """A long row is a micro-batch of its own."""
        return None

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        """log π of each response token, at the temperature of `act`."""
        with memory_errors(self._name):
            return self._trainer.score(list(zip(prompt_ids, response_ids, strict=True)))

    def update(self, examples: Sequence[Example]) -> Metrics:
        """The optimizer steps that these examples ask for."""
        with memory_errors(self._name):
            return self._trainer.update(examples)


@tried_by(try_torch)
@takes(TorchOptions)
def make_openrlhf(
    path: str = "",
    *,
    name: str = "openrlhf",
    model: PreTrainedModel | None = None,
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> Learner:
    """As learner 'torch', trained by OpenRLHF's classes; `logits_chunk_mib` and `share_prompts` do not apply."""
    for name_of in ("logits_chunk_mib", "share_prompts"):
        if name_of in options:
            raise InvalidInputError(f"{name_of} is an option of learner 'torch': OpenRLHF's Actor computes every logit")
    if bool(path) == (model is not None):
        raise InvalidInputError("give either path, a local model directory, or a model with its tokenizer, not both")
    if model is None:
        model = load_pretrained(Path(path))
        tokenizer = tokenizer or load_tokenizer(Path(path))
    if tokenizer is None:
        raise InvalidInputError("tokenizer is missing: a model built in code comes with its tokenizer")
    return TorchLearner(model, tokenizer, name=name, options=TorchOptions.of(options), trainer=InProcessTrainer)
