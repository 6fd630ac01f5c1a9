"""Batches of token sequences in two vocabularies, as distillers have them: padded rows, a mask of what counts, tensors
whose gradients go through the sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mutual_env.errors import InvalidInputError, MisalignedError
from tokenizers_bridge.distillation.canonical import canonical
from tokenizers_bridge.edits import Edits
from tokenizers_bridge.protocol import Tokenizer
from tokenizers_bridge.translation.align import Alignment, Side, align
from tokenizers_bridge.translation.arrays import as_numpy, of_chunks, shape_of, sums_by_chunk
from tokenizers_bridge.types import Ints, Mask

Rows: TypeAlias = Any
"""Ids of a batch: a sequence of rows, or a (B, T) array or tensor."""


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """One side of a batch: row i has its tokens rows[i] at the places at[i] of `width`. `runs` are where each of its
    stretches without a hole ends, counted in tokens."""

    tokenizer: Tokenizer
    rows: list[npt.NDArray[np.int32]]
    at: list[Ints]
    runs: list[list[int]]
    width: int

    @classmethod
    def of(cls, ids: Rows, mask: Rows | None, tokenizer: Tokenizer, name: str) -> Padded:
        batch = [np.asarray(as_numpy(row)).reshape(-1) for row in ids]
        masks = [np.ones(row.size, np.bool_) for row in batch] if mask is None else [as_numpy(m) > 0 for m in mask]
        if len(masks) != len(batch):
            raise MisalignedError.of(f"{name}_mask", f"the rows of {name}_ids", len(batch), len(masks))
        for row, kept in zip(batch, masks, strict=True):
            if kept.shape != row.shape:
                raise MisalignedError.of(f"{name}_mask", f"{name}_ids", row.size, kept.size)
        at = [kept.nonzero()[0] for kept in masks]
        rows = [row[places].astype(np.int32) for row, places in zip(batch, at, strict=True)]
        runs = [
            [*((np.diff(places) > 1).nonzero()[0] + 1).tolist(), places.size] if places.size else [] for places in at
        ]
        return cls(tokenizer, rows, at, runs, max((row.size for row in batch), default=0))

    def parts(self, row: int) -> list[npt.NDArray[np.int32]]:
        return [self.rows[row][a:b] for a, b in pairwise([0, *self.runs[row]])]


@dataclass(frozen=True, slots=True, eq=False)
class BatchAlignment:
    """B rows, each aligned by itself. C is the number of chunks of the row that has most.

    `rows` (B)   the alignments; a token that the mask leaves out is in none of them
    `exact` (B, C), `chunk_mask` (B, C)   which chunks compare, and which there are
    """

    author: Padded
    reader: Padded
    rows: tuple[Alignment, ...]
    exact: Mask
    chunk_mask: Mask

    @classmethod
    def of(cls, author: Padded, reader: Padded, rows: Sequence[Alignment]) -> BatchAlignment:
        most = max((row.exact.size for row in rows), default=0)
        exact, chunk_mask = np.zeros((2, len(rows), most), np.bool_)
        for i, row in enumerate(rows):
            exact[i, : row.exact.size], chunk_mask[i, : row.exact.size] = row.exact, True
        return cls(author, reader, tuple(rows), exact, chunk_mask)

    def chunk_ids(self, side: Side = "reader", *, exact_only: bool = False) -> Ints:
        """(B, T) The chunk that each token of that side lies in; -1 for what the mask left out, and with `exact_only`
        for tokens outside exact chunks."""
        mine = self._side(side)
        ids = np.full((len(self.rows), mine.width), -1, np.int64)
        for i, row in enumerate(self.rows):
            ids[i, mine.at[i]] = row.chunk_ids(side, exact_only=exact_only)
        return ids

    def chunk_sums(self, values: Any, side: Side = "author") -> Any:
        """(B, C) The sum of each chunk of `values` (B, T), one number for each token of that side, padding included.

        An array's sums are float64. A tensor's are a tensor, of float32 at least, through which gradients go.
        """
        return sums_by_chunk(self._checked(values, side), self.chunk_ids(side), self.exact.shape[1])

    def carry(self, logprobs: Any, own: Any | None = None) -> tuple[Any, Mask]:
        """(B, T) The author's log-probabilities on the reader's tokens, and which of those lie in exact chunks; as
        `Alignment.carry` has it. What the mask left out has 0."""
        sums = self.chunk_sums(logprobs, "author")
        chunks = self.chunk_ids("reader")
        exact = self.chunk_ids("reader", exact_only=True) >= 0
        counts = sums_by_chunk(np.ones(chunks.shape), chunks, self.exact.shape[1])
        even = 1 / np.maximum(of_chunks(counts, chunks), 1)
        if own is None:
            return of_chunks(sums, chunks) * _alike(even, sums), exact
        share = as_numpy(self._checked(own, "reader")).astype(np.float64)
        share = np.where(chunks >= 0, share, 0.0)
        if not np.isfinite(share).all():
            raise InvalidInputError("own log-probabilities must be finite: spread evenly instead (own=None)")
        totals = of_chunks(sums_by_chunk(share, chunks, self.exact.shape[1]), chunks)
        share = np.where(totals == 0, even, share / np.where(totals == 0, 1.0, totals))
        return of_chunks(sums, chunks) * _alike(share, sums), exact

    def canonical(self, side: Side = "author") -> tuple[Mask, Mask]:
        """(B), (B, C) Which rows, and which chunks, have the ids that the tokenizer itself would have made of them. A
        chunk with another cut has the probability of that cut, which may be e^-20 of the text's."""
        mine = self._side(side)
        found = canonical(mine.rows, mine.tokenizer)
        chunks = np.zeros_like(self.chunk_mask)
        for i, (row, one) in enumerate(zip(self.rows, found, strict=True)):
            ends = row.author_ends if side == "author" else row.reader_ends
            chunks[i, : ends.size] = one.chunks(ends)
        return np.array([one.row for one in found], np.bool_), chunks

    def _side(self, side: Side) -> Padded:
        return self.author if side == "author" else self.reader

    def _checked(self, values: Any, side: Side) -> Any:
        mine = self._side(side)
        if shape_of(values) != (len(self.rows), mine.width):
            raise InvalidInputError(
                f"values of the {side} must have shape {(len(self.rows), mine.width)}, one number for each id that was "
                f"aligned, padding included: got {shape_of(values)}"
            )
        return values


