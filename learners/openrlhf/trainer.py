"""One update of an OpenRLHF `Actor`: its forward and backward, for `learners.update`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from learners.example import Example
from learners.openrlhf.batch import row_batches, scoring_experience, training_experience
from learners.openrlhf.library import Actor, Experience, all_gather
from learners.openrlhf.ranks import Alone, Ranks
from learners.step import Part, Step, Stepped
from learners.torch.losses import Terms, terms_of, total_loss
from learners.torch.options import TorchOptions
from learners.torch.reference import ReferencePolicy
from learners.update import update
from mutual_env.errors import TrainingError
from mutual_env.types import Floats, Ids, Metrics


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


class ActorTrainer:
    """Scores and trains one actor, alone or as one of several data-parallel ranks. The actors of a `ring` have the same
    rows: each computes a stretch of them, and all have the log-probabilities of the whole."""

    def __init__(
        self,
        actor: Actor,
        pulled_to: ReferencePolicy[Actor],
        steps: Steps,
        options: TorchOptions,
        device: torch.device,
        ranks: Ranks | None = None,
        ring: torch.distributed.ProcessGroup | None = None,
    ) -> None:
        self._actor = actor
        self._pulled_to = pulled_to
        self._steps = steps
        self._options = options
        self._device = device
        self._ranks = ranks or Alone()
        self._ring = ring

    @property
    def learning_rate(self) -> float:
        """Of the next optimizer step."""
        return self._steps.learning_rate

    def update(self, examples: Sequence[Example]) -> Metrics:
        """The optimizer steps that these examples ask for: none, if they teach nothing."""
        return update(examples, self, self._options)

    def score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[Floats]:
        """log π of each response token, at the temperature of `act`."""
        return self._score(self._actor, pairs)

    def current(self, examples: Sequence[Example]) -> list[Floats]:
        """log π of every response token, now."""
        return self._score(self._actor, [(e.prompt_ids, e.response_ids) for e in examples])

    def reference(self, examples: Sequence[Example]) -> list[Floats]:
        """The same under the policy that is pulled to."""
        with self._pulled_to.within(self._actor) as actor:
            return self._score(actor, [(e.prompt_ids, e.response_ids) for e in examples])

    def step(self, step: Step) -> Stepped:
        """One optimizer step."""
        self._steps.zero_grad()
        lengths = [part.example.prompt_ids.size + part.example.response_ids.size for part in step.parts]
        micros = self._batches(lengths)
        mine = self._ranks.mine(micros)
        total = 0.0
        found: dict[int, Floats] = {}
        for position, rows in enumerate(mine):
            parts = [step.parts[row] for row in rows] if rows else [step.parts[micros[0][0]].idle()]
            loss, logprobs = self._loss(parts, step)
            self._steps.backward(loss, last=position + 1 == len(mine))
            total += float(loss.detach())
            found.update(zip(rows or (), logprobs, strict=False))
        loss_of_all = self._ranks.total(total)
        merged = self._ranks.merged(found)
        return Stepped(loss_of_all, self._apply(loss_of_all), tuple(merged[row] for row in range(len(step.parts))))

    def _loss(self, parts: Sequence[Part], step: Step) -> tuple[torch.Tensor, list[Floats]]:
        """The scaled loss of one micro-batch, and the log-probabilities of each part's masked tokens."""
        experience = training_experience([part.example for part in parts]).to_device(self._device)
        terms = terms_of(parts, step, self._device)
        masked, bonus = self._masked(experience, terms)
        counts = [int(part.example.mask.sum()) for part in parts]
        values = np.split(masked.detach().double().cpu().numpy(), np.cumsum(counts)[:-1])
        return total_loss(masked, terms) + bonus, values

    def _masked(self, experience: Experience, terms: Terms) -> tuple[torch.Tensor, torch.Tensor]:
        """log π of the masked tokens, and what the entropy there adds to the loss."""
        chosen = experience.action_mask.bool()
        if terms.entropy is None:
            logprobs = self._logprobs(self._actor, experience)[chosen]
            return logprobs, logprobs.new_zeros(())
        logprobs, output = self._forward(self._actor, experience, return_output=True)
        entropies = self._entropies(output["logits"], chosen, experience.attention_mask.bool())
        return logprobs[chosen], -(terms.entropy * entropies).sum()

    def _entropies(self, logits: torch.Tensor, chosen: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Where the chosen tokens are said: at the place before each. Packed logits have no padding; in a ring they are
        a stretch of those."""
        before = torch.zeros_like(real)
        before[:, :-1][:, -chosen.shape[1] :] = chosen
        if self._ring is not None:
            return all_gather(_entropy(logits[0]), self._ring)[: int(real.sum())][before[real]]
        return _entropy(logits[0][before[real]] if self._actor.packing_samples else logits[before])

    def _batches(self, lengths: Sequence[int]) -> list[tuple[int, ...]]:
        packed = bool(self._actor.packing_samples)
        return list(row_batches(lengths, self._options.micro_batch_tokens, packed=packed))

    def _apply(self, loss: float) -> float:
        try:
            return self._steps.step(loss)
        except TrainingError:
            self._steps.zero_grad()
            raise

    def _score(self, actor: Actor, pairs: Sequence[tuple[Ids, Ids]]) -> list[Floats]:
        found: dict[int, Floats] = {}
        batches = self._batches([p.size + r.size for p, r in pairs])
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

    def _logprobs(self, actor: Actor, experience: Experience) -> torch.Tensor:
        logprobs: torch.Tensor = self._forward(actor, experience)
        return logprobs

    def _forward(self, actor: Actor, experience: Experience, **options: bool) -> Any:
        """Without a cache, with which transformers would not look whether rows are packed, and mix them."""
        rows, mask = experience.sequences, experience.attention_mask
        settings: dict[str, Any] = {"use_cache": False, "ring_attn_group": self._ring, **options}
        return actor(rows, experience.action_mask, attention_mask=mask, **settings)


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)
