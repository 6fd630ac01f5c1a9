"""The bridge's promises, worked out one token at a time: slow, obvious, and independent of the library's arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mutual_env.types import Completion, FinishReason
from tokenizers_bridge import Alignment, Tokenizer


def common_borders(author: Sequence[bytes], reader: Sequence[bytes]) -> list[tuple[int, int]]:
    """How many tokens of each side lie before each shared border, for two lists of non-empty pieces of equal bytes."""
    assert b"".join(author) == b"".join(reader)
    borders, a, r, at_a, at_r = [], 0, 0, 0, 0
    while a < len(author) or r < len(reader):
        if at_a <= at_r:
            at_a += len(author[a])
            a += 1
        else:
            at_r += len(reader[r])
            r += 1
        if at_a == at_r:
            borders.append((a, r))
    return borders


def completion_of(
    tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray, finish_reason: FinishReason = "length", seed: int = 0
) -> Completion:
    """What a policy with this tokenizer would have handed over, with made-up log-probabilities."""
    sampled = np.asarray(ids, np.int32)
    logprobs = -np.random.default_rng(seed).exponential(1.0, sampled.size)
    text = tokenizer.decode(sampled)
    return Completion(text, sampled, logprobs, finish_reason, 0, tokenizer.fingerprint)


def spans(ends: np.ndarray) -> list[tuple[int, int]]:
    return list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)) if ends.size else []


def pieces_of(tokenizer: Tokenizer, ids: np.ndarray) -> list[bytes]:
    """The bytes of each token."""
    data = tokenizer.token_bytes(ids)
    return [data[a:b] for a, b in spans(np.cumsum(tokenizer.byte_lengths(ids)))]


def assert_alignment_holds(
    alignment: Alignment, author: Tokenizer, author_ids: np.ndarray, reader: Tokenizer, reader_ids: np.ndarray
) -> None:
    """Borders rise on both sides and cover all tokens; exact chunks are the same bytes; no exact chunk could be cut
    further."""
    ends_a, ends_r = alignment.author_ends, alignment.reader_ends
    if not author_ids.size or not reader_ids.size:
        assert not alignment.exact.any()
        return
    assert np.all(np.diff(ends_a, prepend=0) > 0)
    assert np.all(np.diff(ends_r, prepend=0) > 0)
    assert (ends_a[-1], ends_r[-1]) == (author_ids.size, reader_ids.size)
    inexact = 0
    spelled_a, spelled_r = pieces_of(author, author_ids), pieces_of(reader, reader_ids)
    for (a0, a1), (r0, r1), exact in zip(spans(ends_a), spans(ends_r), alignment.exact, strict=True):
        pieces_a, pieces_r = spelled_a[a0:a1], spelled_r[r0:r1]
        if not exact:
            inexact += 1
            continue
        assert b"".join(pieces_a) == b"".join(pieces_r)
        if all(pieces_a) and all(pieces_r):
            assert common_borders(pieces_a, pieces_r) == [(a1 - a0, r1 - r0)]
        else:  # paired control tokens stand alone
            assert (a1 - a0, r1 - r0) == (1, 1)
    assert inexact <= len(alignment.edits) + sum(alignment.unpaired)


def assert_sums_hold(
    alignment: Alignment, author_logprobs: np.ndarray, n_reader: int, own: np.ndarray | None = None
) -> None:
    """Chunk sums and carried log-probabilities add up to what the author had, to 1e-9 of it."""
    total = author_logprobs.sum()
    sums = alignment.chunk_sums(author_logprobs)
    assert np.isclose(sums.sum(), total, rtol=1e-9, atol=1e-12)
    if own is not None:
        assert np.isclose(alignment.chunk_sums(own, "reader").sum(), own.sum(), rtol=1e-9, atol=1e-12)
    for share in (None, own):
        carried, exact = alignment.carry(author_logprobs, share)
        assert carried.shape == exact.shape == (n_reader,)
        if n_reader and author_logprobs.size:
            assert np.isclose(carried.sum(), total, rtol=1e-9, atol=1e-12)
            assert np.allclose(alignment.chunk_sums(carried, "reader"), sums, rtol=1e-9, atol=1e-12)
