"""Whether ids are what the tokenizer itself would have made of their text.

A sampled cut need not be. What a chunk's log-probabilities add up to is the probability of the one cut that was
sampled; for a cut that a model was not trained on that is e^-10 to e^-24 of the text's, and a ratio with it says little
about the policies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mutual_env.types import Ids
from tokenizers_bridge.declaration import declaration_of
from tokenizers_bridge.protocol import Tokenizer, encode_continuations
from tokenizers_bridge.translation.align import align
from tokenizers_bridge.translation.arrays import as_numpy
from tokenizers_bridge.types import Ints, Mask


@dataclass(frozen=True, slots=True, eq=False)
class Canonical:
    """`tokens` (T) is True where the tokenizer would have put this token in this place."""

    tokens: Mask

    @property
    def row(self) -> bool:
        return bool(self.tokens.all())

    def chunks(self, ends: Ints) -> Mask:
        """The same for chunks of these tokens that end behind ends[0], ends[1], ...: all tokens of each."""
        missed = np.append(0, (~self.tokens).cumsum())[np.append(0, ends)]
        whole: Mask = np.diff(missed) == 0
        return whole


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """Ids of one row between two control tokens or tags, from place `start` on, and the text that they spell."""

    row: int
    start: int
    ids: Ids
    text: str


def canonical(rows: Sequence[Sequence[int] | Ids], tokenizer: Tokenizer) -> list[Canonical]:
    """For each row of ids: a completion, or what else the tokenizer encodes by itself.

    Control tokens and tags are canonical where they stand. What lies between them is encoded again, the first as a
    completion begins and the others as a text goes on. A row that was cut off is taken as it stands; bytes that are no
    whole character no tokenizer makes of a text.
    """
    ids = [np.asarray(as_numpy(row), np.int32).reshape(-1) for row in rows]
    found = [np.ones(row.size, np.bool_) for row in ids]
    stretches = [s for i, row in enumerate(ids) for s in _stretches(i, row, tokenizer)]
    goes_on = partial(encode_continuations, tokenizer)
    for begins in (True, False):
        encode = tokenizer.encode_batch if begins and _has_prefix(tokenizer) else goes_on
        some = [s for s in stretches if (s.start == 0) is begins]
        for stretch, own in zip(some, encode([s.text for s in some]) if some else [], strict=True):
            place = slice(stretch.start, stretch.start + stretch.ids.size)
            found[stretch.row][place] = _same_tokens(stretch.ids, own, tokenizer)
    return [Canonical(tokens) for tokens in found]


def _has_prefix(tokenizer: Tokenizer) -> bool:
    """Whether a completion is encoded as a text from its beginning, with a prefix space."""
    says = declaration_of(tokenizer)
    return says.prefix_space and not says.boundary.continues


def _stretches(row: int, ids: Ids, tokenizer: Tokenizer) -> Iterator[_Stretch]:
    apart = (tokenizer.byte_lengths(ids) == 0) | np.isin(ids, list(declaration_of(tokenizer).tags))
    edges = np.flatnonzero(np.diff(np.concatenate([[True], apart, [True]]).astype(np.int8)))
    for start, end in edges.reshape(-1, 2).tolist():
        data = tokenizer.token_bytes(ids[start:end])
        data = data.removeprefix(b" ") if start == 0 and _has_prefix(tokenizer) else data
        yield _Stretch(row, start, ids[start:end], data.decode("utf-8", "ignore"))


def _same_tokens(ids: Ids, own: Ids, tokenizer: Tokenizer) -> Mask:
    """Which of these ids are tokens of `own` at the same place."""
    if np.array_equal(ids, own):
        return np.ones(ids.size, np.bool_)
    alignment = align(ids, tokenizer, own, tokenizer)
    at, there = (ends[alignment.one_to_one] - 1 for ends in (alignment.author_ends, alignment.reader_ends))
    same = np.zeros(ids.size, np.bool_)
    same[at] = ids[at] == own[there]
    return same
