"""One update of an OpenRLHF `Actor`: examples to optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch

from learners.example import Example
from learners.losses import minibatches, scales, teaches
from learners.openrlhf.batch import (
    PerExample,
    per_action,
    row_batches,
    scoring_experience,
    training_experience,
    training_terms,
)
from learners.openrlhf.library import Actor, Experience
from learners.openrlhf.losses import total_loss
from learners.openrlhf.ranks import Alone, Ranks
from learners.torch.options import TorchOptions
from mutual_env.errors import TrainingError
from mutual_env.types import CappedSequence, Floats, Ids, Loss, Metrics, PolicyGradient

KnownBy: TypeAlias = Callable[[Sequence[Example]], PerExample]


class Steps(Protocol):
    """Where gradients go: an optimizer in this process, or a DeepSpeed engine."""

    @property
    def learning_rate(self) -> float:
        """Of the next step."""

    def zero_grad(self) -> None: ...

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Accumulate; `last` is True for the last micro-batch of the step."""

    def step(self, loss: float) -> float:
        """Apply what was accumulated; the norm of the gradient. What is not finite raises, and touches no weight."""


@dataclass(frozen=True, slots=True, eq=False)
class Micro:
    """One forward and backward: some examples of a step, and their scales."""

    members: tuple[Example, ...]
    scale: Floats


class ActorTrainer:
    """Scores and trains one actor, alone or as one of several data-parallel ranks."""

    def __init__(
        self, actor: Actor, steps: Steps, options: TorchOptions, device: torch.device, ranks: Ranks | None = None
    ) -> None:
        self._actor = actor
        self._steps = steps
        self._options = options
        self._device = device
        self._ranks = ranks or Alone()

    def score(self, actor: Actor, pairs: Sequence[tuple[Ids, Ids]]) -> list[Floats]:
        """log π of each response token at temperature 1, by this actor or a frozen one."""
        found: dict[int, Floats] = {}
        batches = list(row_batches([p.size + r.size for p, r in pairs], self._options.micro_batch_tokens))
        for rows in self._ranks.mine(batches):
            asked = rows or batches[0]  # a rank without a batch of its own keeps step with the others
            experience = scoring_experience([pairs[row] for row in asked]).to_device(self._device)
            with torch.no_grad():
                logprobs = self._logprobs(actor, experience).double().cpu().numpy()
            for row, values in zip(asked, logprobs, strict=True):
                prompt, response = pairs[row]
                found[row] = values[prompt.size - 1 : prompt.size - 1 + response.size].copy()
        merged = self._ranks.merged(found)
        return [merged[row] for row in range(len(pairs))]

    def update(self, examples: Sequence[Example], references_of: KnownBy) -> Metrics:
        """The optimizer steps that these examples ask for: none, if they teach nothing."""
        parts = minibatches(examples, self._options.minibatches)
        coefficient = self._options.kl_coefficient
        learning_rate = self._steps.learning_rate
        anchors = self.known(self._actor, later_anchors(parts, coefficient))
        references = references_of([example for example in examples if teaches(example, coefficient)])
        losses: list[float] = []
        norms: list[float] = []
        for index, part in enumerate(parts):
            if any(teaches(example, coefficient) for example in part):
                micros = micro_batches(part, self._options)
                losses.append(self.accumulate(micros, index, anchors, references))
                norms.append(self.apply(losses[-1]))
        return {
            "loss": float(np.mean(losses)) if losses else 0.0,
            "gradient_norm": float(np.mean(norms)) if norms else 0.0,
            "learning_rate": learning_rate,
            "optimizer_steps": float(len(losses)),
            "trained_tokens": float(sum(int(example.mask.sum()) for example in examples)),
        }

    def accumulate(self, micros: Sequence[Micro], index: int, anchors: PerExample, references: PerExample) -> float:
        """The loss of one optimizer step, its gradients accumulated."""
        self._steps.zero_grad()
        total = 0.0
        mine = [micro or idle(micros[0]) for micro in self._ranks.mine(micros)]
        for position, micro in enumerate(mine):
            experience = training_experience(micro.members, anchors).to_device(self._device)
            frozen = per_action(micro.members, references).to(self._device) if references else None
            terms = training_terms(experience, micro.members, micro.scale, index, frozen, self._options.kl_coefficient)
            loss = total_loss(self._logprobs(self._actor, experience), terms)
            self._steps.backward(loss, last=position + 1 == len(mine))
            total += float(loss.detach())
        return self._ranks.total(total)

    def apply(self, loss: float) -> float:
        try:
            return self._steps.step(loss)
        except TrainingError:
            self._steps.zero_grad()
            raise

    def known(self, actor: Actor, examples: Sequence[Example]) -> dict[int, Floats]:
        """This actor's log-probabilities, by example."""
        scores = self.score(actor, [(e.prompt_ids, e.response_ids) for e in examples])
        return {id(example): values for example, values in zip(examples, scores, strict=True)}

    def _logprobs(self, actor: Actor, experience: Experience) -> torch.Tensor:
        logprobs: torch.Tensor = actor(
            experience.sequences, experience.action_mask, attention_mask=experience.attention_mask
        )
        return logprobs


def micro_batches(step: Sequence[Example], options: TorchOptions) -> list[Micro]:
    """The forwards of one optimizer step; examples that teach nothing count in its denominators, and cost nothing."""
    scale = scales(step, options.aggregation)
    chosen = [i for i, example in enumerate(step) if teaches(example, options.kl_coefficient)]
    lengths = [step[i].prompt_ids.size + step[i].response_ids.size for i in chosen]
    picks = ([chosen[row] for row in rows] for rows in row_batches(lengths, options.micro_batch_tokens))
    return [Micro(tuple(step[i] for i in pick), scale[pick]) for pick in picks]


def idle(micro: Micro) -> Micro:
    """A forward and backward that adds nothing, for a rank that must keep step with the others."""
    return Micro(micro.members[:1], np.zeros(1))


def later_anchors(parts: Sequence[Sequence[Example]], kl_coefficient: float) -> list[Example]:
    """The examples that need log π_old from before the first step: in the first, the policy is still the old one."""
    later = (example for part in parts[1:] for example in part)
    return [e for e in later if e.anchor is None and _has_ratio(e.loss) and teaches(e, kl_coefficient)]


def _has_ratio(loss: Loss) -> bool:
    return isinstance(loss, CappedSequence) or (isinstance(loss, PolicyGradient) and loss.ratio != "none")
