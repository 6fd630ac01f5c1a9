"""How much of each of many translations has no exact counterpart, as numbers a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mutual_env.types import Floats
from tokenizers_bridge.translation.align import Alignment
from tokenizers_bridge.types import Ints


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Where rows lie that stand behind one another: row i has author tokens author_at[i]..author_at[i+1], and the same
    of the reader's tokens and of the chunks. No row is empty on the author's side, and each has a chunk."""

    author_at: Ints
    reader_at: Ints
    chunk_at: Ints

    @classmethod
    def of_one(cls, alignment: Alignment) -> Spans:
        """One row."""
        ends = (alignment.author_ends[-1], alignment.reader_ends[-1], alignment.exact.size)
        return cls(*(np.array([0, end], np.int64) for end in ends))


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """The fields of `Residual` that an alignment says, one number a row."""

    token_share: Floats
    mass_share: Floats
    largest_chunk: Ints

    @classmethod
    def of(cls, alignment: Alignment, logprobs: Floats, spans: Spans) -> Residuals:
        longest = np.maximum(alignment.author_counts, alignment.reader_counts)
        alike = longest == 1
        lost = np.zeros(spans.chunk_at.size - 1)
        if not alignment.exact.all():
            alike &= alignment.exact
            lost = _lost_mass(alignment, logprobs, spans)
        paired = np.add.reduceat(alike, spans.chunk_at[:-1], dtype=np.int64)
        tokens = np.diff(spans.reader_at)
        share = np.where(tokens, 1 - paired / np.maximum(tokens, 1), 0.0)
        return cls(share, lost, np.maximum.reduceat(longest, spans.chunk_at[:-1]))


def _lost_mass(alignment: Alignment, logprobs: Floats, spans: Spans) -> Floats:
    if not logprobs.size:
        return np.zeros(spans.chunk_at.size - 1)
    mass = np.abs(logprobs)
    total = np.add.reduceat(mass, spans.author_at[:-1])
    mass[alignment.exact.repeat(alignment.author_counts)] = 0
    lost: Floats = np.add.reduceat(mass, spans.author_at[:-1]) / np.where(total > 0, total, 1)
    return lost
