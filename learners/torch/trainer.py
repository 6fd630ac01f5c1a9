"""One update: examples to optimizer steps, computing nothing that trains nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from learners.example import Example
from learners.losses import minibatches, scales, teaches
from learners.torch.attention import layouts
from learners.torch.head import backward_through_head, chunk_size, target_logprobs
from learners.torch.losses import Terms
from learners.torch.model import LanguageModel
from learners.torch.optimizer import Optimizer
from learners.torch.options import TorchOptions
from learners.torch.packing import Cost, Item, MicroBatch, micro_batches
from mutual_env.errors import TrainingError
from mutual_env.types import CappedSequence, Floats, Ids, Loss, Metrics, PolicyGradient

PerExample = Mapping[int, Floats]


@dataclass(frozen=True, slots=True)
class StepStats:
    """Of one optimizer step."""

    loss: float
    gradient_norm: float
    clipped_tokens: int
    computed_tokens: int


class Trainer:
    """Scores and trains one model."""

    def __init__(self, model: LanguageModel, optimizer: Optimizer, options: TorchOptions, name: str) -> None:
        model.require_parts()
        self._model = model
        self._optimizer = optimizer
        self._options = options
        self._name = name
        self._chunk = chunk_size(model.head, options.logits_chunk_mib)
        self._cost = _cost(model) if options.share_prompts else None
        self._embedding = None if model.lora else _with_sparse_gradient(model)
        self._frozen = _frozen_copy(model) if options.kl_coefficient != 0.0 and not model.lora else None

    @property
    def max_sequence(self) -> int:
        return self._options.micro_batch_tokens + 1  # a sequence's last token is predicted, never fed

    def score(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[Floats]:
        """log π of each response token at temperature 1."""
        items = [Item(p, r, np.arange(len(r))) for p, r in zip(prompt_ids, response_ids, strict=True)]
        with memory_errors(self._name):
            return self._score(self._model, items)

    def update(self, examples: Sequence[Example]) -> Metrics:
        """The optimizer steps that these examples ask for: none, if they teach nothing."""
        steps = minibatches(examples, self._options.minibatches)
        coefficient = self._options.kl_coefficient
        learning_rate = self._optimizer.learning_rate
        stats: list[StepStats] = []
        with memory_errors(self._name):
            anchors = self._anchors(steps)
            references = self._references(examples)
            for index, step in enumerate(steps):
                if any(teaches(example, coefficient) for example in step):
                    stats.append(self._step(step, index, anchors, references))
        trained = sum(int(example.mask.sum()) for example in examples)
        return {
            "loss": float(np.mean([s.loss for s in stats])) if stats else 0.0,
            "gradient_norm": float(np.mean([s.gradient_norm for s in stats])) if stats else 0.0,
            "learning_rate": learning_rate,
            "optimizer_steps": float(len(stats)),
            "trained_tokens": float(trained),
            "clip_share": sum(s.clipped_tokens for s in stats) / max(sum(s.computed_tokens for s in stats), 1),
        }

    def _step(self, step: Sequence[Example], index: int, anchors: PerExample, references: PerExample) -> StepStats:
        scale = scales(step, self._options.aggregation)
        chosen = [i for i, example in enumerate(step) if teaches(example, self._options.kl_coefficient)]
        items = [Item(e.prompt_ids, e.response_ids, np.flatnonzero(e.mask)) for e in (step[i] for i in chosen)]
        loss = torch.zeros((), device=self._model.device)
        clipped = torch.zeros((), dtype=torch.int64, device=self._model.device)
        tokens = 0
        self._optimizer.zero_grad()
        if self._embedding is not None:
            self._embedding.grad = torch.zeros_like(self._embedding)
        for micro in self._micro_batches(items):
            members = [step[chosen[m]] for m in micro.members]
            terms = self._terms(members, scale[[chosen[m] for m in micro.members]], index, anchors, references)
            part, logprobs = self._backward(micro, terms)
            loss += part
            clipped += _clipped(logprobs, terms)
            tokens += logprobs.numel()
        try:
            norm = self._optimizer.step(float(loss))
        except TrainingError:
            self._optimizer.zero_grad()
            raise
        return StepStats(float(loss), norm, int(clipped), tokens)

    def _backward(self, micro: MicroBatch, terms: Terms) -> tuple[torch.Tensor, torch.Tensor]:
        """Accumulate the gradients of one micro-batch."""
        model = self._model
        with layouts(model.config):
            hidden = model.hidden(micro.ids, micro.positions, micro.layout)[micro.rows, micro.columns]
            result = backward_through_head(model.head, hidden.detach(), micro.targets, terms, self._chunk)
            hidden.backward(result.hidden)
        return result.loss, result.logprobs

    def _terms(
        self, members: Sequence[Example], scale: Floats, index: int, anchors: PerExample, references: PerExample
    ) -> Terms:
        losses: tuple[Loss, ...] = tuple(dict.fromkeys(example.loss for example in members))
        counts = [int(example.mask.sum()) for example in members]

        def spread(values: Sequence[float] | Floats) -> torch.Tensor:
            return self._tensor(np.repeat(np.asarray(values, dtype=np.float64), counts))

        def gathered(arrays: Sequence[Floats | None]) -> torch.Tensor:
            pairs = zip(arrays, members, strict=True)
            return self._tensor(
                np.concatenate([np.full(int(e.mask.sum()), np.nan) if a is None else a[e.mask] for a, e in pairs])
            )

        pulls: list[tuple[torch.Tensor, torch.Tensor]] = []
        if any(e.reference is not None and e.kl_weight != 0.0 for e in members):
            weights = spread([0.0 if e.reference is None else e.kl_weight for e in members])
            pulls.append((gathered([e.reference for e in members]), weights))
        if self._options.kl_coefficient != 0.0:
            weights = spread([self._options.kl_coefficient] * len(members))
            pulls.append((gathered([references[id(e)] for e in members]), weights))
        return Terms(
            owners=self._indices(np.repeat(np.arange(len(members)), counts)),
            scale=spread(scale),
            advantages=gathered([e.advantages for e in members]),
            anchor=gathered([anchors.get(id(e)) if e.anchor is None else e.anchor for e in members]),
            pulls=tuple(pulls),
            losses=losses,
            kinds=self._indices(np.repeat([losses.index(e.loss) for e in members], counts)),
            minibatch=index,
        )

    def _anchors(self, steps: Sequence[Sequence[Example]]) -> PerExample:
        """log π_old where a step after the first needs it: at the first, the policy is still the old one."""
        asking = [
            example
            for step in steps[1:]
            for example in step
            if example.anchor is None and _has_ratio(example.loss) and teaches(example, self._options.kl_coefficient)
        ]
        return self._known(self._model, asking)

    def _references(self, examples: Sequence[Example]) -> PerExample:
        if self._options.kl_coefficient == 0.0:
            return {}
        asking = [example for example in examples if teaches(example, self._options.kl_coefficient)]
        if self._frozen is not None:
            return self._known(self._frozen, asking)
        with self._model.adapted.disable_adapter():
            return self._known(self._model, asking)

    def _known(self, model: LanguageModel, examples: Sequence[Example]) -> PerExample:
        items = [Item(e.prompt_ids, e.response_ids, np.arange(len(e.response_ids))) for e in examples]
        return {id(e): values for e, values in zip(examples, self._score(model, items), strict=True)}

    def _score(self, model: LanguageModel, items: Sequence[Item]) -> list[Floats]:
        scores: list[Floats] = [np.empty(0) for _ in items]
        with torch.inference_mode(), layouts(model.config):
            for micro in self._micro_batches(items):
                hidden = model.hidden(micro.ids, micro.positions, micro.layout)[micro.rows, micro.columns]
                values = target_logprobs(model.head, hidden, micro.targets, self._chunk).double().cpu().numpy()
                for member, part in zip(micro.members, np.split(values, np.cumsum(micro.counts)[:-1]), strict=True):
                    scores[member] = part
        return scores

    def _micro_batches(self, items: Sequence[Item]) -> Iterator[MicroBatch]:
        return micro_batches(items, self._options.micro_batch_tokens, self._cost, self._model.device)

    def _tensor(self, values: Floats) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._model.device)

    def _indices(self, values: np.typing.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(values).to(self._model.device)


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


def _has_ratio(loss: Loss) -> bool:
    return isinstance(loss, CappedSequence) or (isinstance(loss, PolicyGradient) and loss.ratio != "none")


def _clipped(logprobs: torch.Tensor, terms: Terms) -> torch.Tensor:
    """How many tokens' token-level ratio is outside its clip on the side where that stops the gradient."""
    count = torch.zeros((), dtype=torch.int64, device=logprobs.device)
    for kind, loss in enumerate(terms.losses):
        if isinstance(loss, PolicyGradient) and loss.ratio == "token":
            ratio = torch.where(terms.anchor.isnan(), 0.0, logprobs - terms.anchor).exp()
            high = (ratio > 1.0 + loss.clip_high) & (terms.advantages > 0)
            low = (ratio < 1.0 - loss.clip_low) & (terms.advantages < 0)
            count += ((high | low) & (terms.kinds == kind)).sum()
    return count


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


def _frozen_copy(model: LanguageModel) -> LanguageModel:
    frozen = copy.deepcopy(model)
    frozen.base.requires_grad_(False)
    return frozen
