"""The checks that the fuzzer makes of many rows at once see a promise that is broken in one row of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mutual_env.types import Completion
from tests.tokenizers_bridge.fuzz import Author
from tests.tokenizers_bridge.promises import check_rows
from tokenizers_bridge import TokenizerBridge, Translation, WordTokenizer
from tokenizers_bridge.types import Block

WORDS = WordTokenizer(["hello", " world", "he", "llo", "an", " answer"])
OTHERS = WordTokenizer(["hel", "lo", " wor", "ld", " answer"])
TEXTS = ("hello world", "an answer, 42", "hello hello world")
BROKEN = 20


def batch() -> tuple[list[Completion], list[Translation]]:
    rng, draws = random.Random(1), np.random.default_rng(1)
    author = Author(WORDS)
    rows = [author.sample(rng, draws, ids.tolist()) for ids in WORDS.encode_batch(TEXTS * 15)]
    (whole,) = WORDS.encode_batch(["hello world"])
    ids = np.append(whole, np.int32(WORDS.stop_id))
    rows[BROKEN] = Completion("hello world", ids, -draws.exponential(1.0, ids.size), "stop", 0, WORDS.fingerprint)
    return rows, TokenizerBridge([WORDS, OTHERS]).translate(rows, OTHERS)


def put(name: str, at: int, value: object) -> Callable[[Block], Block]:
    def broken(block: Block) -> Block:
        array = getattr(block, name).copy()
        array[at] = value
        return replace(block, **{name: array})

    return broken


def merged(block: Block) -> Block:
    """Two chunks as one: every sum still holds, but it could be cut further."""
    ends = [np.delete(ends, 0) for ends in (block.author_ends, block.reader_ends)]
    exact, at = np.delete(block.chunk_exact, 0), block.chunk_at - [0, 1]
    return replace(block, author_ends=ends[0], reader_ends=ends[1], chunk_exact=exact, chunk_at=at)


def said(**changes: object) -> Callable[[Block], Block]:
    return lambda block: replace(block, outcomes=(replace(block.outcomes[0], **changes),))


def test_what_the_bridge_translates_holds() -> None:
    rows, translations = batch()
    assert translations[BROKEN].verdict == "exact"
    assert translations[BROKEN].chunk_exact.size > 2
    check_rows(rows, WORDS, OTHERS, translations)


@pytest.mark.parametrize(
    "broken",
    [
        put("token_ids", 1, OTHERS.encode_batch(["x"])[0][0]),
        put("token_ids", 1, OTHERS.stop_id),
        put("token_ids", -1, OTHERS.encode_batch(["x"])[0][0]),
        put("logprobs", 0, -17.0),
        put("exact", 0, False),
        put("chunk_exact", 0, False),
        put("reader_ends", 0, 1),
        put("author_ends", -1, 1),
        put("unmatched_bytes", 0, 1),
        merged,
        said(has_logprobs=False),
        said(verdict="failed"),
        said(action="reject"),
    ],
    ids=lambda broken: getattr(broken, "__qualname__", "").split(".")[0],
)
def test_one_broken_row_is_seen_among_sound_ones(broken: Callable[[Block], Block]) -> None:
    rows, translations = batch()
    (translations[BROKEN],) = broken(translations[BROKEN].block.only(translations[BROKEN].row)).translations()
    with pytest.raises(AssertionError):
        check_rows(rows, WORDS, OTHERS, translations)
