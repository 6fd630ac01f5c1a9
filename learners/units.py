"""What is compared as one: a token, or a chunk of tokens whose author is known by the chunk's sum alone.

Ratios, clips and divergences are no functions of sums, so across tokenizers they are taken of the sums over chunks:
spread over single tokens, an author's sum would make two equal policies look different. A chunk of one token is that
token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mutual_env.types import Floats

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def units_of(chunks: Ints) -> Ints | None:
    """The unit of each token, counted from 0, where equal numbers in a row are one chunk and what is -1 belongs to
    none: each of those is a unit by itself. None: every token is."""
    first = np.ones(chunks.size, np.bool_)
    first[1:] = (chunks[1:] != chunks[:-1]) | (chunks[1:] < 0)
    return None if first.all() else first.cumsum() - 1


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """N chosen tokens in U units: `starts` (U) is where each begins among the chosen, `sizes` (U) how many it has.
    `single`: every token is a unit."""

    starts: Ints
    sizes: Ints
    single: bool

    @classmethod
    def among(cls, chosen: Mask, units: Ints | None) -> Units:
        """The units of the tokens that are True in `chosen` (T); `units` (T) as `units_of` gives them."""
        count = int(chosen.sum())
        if units is None:
            return cls(np.arange(count), np.ones(count, np.int64), single=True)
        kept = units[chosen]
        first = np.ones(count, np.bool_)
        first[1:] = kept[1:] != kept[:-1]
        starts = np.flatnonzero(first)
        sizes = np.full(starts.size, count)
        sizes[:-1] = starts[1:]
        return cls(starts, sizes - starts, single=starts.size == count)

    @classmethod
    def joined(cls, parts: Sequence[Units]) -> Units:
        """Of all their tokens in a row: one sum over many samples instead of one for each."""
        sizes = np.concatenate([part.sizes for part in parts])
        return cls(sizes.cumsum() - sizes, sizes, single=all(part.single for part in parts))

    def sums(self, values: Floats) -> Floats:
        """(U) of (N), in float64."""
        if self.single:
            return values
        total: Floats = np.add.reduceat(values.astype(np.float64), self.starts)
        return total

    def means(self, values: Floats) -> Floats:
        return values if self.single else self.sums(values) / self.sizes

    def spread(self, values: Floats) -> Floats:
        """(N) of (U): each token has its unit's."""
        return values if self.single else values.repeat(self.sizes)
