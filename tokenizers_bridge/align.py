"""Two token sequences of the same bytes, cut into the smallest chunks that both share.

A border is a byte offset at which a token ends on both sides. Between two borders lies a chunk: at least one token of
the author and one of the reader, whose log-probabilities are comparable as sums only. Everything is sorted search over
cumulative byte ends; no step loops over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mutual_env.errors import InvalidInputError, MisalignedError
from mutual_env.types import Floats, Ids
from tokenizers_bridge.declaration import declaration_of
from tokenizers_bridge.edits import NO_EDITS, Edits, edits_between
from tokenizers_bridge.protocol import Role, Tokenizer
from tokenizers_bridge.roles import STOP_ROLES

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Side: TypeAlias = Literal["author", "reader"]


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """C chunks. Chunk c holds author tokens author_ends[c-1]..author_ends[c] and the same of the reader's.

    `exact` (C) is True where both sides of the chunk are the same bytes and no control token stands alone in it.
    `unpaired` counts control tokens that have no partner, author's and reader's.
    """

    author_ends: Ints
    reader_ends: Ints
    exact: Mask
    edits: Edits
    unpaired: tuple[int, int]

    @property
    def author_counts(self) -> Ints:
        return np.diff(self.author_ends, prepend=0)

    @property
    def reader_counts(self) -> Ints:
        return np.diff(self.reader_ends, prepend=0)

    @property
    def exact_tokens(self) -> Mask:
        """`exact` for each token of the reader."""
        mask: Mask = np.repeat(self.exact, self.reader_counts)
        return mask

    @property
    def one_to_one(self) -> Mask:
        """Chunks that are one token on each side, with equal bytes."""
        mask: Mask = self.exact & (self.author_counts == 1) & (self.reader_counts == 1)
        return mask

    def chunk_sums(self, values: Floats, side: Side = "author") -> Floats:
        """The sum of each chunk in float64. `values` is one number for each token of that side."""
        ends = self.author_ends if side == "author" else self.reader_ends
        values = np.asarray(values, np.float64)
        expected = int(ends[-1]) if ends.size else 0
        if values.shape != (expected,):
            raise MisalignedError.of("chunk_sums values", f"the {side}'s tokens", expected, values.size)
        if not ends.size or not values.size:
            return np.zeros(ends.size)
        return np.add.reduceat(values, ends - np.diff(ends, prepend=0))

    def carry(self, logprobs: Floats, own: Floats | None = None) -> tuple[Floats, Mask]:
        """The author's log-probabilities on the reader's tokens, and which of those lie in exact chunks.

        The total of each chunk is kept. It is spread evenly, or, given the reader's `own` log-probabilities, in
        proportion to those (evenly where they add up to 0). A chunk without author tokens gives 0.
        """
        sums = self.chunk_sums(logprobs, "author")
        counts = self.reader_counts
        if own is None:
            return np.repeat(sums / np.maximum(counts, 1), counts), self.exact_tokens
        totals = self.chunk_sums(own, "reader")
        if not np.all(np.isfinite(totals)):
            raise InvalidInputError("own log-probabilities must be finite: spread evenly instead (own=None)")
        flat = totals == 0
        share = np.asarray(own, np.float64) / np.repeat(np.where(flat, 1.0, totals), counts)
        share = np.where(np.repeat(flat, counts), np.repeat(1 / np.maximum(counts, 1), counts), share)
        return np.repeat(sums, counts) * share, self.exact_tokens


def align(
    author_ids: Sequence[int] | Ids, author: Tokenizer, reader_ids: Sequence[int] | Ids, reader: Tokenizer
) -> Alignment:
    """Align what the author sampled with what the reader trains on. Ids outside a vocabulary raise."""
    ids_a, ids_r = np.asarray(author_ids, np.int32), np.asarray(reader_ids, np.int32)
    if author.fingerprint == reader.fingerprint and np.array_equal(ids_a, ids_r):
        author.byte_lengths(ids_a)  # refuses ids outside the vocabulary
        return aligned_to_itself(ids_a.size)
    edits = edits_between(
        author.token_bytes(ids_a), reader.token_bytes(ids_r), declaration_of(author), declaration_of(reader)
    )
    return align_with_edits(ids_a, author, ids_r, reader, edits)


def aligned_to_itself(size: int) -> Alignment:
    ends = np.arange(1, size + 1)
    return Alignment(ends, ends, np.ones(size, np.bool_), NO_EDITS, (0, 0))


def align_with_edits(ids_a: Ids, author: Tokenizer, ids_r: Ids, reader: Tokenizer, edits: Edits) -> Alignment:
    """`align` where it is known already how the bytes of the two sides differ."""
    lengths_a, lengths_r = author.byte_lengths(ids_a), reader.byte_lengths(ids_r)
    if not ids_a.size or not ids_r.size:
        return _one_sided(lengths_a, lengths_r, edits)
    at_a, at_r = lengths_a.cumsum(), lengths_r.cumsum()
    control_a, control_r = np.flatnonzero(lengths_a == 0), np.flatnonzero(lengths_r == 0)
    paired_a, paired_r = _pair_controls(
        _Controls(control_a, at_a[control_a], [_pair_class(author, ids_a[i]) for i in control_a]),
        _Controls(control_r, edits.to_author(at_r[control_r]), [_pair_class(reader, ids_r[i]) for i in control_r]),
    )
    ends_a, ends_r = _borders(at_a, at_r, paired_a, paired_r, edits)
    exact = np.ones(ends_a.size, np.bool_)
    if len(edits):
        exact[_chunks_of_edits(edits, at_a[ends_a - 1], at_r[ends_r - 1])] = False
    lonely_a, lonely_r = np.setdiff1d(control_a, paired_a), np.setdiff1d(control_r, paired_r)
    exact[np.searchsorted(ends_a, lonely_a, side="right")] = False
    exact[np.searchsorted(ends_r, lonely_r, side="right")] = False
    return Alignment(ends_a, ends_r, exact, edits, (lonely_a.size, lonely_r.size))


def _borders(at_a: Ints, at_r: Ints, paired_a: Ints, paired_r: Ints, edits: Edits) -> tuple[Ints, Ints]:
    """Behind which tokens the borders lie. Tokens of no width go with what is before them, unless they are paired."""
    mapped = edits.to_author(at_r)
    before = edits.to_author_before(at_r) if len(edits) else None
    if paired_a.size:
        # A paired control token takes one step of a second, slower-than-any-byte coordinate on both sides.
        scale = paired_a.size + 1
        done_a = np.searchsorted(paired_a, np.arange(at_a.size), side="right")
        done_r = np.searchsorted(paired_r, np.arange(at_r.size), side="right")
        at_a = at_a * scale + done_a
        mapped = np.where(mapped < 0, -1, mapped * scale + done_r)
        before = None if before is None else np.where(before < 0, -1, before * scale + done_r)
    found = np.searchsorted(at_a, mapped, side="right") - 1
    common = (at_a[found] == mapped) & (found >= 0)
    if before is not None:
        instead = np.searchsorted(at_a, before, side="right") - 1
        use = ~common & (instead >= 0) & (at_a[instead] == before)
        found, common = np.where(use, instead, found), common | use
    common[:-1] &= mapped[1:] != mapped[:-1]
    common[-1], found[-1] = True, at_a.size - 1
    ends_r = np.flatnonzero(common) + 1
    return found[common] + 1, ends_r


@dataclass(frozen=True, slots=True, eq=False)
class _Controls:
    """Control tokens of one side: which tokens, at which byte of the author, of which class."""

    index: Ints
    at: Ints
    kind: list[Role]


def _pair_class(tokenizer: Tokenizer, token_id: int) -> Role:
    role = tokenizer.specials.get(int(token_id), "other")
    return "eos" if role in STOP_ROLES else role


def _pair_controls(author: _Controls, reader: _Controls) -> tuple[Ints, Ints]:
    """Control tokens at the same byte and of the same class, in order; "other" and "unk" never pair."""
    waiting: dict[tuple[int, Role], list[int]] = {}
    for i in reversed(range(len(author.kind))):
        waiting.setdefault((int(author.at[i]), author.kind[i]), []).append(i)
    pairs: list[tuple[int, int]] = []
    last = -1
    for j, kind in enumerate(reader.kind):
        queue = waiting.get((int(reader.at[j]), kind), []) if kind not in ("other", "unk") else []
        while queue and queue[-1] <= last:
            queue.pop()
        if queue:
            last = queue.pop()
            pairs.append((last, j))
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    return author.index[rows[:, 0]], reader.index[rows[:, 1]]


def _chunks_of_edits(edits: Edits, ends_a: Ints, ends_r: Ints) -> Ints:
    """The chunk in which each edit lies, given the byte at which each chunk ends on both sides."""
    a0, a1, r0, _ = edits.rows.T
    by_author = np.searchsorted(ends_a, a0, side="right")
    by_reader = np.searchsorted(ends_r, r0, side="right")
    return np.where(a0 < a1, by_author, by_reader)


def _one_sided(lengths_a: Ints, lengths_r: Ints, edits: Edits) -> Alignment:
    """One side has no tokens: a single chunk that is not exact, or none at all."""
    some = int(lengths_a.size + lengths_r.size > 0)
    unpaired = int((lengths_a == 0).sum()), int((lengths_r == 0).sum())
    ends_a, ends_r = np.full(some, lengths_a.size), np.full(some, lengths_r.size)
    return Alignment(ends_a, ends_r, np.zeros(some, np.bool_), edits, unpaired)
