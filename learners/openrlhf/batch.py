"""Examples as OpenRLHF's `Experience`: rows of one width, right padded, what belongs to a token one place before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from learners.example import Example
from learners.openrlhf.library import Experience, make_experience_batch
from mutual_env.types import Ids


def row_batches(lengths: Sequence[int], tokens: int, *, packed: bool = False) -> Iterator[tuple[int, ...]]:
    """Rows of similar length, as many as have at most so many tokens, padding counted; at least one. `packed`: there is
    no padding."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        sums = np.cumsum([lengths[row] for row in order[start:]]) if packed else None
        fit = tokens // lengths[order[start]] if sums is None else int(np.searchsorted(sums, tokens, side="right"))
        size = max(1, fit)
        yield tuple(order[start : start + size])
        start += size


def scoring_experience(pairs: Sequence[tuple[Ids, Ids]]) -> Experience:
    """Sequences whose response tokens are all wanted."""
    return make_experience_batch([_row(p, r, np.ones(r.size, np.bool_)) for p, r in pairs])


def training_experience(members: Sequence[Example]) -> Experience:
    """Examples with their masks."""
    return make_experience_batch([_row(e.prompt_ids, e.response_ids, e.mask) for e in members])


def _row(prompt_ids: Ids, response_ids: Ids, mask: npt.NDArray[np.bool_]) -> Experience:
    sequence = torch.from_numpy(np.concatenate((prompt_ids, response_ids)).astype(np.int64))
    action_mask = np.concatenate((np.zeros(prompt_ids.size - 1, np.bool_), mask))
    return Experience(
        sequences=sequence, attention_mask=torch.ones_like(sequence), action_mask=torch.from_numpy(action_mask)
    )
