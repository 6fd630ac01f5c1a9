"""Examples as OpenRLHF's `Experience`: rows of one width, right padded, what belongs to a token one place before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from learners.example import Example
from learners.openrlhf.library import Experience, make_experience_batch
from learners.openrlhf.losses import Terms
from mutual_env.types import Floats, Ids

PerExample = Mapping[int, Floats]


def row_batches(lengths: Sequence[int], tokens: int) -> Iterator[tuple[int, ...]]:
    """Rows of similar length, as many as have at most so many tokens, padding counted; at least one."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = max(1, tokens // lengths[order[start]])
        yield tuple(order[start : start + size])
        start += size


def scoring_experience(pairs: Sequence[tuple[Ids, Ids]]) -> Experience:
    """Sequences whose response tokens are all wanted."""
    return make_experience_batch([_row(p, r, np.ones(r.size, np.bool_)) for p, r in pairs])


def training_experience(members: Sequence[Example], anchors: PerExample) -> Experience:
    """Examples with their masks, advantages, anchors (NaN: the current policy) and references (NaN: none)."""
    rows = []
    for example in members:
        anchor = anchors.get(id(example)) if example.anchor is None else example.anchor
        row = _row(example.prompt_ids, example.response_ids, example.mask)
        row.advantages = _actions(example, example.advantages, 0.0)
        row.action_log_probs = _actions(example, anchor, np.nan)
        row.base_action_log_probs = _actions(example, example.reference, np.nan)
        rows.append(row)
    return make_experience_batch(rows)


def training_terms(
    experience: Experience,
    members: Sequence[Example],
    scale: Floats,
    minibatch: int,
    frozen: torch.Tensor | None,
    kl_coefficient: float,
) -> Terms:
    """What the losses take beside log-probabilities; `frozen` are those of the learner's own KL term."""
    device = experience.sequences.device
    weights = torch.tensor([0.0 if e.reference is None else e.kl_weight for e in members], device=device)
    pulls: list[tuple[torch.Tensor, torch.Tensor]] = []
    if bool((weights != 0.0).any()):
        pulls.append((experience.base_action_log_probs, weights))
    if frozen is not None:
        pulls.append((frozen, torch.full_like(weights, kl_coefficient)))
    return Terms(
        mask=experience.action_mask.float(),
        advantages=experience.advantages,
        anchor=experience.action_log_probs,
        scale=torch.from_numpy(scale.astype(np.float32)).to(device),
        pulls=tuple(pulls),
        losses=tuple(example.loss for example in members),
        minibatch=minibatch,
    )


def per_action(members: Sequence[Example], values: PerExample) -> torch.Tensor:
    """(B, A) of values of each example's response tokens, NaN elsewhere."""
    rows = [_actions(example, values[id(example)], np.nan) for example in members]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.nan)


def _row(prompt_ids: Ids, response_ids: Ids, mask: npt.NDArray[np.bool_]) -> Experience:
    sequence = torch.from_numpy(np.concatenate((prompt_ids, response_ids)).astype(np.int64))
    action_mask = np.concatenate((np.zeros(prompt_ids.size - 1, np.bool_), mask))
    return Experience(
        sequences=sequence, attention_mask=torch.ones_like(sequence), action_mask=torch.from_numpy(action_mask)
    )


def _actions(example: Example, values: Floats | None, elsewhere: float) -> torch.Tensor:
    """(A) float32: the values where the mask is, `elsewhere` on the prompt and on what is not trained on."""
    row = np.full(example.prompt_ids.size - 1 + example.response_ids.size, elsewhere, dtype=np.float32)
    if values is not None:
        row[example.prompt_ids.size - 1 :] = np.where(example.mask, values, elsewhere)
    return torch.from_numpy(row)
