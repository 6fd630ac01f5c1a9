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
        lost = lost_mass(logprobs, alignment.inexact_tokens("author"), spans.author_at)
        largest, paired = _largest_and_paired(alignment, spans.chunk_at)
        tokens = np.diff(spans.reader_at)
        share = np.where(tokens, 1 - paired / np.maximum(tokens, 1), 0.0)
        return cls(share, lost, largest)


def _largest_and_paired(alignment: Alignment, chunk_at: Ints) -> tuple[Ints, Ints]:
    """Of each row the most tokens that a chunk has on either side, and how many exact chunks have one on both."""
    counts_a, counts_r, exact = alignment.author_counts, alignment.reader_counts, alignment.exact
    longest = np.maximum(counts_a, counts_r)
    alike = (longest == 1) & exact
    return np.maximum.reduceat(longest, chunk_at[:-1]), np.add.reduceat(alike, chunk_at[:-1], dtype=np.int64)


def lost_mass(logprobs: Floats, tokens: Ints, author_at: Ints) -> Floats:
    """Which share of each row's |log-probability| these tokens of the author's have."""
    if not tokens.size:
        return np.zeros(author_at.size - 1)
    mass = np.abs(logprobs)
    total = np.add.reduceat(mass, author_at[:-1])
    lost = np.zeros(mass.size)
    lost[tokens] = mass[tokens]
    share: Floats = np.add.reduceat(lost, author_at[:-1]) / np.where(total > 0, total, 1)
    return share
