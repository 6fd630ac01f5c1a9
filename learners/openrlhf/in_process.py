"""A policy trained by OpenRLHF's own classes, in this process, on the CPU or one GPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from learners.example import Example
from learners.openrlhf.library import Actor
from learners.openrlhf.make_actor import make_actor
from learners.openrlhf.trainer import ActorTrainer
from learners.protocol import Learner
from learners.registry import takes
from learners.torch.learner import TorchLearner
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
    """Trains a model as OpenRLHF's `Actor`, with OpenRLHF's losses."""

    def __init__(self, model: LanguageModel, optimizer: Optimizer, options: TorchOptions, name: str) -> None:
        self._model = model
        self._name = name
        self._options = options
        self._actor = make_actor(model)
        self._frozen = _frozen_copy(self._actor) if options.kl_coefficient != 0.0 and not model.lora else None
        self._trainer = ActorTrainer(self._actor, OptimizerSteps(optimizer), options, model.device)

    @property
    def max_sequence(self) -> None:
        """A long row is a micro-batch of its own."""
        return None

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        """log π of each response token at temperature 1."""
        with memory_errors(self._name):
            return self._trainer.score(self._actor, list(zip(prompt_ids, response_ids, strict=True)))

    def update(self, examples: Sequence[Example]) -> Metrics:
        """The optimizer steps that these examples ask for."""
        with memory_errors(self._name):
            return self._trainer.update(examples, self._references)

    def _references(self, examples: Sequence[Example]) -> dict[int, Floats]:
        """Of the initial policy: a frozen copy, or the model with its adapters off."""
        if self._options.kl_coefficient == 0.0:
            return {}
        if self._frozen is not None:
            return self._trainer.known(self._frozen, examples)
        with self._model.adapted.disable_adapter():
            return self._trainer.known(self._actor, examples)


def _frozen_copy(actor: Actor) -> Actor:
    frozen = copy.deepcopy(actor)
    frozen.requires_grad_(False)
    return frozen


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
