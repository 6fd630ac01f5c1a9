"""A tokenizer whose encoding only cuts a text: what it wrote is told by its length."""

from __future__ import annotations

import numpy as np
import pytest
import tiktoken

from mutual_env.types import Completion
from tests.tokenizers_bridge.published import loaded
from tokenizers_bridge import Tokenizer, TokenizerBridge
from tokenizers_bridge.edits import NO_EDITS
from tokenizers_bridge.kinds.tiktokens import from_tiktoken
from tokenizers_bridge.translation.align import Alignment

BYTES = {bytes([i]): i for i in range(256)}


def of_pattern(pattern: str, name: str) -> Tokenizer:
    return from_tiktoken(tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=BYTES, special_tokens={"<eos>": 256}))


def said(text: str, author: Tokenizer) -> Completion:
    ids = np.append(author.encode_batch([text])[0], np.int32(author.stop_id))
    return Completion(text, ids, -np.ones(ids.size), "stop", 0, author.fingerprint)


@pytest.mark.real_tokenizers
@pytest.mark.parametrize(
    ("name", "verbatim"), [("llama3", True), ("deepseek", True), ("qwen", False), ("gemma3", False)]
)
def test_which_kinds_change_nothing(name: str, verbatim: bool) -> None:
    assert loaded(name).verbatim is verbatim  # type: ignore[attr-defined]


def test_a_pattern_that_leaves_text_out_is_found_by_its_length() -> None:
    author, reader = of_pattern(r"(?s).", "all"), of_pattern(r"[^\d]+", "no digits")
    assert reader.verbatim  # type: ignore[attr-defined]
    whole, lost = TokenizerBridge([author, reader]).translate([said("abc", author), said("a1c", author)], reader)
    assert (whole.verdict, whole.action) == ("exact", "accept")
    assert lost.action == "reject"
    assert lost.reason


def test_chunk_sums_are_those_of_reduceat_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        counts = rng.choice([1, 1, 1, 2, 3, 5, 9, 20], rng.integers(1, 60))
        ends = counts.cumsum()
        values = -rng.exponential(1.0, ends[-1]) * 10.0 ** rng.integers(-8, 8, ends[-1])
        chunks = Alignment.of(ends, ends, np.ones(ends.size, np.bool_), NO_EDITS)
        assert chunks.chunk_sums(values).tobytes() == np.add.reduceat(values, ends - counts).tobytes()
