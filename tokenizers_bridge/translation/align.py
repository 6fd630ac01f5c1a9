"""Two token sequences of the same bytes, cut into the smallest chunks that both share.

A border is a byte offset at which a token ends on both sides. Between two borders lies a chunk: at least one token of
the author and one of the reader, whose log-probabilities are comparable as sums only. Everything is sorted search over
cumulative byte ends; no step loops over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, overload

import numpy as np

from mutual_env.errors import InvalidInputError, MisalignedError
from mutual_env.types import Floats, Ids
from tokenizers_bridge.declaration import declaration_of
from tokenizers_bridge.edits import NO_EDITS, Edits, edits_between
from tokenizers_bridge.loops import LONGEST_SUM, compiled
from tokenizers_bridge.protocol import Role, Tokenizer
from tokenizers_bridge.roles import STOP_ROLES
from tokenizers_bridge.translation.arrays import is_tensor, sums_by_chunk
from tokenizers_bridge.types import Ints, Mask

Side: TypeAlias = Literal["author", "reader"]


class Tensor(Protocol):
    """A torch tensor, by what tells it from an array."""

    def detach(self) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """C chunks. Chunk c holds author tokens author_ends[c-1]..author_ends[c], author_counts[c] of them; the same of the
    reader's.

    `exact` (C) is True where both sides of the chunk are the same bytes and no control token stands alone in it.
    `unpaired` counts control tokens that have no partner, author's and reader's.
    """

    author_ends: Ints
    reader_ends: Ints
    author_counts: Ints
    reader_counts: Ints
    exact: Mask
    edits: Edits
    unpaired: tuple[int, int]

    @classmethod
    def of(
        cls, author_ends: Ints, reader_ends: Ints, exact: Mask, edits: Edits, unpaired: tuple[int, int] = (0, 0)
    ) -> Alignment:
        return cls(author_ends, reader_ends, _counts(author_ends), _counts(reader_ends), exact, edits, unpaired)

    @property
    def exact_tokens(self) -> Mask:
        """`exact` for each token of the reader."""
        mask = np.ones(int(self.reader_ends[-1]) if self.exact.size else 0, np.bool_)
        mask[self.inexact_tokens("reader")] = False
        return mask

    def inexact_tokens(self, side: Side) -> Ints:
        """Which tokens of that side lie outside exact chunks."""
        chunks = (~self.exact).nonzero()[0]
        counts = (self.author_counts if side == "author" else self.reader_counts)[chunks]
        ends = (self.author_ends if side == "author" else self.reader_ends)[chunks]
        # Token k of all of them is k + (where its chunk starts) - (how many came before the chunk).
        tokens: Ints = (ends - counts.cumsum()).repeat(counts)
        tokens += np.arange(tokens.size)
        return tokens

    @property
    def one_to_one(self) -> Mask:
        """Chunks that are one token on each side, with equal bytes."""
        mask: Mask = self.exact & (self.author_counts == 1) & (self.reader_counts == 1)
        return mask

    def chunk_ids(self, side: Side = "reader", *, exact_only: bool = False) -> Ints:
        """The chunk that each token of that side lies in; with `exact_only`, -1 for tokens outside exact chunks."""
        counts = self.author_counts if side == "author" else self.reader_counts
        numbers = np.arange(self.exact.size)
        return (np.where(self.exact, numbers, -1) if exact_only else numbers).repeat(counts)

    @overload
    def chunk_sums(self, values: Floats, side: Side = "author") -> Floats: ...

    @overload
    def chunk_sums(self, values: Tensor, side: Side = "author") -> Any: ...

    def chunk_sums(self, values: Floats | Tensor, side: Side = "author") -> Any:
        """The sum of each chunk in float64. `values` is one number for each token of that side. The sums of a torch
        tensor are one, of float32 at least, and differentiable."""
        if is_tensor(values):
            return self._tensor_sums(values, side)
        mine = side == "author"
        ends, counts = (self.author_ends, self.author_counts) if mine else (self.reader_ends, self.reader_counts)
        values = np.asarray(values, np.float64)
        expected = int(ends[-1]) if ends.size else 0
        if values.shape != (expected,):
            raise MisalignedError.of("chunk_sums values", f"the {side}'s tokens", expected, values.size)
        if not values.size:
            return np.zeros(ends.size)
        return _sums(values, ends, counts)

    def _tensor_sums(self, values: Any, side: Side) -> Any:
        chunks = self.chunk_ids(side)
        if tuple(values.shape) != chunks.shape:
            raise MisalignedError.of("chunk_sums values", f"the {side}'s tokens", chunks.size, values.numel())
        return sums_by_chunk(values, chunks, self.exact.size)

    def carry(self, logprobs: Floats, own: Floats | None = None) -> tuple[Floats, Mask]:
        """The author's log-probabilities on the reader's tokens, and which of those lie in exact chunks.

        The total of each chunk is kept. It is spread evenly, or, given the reader's `own` log-probabilities, in
        proportion to those (evenly where they add up to 0). A chunk without author tokens gives 0.
        """
        sums = self.chunk_sums(logprobs, "author")
        counts = self.reader_counts
        if own is None:
            return _spread(sums, self.reader_ends, counts), self.exact_tokens
        totals = self.chunk_sums(own, "reader")
        if not np.all(np.isfinite(totals)):
            raise InvalidInputError("own log-probabilities must be finite: spread evenly instead (own=None)")
        flat = totals == 0
        share = np.asarray(own, np.float64) / np.repeat(np.where(flat, 1.0, totals), counts)
        share = np.where(np.repeat(flat, counts), np.repeat(1 / np.maximum(counts, 1), counts), share)
        return np.repeat(sums, counts) * share, self.exact_tokens


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """One side: its ids, how many bytes each stands for, and which are control tokens."""

    tokenizer: Tokenizer
    ids: Ids
    lengths: Ints
    controls: Ints

    @classmethod
    def of(cls, ids: Sequence[int] | Ids, tokenizer: Tokenizer) -> Tokens:
        array = np.asarray(ids, np.int32)
        lengths = tokenizer.byte_lengths(array)
        return cls(tokenizer, array, lengths, (lengths == 0).nonzero()[0])

    def role(self, index: int) -> Role:
        """The role of the control token at this index; the two that end a completion count as one."""
        role = self.tokenizer.specials.get(int(self.ids[index]), "other")
        return "eos" if role in STOP_ROLES else role

    @property
    def only_stops(self) -> bool:
        """Its one control token is a stop token at the end."""
        at = self.controls
        return at.size == 1 and int(at[0]) == self.ids.size - 1 and self.role(-1) == "eos"


def align(
    author_ids: Sequence[int] | Ids, author: Tokenizer, reader_ids: Sequence[int] | Ids, reader: Tokenizer
) -> Alignment:
    """Align what the author sampled with what the reader trains on. Ids outside a vocabulary raise."""
    side_a, side_r = Tokens.of(author_ids, author), Tokens.of(reader_ids, reader)
    if author.fingerprint == reader.fingerprint and np.array_equal(side_a.ids, side_r.ids):
        return aligned_to_itself(side_a.ids.size)
    data_a, data_r = author.token_bytes(side_a.ids), reader.token_bytes(side_r.ids)
    return align_tokens(side_a, side_r, edits_between(data_a, data_r, declaration_of(author), declaration_of(reader)))


def aligned_to_itself(size: int) -> Alignment:
    ends = np.arange(1, size + 1)
    ones = np.ones(size, np.int64)
    return Alignment(ends, ends, ones, ones, np.ones(size, np.bool_), NO_EDITS, (0, 0))


def align_tokens(author: Tokens, reader: Tokens, edits: Edits) -> Alignment:
    """`align` where it is known already how the bytes of the two sides differ."""
    if not author.ids.size or not reader.ids.size:
        return _one_sided(author, reader, edits)
    at_a, at_r = author.lengths.cumsum(), reader.lengths.cumsum()
    plain = not author.controls.size and not reader.controls.size
    if edits.in_front is not None and (plain or (author.only_stops and reader.only_stops)):
        return _align_equal(at_a, at_r, edits.in_front, edits, 0 if plain else 1)
    paired_a, paired_r = _pair_controls(
        _Controls(author.controls, at_a[author.controls], [author.role(i) for i in author.controls.tolist()]),
        _Controls(
            reader.controls, edits.to_author(at_r[reader.controls]), [reader.role(i) for i in reader.controls.tolist()]
        ),
    )
    ends_a, ends_r = _borders(at_a, at_r, paired_a, paired_r, edits)
    exact = np.ones(ends_a.size, np.bool_)
    if len(edits):
        exact[_chunks_of_edits(edits, at_a[ends_a - 1], at_r[ends_r - 1])] = False
    for controls, paired, ends in ((author.controls, paired_a, ends_a), (reader.controls, paired_r, ends_r)):
        if controls.size > paired.size:
            exact[ends.searchsorted(np.setdiff1d(controls, paired), side="right")] = False
    unpaired = author.controls.size - paired_a.size, reader.controls.size - paired_r.size
    return Alignment.of(ends_a, ends_r, exact, edits, unpaired)


def _align_equal(at_a: Ints, at_r: Ints, in_front: tuple[int, int], edits: Edits, stops: int) -> Alignment:
    """Bytes that are equal but for an edit in front: borders through a table over bytes, in linear time."""
    behind_a, behind_r = -1, -1  # the tokens that end where the edit does
    if len(edits):
        ends = ((at[: at.size - stops], end) for at, end in zip((at_a, at_r), in_front, strict=True))
        behind_a, behind_r = (_ending_at(at, end) for at, end in ends)
        np.maximum(at_a - in_front[0], 0, out=at_a)
        np.maximum(at_r - in_front[1], 0, out=at_r)
    at_a[-1] += stops  # the two stop tokens are a last byte of their own
    at_r[-1] += stops
    index = np.zeros(int(at_a[-1]) + 1, np.int64)
    index[at_a] = np.arange(1, at_a.size + 1)
    index[0] = 0
    found = index[at_r]
    if behind_a >= 0 and behind_r >= 0:
        found[behind_r] = behind_a + 1
    found[-1] = at_a.size
    ends_a, ends_r = found[found > 0], found.nonzero()[0] + 1
    exact = np.ones(ends_a.size, np.bool_)
    exact[0] = not len(edits)
    return Alignment.of(ends_a, ends_r, exact, edits)


def _ending_at(at: Ints, end: int) -> int:
    """The last token that ends at this byte; -1 where none does."""
    last = int(at.searchsorted(end, side="right")) - 1
    return last if last >= 0 and at[last] == end else -1


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
    common[-1], found[-1] = True, at_a.size - 1
    ends_a, ends_r = found[common] + 1, np.flatnonzero(common) + 1
    last = np.append(ends_a[1:] != ends_a[:-1], True)  # of several reader tokens that end there
    return ends_a[last], ends_r[last]


@dataclass(frozen=True, slots=True, eq=False)
class _Controls:
    """Control tokens of one side: which tokens, at which byte of the author, of which class."""

    index: Ints
    at: Ints
    kind: list[Role]


def _pair_controls(author: _Controls, reader: _Controls) -> tuple[Ints, Ints]:
    """Control tokens at the same byte and of the same class, in order; what says nothing ("pad") or nothing that is
    known ("other", "unk") never pairs."""
    waiting: dict[tuple[int, Role], list[int]] = {}
    for i in reversed(range(len(author.kind))):
        waiting.setdefault((int(author.at[i]), author.kind[i]), []).append(i)
    pairs: list[tuple[int, int]] = []
    last = -1
    for j, kind in enumerate(reader.kind):
        queue = waiting.get((int(reader.at[j]), kind), []) if kind not in ("other", "unk", "pad") else []
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


def _one_sided(author: Tokens, reader: Tokens, edits: Edits) -> Alignment:
    """One side has no tokens: a single chunk that is not exact, or none at all."""
    some = int(author.ids.size + reader.ids.size > 0)
    ends_a, ends_r = np.full(some, author.ids.size), np.full(some, reader.ids.size)
    return Alignment.of(ends_a, ends_r, np.zeros(some, np.bool_), edits, (author.controls.size, reader.controls.size))


def _sums(values: Floats, ends: Ints, counts: Ints) -> Floats:
    """`np.add.reduceat` to the bit. It takes ten times as long as a copy, and most chunks are one token or two."""
    if (loops := compiled(values.size)) is not None:
        sums, more = loops.sums(values, ends), (counts > LONGEST_SUM).nonzero()[0]
    else:
        more = (counts > 2).nonzero()[0]
        if 4 * more.size > counts.size:
            return np.add.reduceat(values, ends - counts)
        sums = values.take(ends - 1)
        two = (counts == 2).nonzero()[0]
        sums[two] = values[ends[two] - 2] + sums[two]
    if more.size:
        sums[more] = sums_of_runs(values, ends[more] - counts[more], ends[more])
    return sums


def sums_of_runs(values: Floats, starts: Ints, ends: Ints) -> Floats:
    """The sums over runs of several values that do not overlap."""
    borders = np.stack([starts, ends], axis=1).ravel()
    sums: Floats = np.add.reduceat(values, borders[: -1 if borders[-1] == values.size else None])[::2]
    return sums


def _spread(sums: Floats, ends: Ints, counts: Ints) -> Floats:
    """Each chunk's sum, shared evenly between its tokens."""
    if ends.size and (loops := compiled(int(ends[-1]))) is not None:
        return loops.spread(sums, ends)
    several = (counts > 1).nonzero()[0]
    sums[several] /= counts[several]
    return sums.repeat(counts)


def _counts(ends: Ints) -> Ints:
    counts = np.empty_like(ends)
    counts[:1] = ends[:1]
    np.subtract(ends[1:], ends[:-1], out=counts[1:])
    return counts
