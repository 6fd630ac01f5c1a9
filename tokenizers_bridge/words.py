"""Bytes compared eight at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokenizers_bridge.loops import Bytes, Words
from tokenizers_bridge.types import Ints

WORD = 8
# By how many bytes a token has, eight or more: what cuts eight bytes to as many.
MASKS = np.array([(1 << (8 * n)) - 1 for n in range(WORD + 1)], np.uint64)


def words_of(data: Bytes) -> Words:
    """The eight bytes from each place on, the one behind the end included, as one number; zeros follow the data."""
    padded = np.concatenate([data, np.zeros(WORD, np.uint8)])
    return np.ndarray((data.size + 1,), "<u8", padded, strides=(1,))


def heads_of(blob: Bytes, starts: Ints, lengths: npt.NDArray[np.signedinteger]) -> Words:
    """The first eight bytes of each piece as one number, zeros behind a shorter one."""
    heads: Words = words_of(blob).take(starts) & MASKS.take(lengths, mode="clip")
    return heads
