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
Unsigned = npt.NDArray[np.uint32]

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


def laid(
    ids: Unsigned, at: Ints, stopped: Mask, places: Ints, stops: Ints, lengths: Ids, may_lead: bool
) -> tuple[Ints, Ints, Mask, bool]:
    """Where each token ends on a tape on which row i has the bytes places[i]..places[i+1]: one in front, on which a
    prefix space lies, the text, and one behind, on which its stop token does. Which rows have a prefix space; which lie
    like that, with no other control token. And whether all ids are in the vocabulary; if not, the rest says nothing."""
    ends = np.empty(ids.size, np.int64)
    lead, fits = np.empty(stopped.size, np.int64), np.empty(stopped.size, np.bool_)
    for row in range(fits.size):
        first, behind, end, controls = at[row], at[row + 1], 0, 0
        for k in range(first, behind):
            i = ids[k]
            if i >= lengths.size:
                return ends, lead, fits, False
            end += lengths[i]
            controls += lengths[i] == 0
            ends[k] = end
        ahead = end - (places[row + 1] - places[row] - 2)
        fit = controls == stopped[row] and (ahead == 0 or (ahead == 1 and may_lead))
        if stopped[row]:
            found = False
            for stop in stops:
                found |= ids[behind - 1] == stop
            fit = fit and found and lengths[ids[behind - 1]] == 0
        shift = places[row] + 1 - ahead
        for k in range(first, behind):
            ends[k] += shift
        ends[behind - 1] += stopped[row]
        lead[row], fits[row] = ahead, fit
    return ends, lead, fits, True


def spelled(
    ids: Unsigned, at: Ints, stopped: Mask, starts: Ints, ends: Ints, heads: Words, blob: Bytes, blob_starts: Ints,
    words: Words, masks: Words, fits: Mask,
) -> None:  # fmt: skip
    """Takes the rows out of `fits` of which a token does not stand for the bytes that it lies on, from starts[row] on:
    words[i] are the eight from i on, `heads` the first eight of each id, which has its others in `blob`."""
    most = masks.size - 1
    for row in range(fits.size):
        if fits[row]:
            start = starts[row]
            differing, also = words[start] ^ words[start], False
            for k in range(at[row], at[row + 1] - stopped[row]):
                i, end = ids[k], ends[k]
                differing |= (words[start] ^ heads[i]) & masks[min(end - start, most)]
                for j in range(most, end - start):
                    also |= words[start + j] & 255 != blob[blob_starts[i] + j]
                start = end
            fits[row] = differing == 0 and not also


def ended(ids: Ids, starts: Ints, at: Ints, stopped: Mask, stop: np.int32) -> Ids:
    """Row i from starts[i] on, at at[i]..at[i+1], with `stop` behind those that stopped."""
    out = np.empty(at[-1], np.int32)
    for row in range(starts.size):
        last = at[row + 1] - stopped[row]
        shift = starts[row] - at[row]
        for k in range(at[row], last):
            out[k] = ids[k + shift]
        if stopped[row]:
            out[last] = stop
    return out


def carried(
    ends_a: Ints, ends_r: Ints, reader_at: Ints, differ: Mask, logprobs: Floats
) -> tuple[Floats, Mask, Mask, Ints, Floats, Ints, int]:
    """The author's log-probabilities on the reader's tokens, each chunk's sum shared evenly between them; what is exact
    of tokens and of chunks: all but the first chunk of a row that begins otherwise (`differ`); where the chunks of each
    row begin, which share of the reader's tokens is no token of the author's, and the most tokens of a chunk. And how
    many of the author's are longer than `LONGEST_SUM`, of which NumPy's sums have bits of their own."""
    shared, exact = np.empty(ends_r[-1]), np.ones(ends_r[-1], np.bool_)
    chunk_exact, chunk_at = np.ones(ends_a.size, np.bool_), np.zeros(differ.size + 1, np.int64)
    token_share, largest = np.empty(differ.size), np.empty(differ.size, np.int64)
    chunk = start_a = start_r = more = 0
    for row in range(differ.size):
        most = alike = 0
        if differ[row]:
            chunk_exact[chunk] = False
            exact[start_r : ends_r[chunk]] = False
            alike -= ends_a[chunk] - start_a == 1 and ends_r[chunk] - start_r == 1
        while start_r < reader_at[row + 1]:
            end_a, end_r = ends_a[chunk], ends_r[chunk]
            total = logprobs[start_a]
            size = max(end_a - start_a, end_r - start_r)
            if size == 1:
                alike += 1
                shared[start_r] = total
            else:
                if end_a > start_a + 1:
                    rest = logprobs[start_a + 1]
                    for k in range(start_a + 2, end_a):
                        rest += logprobs[k]
                    total += rest
                    more += end_a - start_a > LONGEST_SUM
                shared[start_r:end_r] = total / (end_r - start_r)
            most = max(most, size)
            chunk += 1
            start_a, start_r = end_a, end_r
        chunk_at[row + 1], largest[row] = chunk, most
        token_share[row] = 1 - alike / (reader_at[row + 1] - reader_at[row])
    return shared, exact, chunk_exact, chunk_at, token_share, largest, more


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


WRITTEN: dict[str, Any] = {
    loop.__name__: loop for loop in (borders, sums, spread, laid, spelled, ended, carried, space_in_front)
}


@dataclass(frozen=True, slots=True)
class Loops:
    """The same functions, compiled."""

    borders: Callable[[Ints, Ints, int], tuple[Ints, Ints]]
    sums: Callable[[Floats, Ints], Floats]
    spread: Callable[[Floats, Ints], Floats]
    laid: Callable[[Unsigned, Ints, Mask, Ints, Ints, Ids, bool], tuple[Ints, Ints, Mask, bool]]
    spelled: Callable[[Unsigned, Ints, Mask, Ints, Ints, Words, Bytes, Ints, Words, Words, Mask], None]
    ended: Callable[[Ids, Ints, Ints, Mask, np.int32], Ids]
    carried: Callable[[Ints, Ints, Ints, Mask, Floats], tuple[Floats, Mask, Mask, Ints, Floats, Ints, int]]
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