def align_batch(
    author_ids: Rows,
    author: Tokenizer,
    reader_ids: Rows,
    reader: Tokenizer,
    *,
    author_mask: Rows | None = None,
    reader_mask: Rows | None = None,
) -> BatchAlignment:
    """`align` for a batch: rows of ids, or padded (B, T) arrays or tensors. What a mask leaves out, padding and
    prompts, is aligned with nothing. Where a row's mask has holes, a reply between two turns, what stands before each
    is aligned with what stands before the other side's."""
    sides = Padded.of(author_ids, author_mask, author, "author"), Padded.of(reader_ids, reader_mask, reader, "reader")
    counts = len(sides[0].rows), len(sides[1].rows)
    if counts[0] != counts[1]:
        raise MisalignedError.of("reader_ids", "the rows of author_ids", *counts)
    rows = []
    for i, (runs_a, runs_r) in enumerate(zip(sides[0].runs, sides[1].runs, strict=True)):
        if len(runs_a) != len(runs_r):
            raise InvalidInputError(
                f"row {i}: author_mask has {len(runs_a)} stretches of tokens and reader_mask {len(runs_r)}: mask the "
                "same turns on both sides"
            )
        pairs = zip(sides[0].parts(i), sides[1].parts(i), strict=True)
        rows.append(_joined([align(a, author, r, reader) for a, r in pairs]))
    return BatchAlignment.of(*sides, rows)


def _joined(parts: Sequence[Alignment]) -> Alignment:
    """Alignments of what stands behind one another."""
    if len(parts) == 1:
        return parts[0]
    empty = np.empty(0, np.int64)
    if not parts:
        return Alignment.of(empty, empty, empty.astype(np.bool_), Edits(empty.reshape(0, 4), declared=True))
    ends: list[tuple[Ints, Ints]] = []
    at_a = at_r = 0
    for part in parts:
        ends.append((part.author_ends + at_a, part.reader_ends + at_r))
        at_a, at_r = int(ends[-1][0][-1]), int(ends[-1][1][-1])
    return Alignment.of(
        np.concatenate([a for a, _ in ends]),
        np.concatenate([r for _, r in ends]),
        np.concatenate([part.exact for part in parts]),
        # Their places are those of one stretch each, and would mean nothing here.
        Edits(empty.reshape(0, 4), all(p.edits.declared for p in parts), all(p.edits.lossless for p in parts)),
        (sum(p.unpaired[0] for p in parts), sum(p.unpaired[1] for p in parts)),
    )


def _alike(factor: npt.NDArray[np.float64], sums: Any) -> Any:
    return factor if isinstance(sums, np.ndarray) else sums.new_tensor(factor)
