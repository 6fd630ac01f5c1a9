"""Loops over tokens for which NumPy takes many passes, each written as one.

numba compiles them where it is installed (the extra `speed`). Elsewhere their callers do the same in NumPy, with the
same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mutual_env.types import Floats, Ids
from tokenizers_bridge.types import Ints, Mask

Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]

WORTH = 4096
"""From so many tokens on the loops are compiled: fewer do not wait for that, nor for the import."""

LONGEST_SUM = 8
"""NumPy adds up to so many numbers one after the other; more, in an order of its own."""


def borders(at_a: Ints, at_r: Ints, size: int) -> tuple[Ints, Ints]:
    """Behind which tokens of either side both end, of places up to `size`. No step depends on what is met: a wrong
    guess of the processor's costs more than writing a place too many."""
    ends_a, ends_r = np.empty(at_a.size + 1, np.int64), np.empty(at_r.size + 1, np.int64)
    marks = np.zeros(size + 1, np.uint8)
    for k in range(at_a.size):
        marks[at_a[k]] = 1
    found_r = 0
    for k in range(at_r.size):
        ends_r[found_r] = k + 1
        found_r += marks[at_r[k]] & 1
        marks[at_r[k]] |= 2
    found_a = 0
    for k in range(at_a.size):
        ends_a[found_a] = k + 1
        found_a += marks[at_a[k]] >> 1
    return ends_a[:found_a], ends_r[:found_r]


def sums(values: Floats, ends: Ints) -> Floats:
    """The sum of each chunk, as `np.add.reduceat` has it where the chunk is not longer than `LONGEST_SUM`."""
    out = np.empty(ends.size)
    start = 0
    for chunk in range(ends.size):
        end = ends[chunk]
        out[chunk] = values[start]
        if end > start + 1:
            rest = values[start + 1]
            for k in range(start + 2, end):
                rest += values[k]
            out[chunk] += rest
        start = end
    return out


def spread(totals: Floats, ends: Ints) -> Floats:
    """Each chunk's total, shared evenly between its tokens."""
    out = np.empty(ends[-1])
    start = 0
    for chunk in range(ends.size):
        end = ends[chunk]
        share = totals[chunk]
        if end > start + 1:
            share /= end - start
        for k in range(start, end):
            out[k] = share
        start = end
    return out


def differing(
    words: Words, starts: Ints, lengths: Ints, ids: Ids, heads: Words, masks: Words, blob: Bytes, blob_starts: Ints
) -> Ints:
    """Tokens whose bytes are not those at their places: words[i] are the eight bytes from i on, `heads` the first eight
    of each id, which has its others in `blob`."""
    out = np.empty(ids.size, np.int64)
    found, most = 0, masks.size - 1
    for k in range(ids.size):
        start, length = starts[k], lengths[k]
        wrong = (words[start] ^ heads[ids[k]]) & masks[min(length, most)] != 0
        if length > most and not wrong:
            mine = blob_starts[ids[k]]
            for j in range(most, length):
                wrong |= words[start + j] & 255 != blob[mine + j]
        if wrong:
            out[found] = k
            found += 1
    return out[:found]


def places(lengths: Ints, at: Ints, lead: Ints, stopped: Mask) -> Ints:
    """Where each token ends on a tape on which every row has a byte in front, which a row with `lead` begins on, and
    one behind, on which its stop token lies."""
    out = np.empty(lengths.size, np.int64)
    end = 0
    for row in range(lead.size):
        end += 1 - lead[row]
        for k in range(at[row], at[row + 1]):
            end += lengths[k]
            out[k] = end
        end += 1
        if stopped[row]:
            out[at[row + 1] - 1] = end
    return out


def largest_and_paired(counts_a: Ints, counts_r: Ints, exact: Mask, chunk_at: Ints) -> tuple[Ints, Ints]:
    """Of each row the most tokens that a chunk has on either side, and how many exact chunks have one on both."""
    largest, paired = np.empty(chunk_at.size - 1, np.int64), np.empty(chunk_at.size - 1, np.int64)
    for row in range(largest.size):
        most = pairs = 0
        for chunk in range(chunk_at[row], chunk_at[row + 1]):
            longest = max(counts_a[chunk], counts_r[chunk])
            most = max(most, longest)
            pairs += (longest == 1) & exact[chunk]
        largest[row], paired[row] = most, pairs
    return largest, paired


def space_in_front(raw: Bytes, starts: Ints, is_space: Mask) -> Ints:
    """Where the text of each row of a tape, a byte in front of it and one behind, has its first byte that is none of
    these."""
    out = np.empty(starts.size - 1, np.int64)
    for row in range(out.size):
        at = starts[row] + 1
        while at < starts[row + 1] - 1 and is_space[raw[at]]:
            at += 1
        out[row] = at
    return out


WRITTEN = {
    loop.__name__: loop for loop in (borders, sums, spread, differing, places, largest_and_paired, space_in_front)
}


@dataclass(frozen=True, slots=True)
class Loops:
    """The same functions, compiled."""

    borders: Callable[[Ints, Ints, int], tuple[Ints, Ints]]
    sums: Callable[[Floats, Ints], Floats]
    spread: Callable[[Floats, Ints], Floats]
    differing: Callable[[Words, Ints, Ints, Ids, Words, Words, Bytes, Ints], Ints]
    places: Callable[[Ints, Ints, Ints, Mask], Ints]
    largest_and_paired: Callable[[Ints, Ints, Mask, Ints], tuple[Ints, Ints]]
    space_in_front: Callable[[Bytes, Ints, Mask], Ints]


def compiled(tokens: int) -> Loops | None:
    """None where NumPy does it."""
    return _compiled() if tokens >= WORTH else None


@cache
def _compiled() -> Loops | None:
    try:
        import numba
    except ImportError:  # not there, or of no use to the NumPy that is
        return None

    def compiling(loop: Any) -> Any:
        try:
            return numba.njit(loop, cache=True, nogil=True)
        except RuntimeError:  # no folder in which what was compiled could be kept
            return numba.njit(loop, nogil=True)

    return Loops(**{name: compiling(loop) for name, loop in WRITTEN.items()})
