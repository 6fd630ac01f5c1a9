"""One update: examples to optimizer steps, computing nothing that trains nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from learners.example import Example
from learners.step import Step, Stepped
from learners.torch.head import backward_through_head, chunk_size, target_logprobs
from learners.torch.losses import Terms, terms_of
from learners.torch.master import has_master
from learners.torch.model import LanguageModel
from learners.torch.optimizer import Optimizer
from learners.torch.options import TorchOptions
from learners.torch.packing import Cost, Item, MicroBatch, micro_batches
from learners.torch.reference import ReferencePolicy
from learners.update import update
from mutual_env.errors import TrainingError
from mutual_env.types import Floats, Ids, Metrics


class Trainer:
    """Scores and trains one model."""

    def __init__(self, model: LanguageModel, optimizer: Optimizer, options: TorchOptions, name: str) -> None:
        model.require_parts()
        model.try_compiled()
        self._model = model
        self._optimizer = optimizer
        self._options = options
        self._name = name
        self._chunk = chunk_size(model.head, options.logits_chunk_mib)
        self._cost = _cost(model) if options.share_prompts else None
        self._embedding = None if model.lora else _with_sparse_gradient(model)
        self.pulled_to = ReferencePolicy(model, model, options)

    @property
    def learning_rate(self) -> float:
        """Of the next optimizer step."""
        return self._optimizer.learning_rate

    @property
    def max_sequence(self) -> int:
        return self._options.micro_batch_tokens + 1  # a sequence's last token is predicted, never fed

    def offload(self) -> None:
        self.pulled_to.offload()

    def restore(self) -> None:
        self.pulled_to.restore()

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        """log π of each response token, at the temperature that is sampled at."""
        items = [Item(p, r, np.arange(len(r))) for p, r in zip(prompt_ids, response_ids, strict=True)]
        with memory_errors(self._name):
            return self._score(self._model, items)

    def update(self, examples: Sequence[Example]) -> Metrics:
        """The optimizer steps that these examples ask for: none, if they teach nothing."""
        with memory_errors(self._name):
            return update(examples, self, self._options)

    def current(self, examples: Sequence[Example]) -> list[Floats]:
        """log π of every response token, now."""
        return self._score(self._model, _items(examples))

    def reference(self, examples: Sequence[Example]) -> list[Floats]:
        """The same under the policy that is pulled to."""
        with self.pulled_to.within(self._model) as model:
            return self._score(model, _items(examples))

    def step(self, step: Step) -> Stepped:
        """One optimizer step."""
        items = [Item(p.example.prompt_ids, p.example.response_ids, np.flatnonzero(p.example.mask)) for p in step.parts]
        loss = torch.zeros((), device=self._model.device)
        seen: list[tuple[MicroBatch, torch.Tensor]] = []
        self._optimizer.zero_grad()
        if self._embedding is not None and not has_master(self._embedding):
            self._embedding.grad = torch.zeros_like(self._embedding)
        for micro in self._micro_batches(items):
            terms = terms_of([step.parts[m] for m in micro.members], step, self._model.device)
            part, logprobs = self._backward(micro, terms)
            loss += part
            seen.append((micro, logprobs))
        try:
            norm = self._optimizer.step(float(loss))
        except TrainingError:
            self._optimizer.zero_grad()
            raise
        return Stepped(float(loss), norm, tuple(_by_member(seen, len(step.parts))))

    def _backward(self, micro: MicroBatch, terms: Terms) -> tuple[torch.Tensor, torch.Tensor]:
        """Accumulate the gradients of one micro-batch."""
        model = self._model
        with model.computing(micro.ids.shape, micro.layout):
            hidden = model.hidden(micro.ids, micro.positions, micro.layout)[micro.rows, micro.columns]
            result = backward_through_head(
                model.head, hidden.detach(), micro.targets, terms, self._chunk, self._options.temperature
            )
            hidden.backward(result.hidden)
        return result.loss, result.logprobs

    def _score(self, model: LanguageModel, items: Sequence[Item]) -> list[Floats]:
        scores: list[Floats] = [np.empty(0) for _ in items]
        with torch.inference_mode():
            for micro in self._micro_batches(items):
                with model.computing(micro.ids.shape, micro.layout):
                    hidden = model.hidden(micro.ids, micro.positions, micro.layout)[micro.rows, micro.columns]
                values = target_logprobs(model.head, hidden, micro.targets, self._chunk, self._options.temperature)
                for member, part in _members(micro, values):
                    scores[member] = part
        return scores

    def _micro_batches(self, items: Sequence[Item]) -> Iterator[MicroBatch]:
        return micro_batches(items, self._options.micro_batch_tokens, self._cost, self._model.device)


@contextmanager
def memory_errors(learner: str) -> Iterator[None]:
    """Out of memory, said as what to change. The weights have not been touched by the step that failed."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(learner) from error
    except RuntimeError as error:
        if isinstance(error, TrainingError) or "alloc" not in str(error):
            raise
        raise _out_of_memory(learner) from error


def _out_of_memory(learner: str) -> TrainingError:
    return TrainingError(
        f"{learner}: out of memory; the step was not applied. Lower micro_batch_tokens, max_rows or logits_chunk_mib, "
        "set gradient_checkpointing, train with lora_rank, or use dtype bfloat16"
    )


def _items(examples: Sequence[Example]) -> list[Item]:
    """Examples of which every response token is wanted."""
    return [Item(e.prompt_ids, e.response_ids, np.arange(len(e.response_ids))) for e in examples]


def _by_member(seen: Sequence[tuple[MicroBatch, torch.Tensor]], count: int) -> list[Floats]:
    values: list[Floats] = [np.empty(0)] * count
    for micro, logprobs in seen:
        for member, part in _members(micro, logprobs):
            values[member] = part
    return values


def _members(micro: MicroBatch, values: torch.Tensor) -> Iterator[tuple[int, Floats]]:
    """What belongs to each item of a micro-batch."""
    parts = np.split(values.double().cpu().numpy(), np.cumsum(micro.counts)[:-1])
    return zip(micro.members, parts, strict=True)


def _cost(model: LanguageModel) -> Cost:
    """Multiplications of one token through the layers, and of one query-key pair through all of them."""
    config = model.config
    layers = sum(p.numel() for name, p in model.decoder.named_parameters() if "embed" not in name and p.dim() > 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Cost(token=float(layers), pair=2.0 * config.num_hidden_layers * config.num_attention_heads * width)


def _with_sparse_gradient(model: LanguageModel) -> torch.Tensor | None:
    """Let the input embedding add its few rows to a dense gradient, instead of making a dense one each micro-batch."""
    embedding = model.base.get_input_embeddings()
    if not isinstance(embedding, torch.nn.Embedding):
        return None
    embedding.sparse = True
    weight: torch.Tensor = embedding.weight
    return weight
