"""A batch is translated as one block. Each row must come out as it would alone, bit for bit."""

import pickle
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from mutual_env.errors import MutualEnvError
from mutual_env.types import Completion, Ids
from tests.tokenizers_bridge.corpus import random_text
from tests.tokenizers_bridge.fuzz import Author
from tests.tokenizers_bridge.reference import completion_of
from tests.tokenizers_bridge.test_bridge_loading import byte_level, unigram
from tokenizers_bridge import ACTIONS, CharTokenizer, Tokenizer, TokenizerBridge, Translation, WordTokenizer, load
from tokenizers_bridge.declaration import Boundary
from tokenizers_bridge.translation.encodings import Encodings, by_sort
from tokenizers_bridge.translation.facts import TokenizerFacts
from tokenizers_bridge.translation.reading import reading_of
from tokenizers_bridge.translation.short_chunks import translate_one
from tokenizers_bridge.translation.source import Source, source_of_text, source_of_trace
from tokenizers_bridge.types import Block, Ints

ARRAYS = ("token_ids", "logprobs", "exact", "author_ends", "reader_ends", "chunk_exact")
REST = ("residual", "verdict", "action", "has_logprobs", "reason")


class ThirdParty:
    """A tokenizer that has the protocol and nothing more."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        for name in ("vocab_size", "specials", "stop_id", "encode_batch", "decode", "token_bytes", "byte_lengths"):
            setattr(self, name, getattr(tokenizer, name))
        self.declaration = tokenizer.declaration  # type: ignore[attr-defined]
        self.fingerprint = "third " + tokenizer.fingerprint


class Thinker(ThirdParty):
    """One whose prompt has opened a thought."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.declaration = replace(self.declaration, boundary=Boundary(opening=OPENING, closing=CLOSING))
        self.fingerprint = "thinks " + tokenizer.fingerprint


class AbleThirdParty(ThirdParty):
    """One that can compare too, and counts how often it is asked."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.asked = 0
        self._of = tokenizer

    def misspelled(self, ids: Ids, starts: Ints, lengths: Ints, data: bytes) -> Ints:
        self.asked += 1
        return self._of.misspelled(ids, starts, lengths, data)  # type: ignore[attr-defined, no-any-return]


OPENING, CLOSING = "<think>\n", "\n</think>\n\n"


def composing() -> tokenizers.Tokenizer:
    built = byte_level(("h", "e"), ("e", "l"), ("Ġ", "w"))
    built.normalizer = tokenizers.normalizers.NFC()
    return built


WORD = WordTokenizer(["the ", "hello", " world", "日本", "é", "def f(x):\n", "        return x"])
TOKENIZERS: list[Tokenizer] = [
    WORD,
    WordTokenizer(["ab", "\n  ", " x", "日", "<|im_start|>"]),
    CharTokenizer("abcdefghijklmnopqrstuvwxyz 0123456789+=.<>|_\n"),
    load(composing()),
    load(unigram(byte_fallback=True)),  # a prefix space
    ThirdParty(load(unigram(byte_fallback=True, prepend="first"))),  # type: ignore[list-item]
    ThirdParty(WORD),  # type: ignore[list-item]
    Thinker(WordTokenizer(["<think>", "</think>", "\n\n", "hello"])),  # type: ignore[list-item]
]
BY_FINGERPRINT = {tokenizer.fingerprint: tokenizer for tokenizer in TOKENIZERS}
AUTHORS = [Author(tokenizer) for tokenizer in TOKENIZERS]
texts = st.lists(
    st.one_of(
        st.sampled_from(["hello world", "the ", " hello", "", "日本é", "e\u0301 the", "<eos>", "        return x"]),
        st.sampled_from(["<think>hello\n</think>\n\nthe", "<think>\n", " <think>", "\n</think>\n\nx"]),
        st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12),
        st.integers(0, 2**32).map(lambda seed: random_text(random.Random(seed))),
    ),
    min_size=1,
    max_size=12,
)


def batch_of(written: Sequence[str], seed: int) -> list[Completion]:
    """Mostly what a policy samples, from several authors; now and then text alone, or a row that must be refused."""
    rng = random.Random(seed)
    several = rng.sample(AUTHORS, 3)
    rows = []
    for text in written:
        author = rng.choice(several)
        (ids,) = author.tokenizer.encode_batch([text])
        kind = rng.random()
        if kind < 0.6:
            rows.append(completion_of(author.tokenizer, [*ids.tolist(), author.tokenizer.stop_id], "stop", seed))
        elif kind < 0.9:
            rows.append(author.sample(rng, np.random.default_rng(seed), ids.tolist()))
        elif kind < 0.94:
            rows.append(Completion.from_text(text))
        elif kind < 0.97:
            rows.append(completion_of(WORD, [2], "length"))
            object.__setattr__(rows[-1], "token_ids", np.array([WORD.vocab_size + 5], np.int32))
        elif kind < 0.98:
            rows.append(Completion(text, ids, np.full(ids.size, -np.inf), "length", 0, author.tokenizer.fingerprint))
        else:  # of the same length as what the ids spell, and yet not that
            other = text[:-1] + ("?" if text[-1:].isascii() else text[-1:])
            rows.append(Completion(other, ids, np.zeros(ids.size), "length", 0, author.tokenizer.fingerprint))
    return rows


def author_of(row: Completion) -> TokenizerFacts | None:
    return TokenizerFacts.of(BY_FINGERPRINT[row.tokenizer]) if row.has_trace else None


def source_of(row: Completion) -> Source | str:
    """What there is to translate, or why there is nothing."""
    try:
        author = author_of(row)
        return source_of_text(row) if author is None else source_of_trace(row, author, "trim")
    except MutualEnvError as error:
        return str(error)


def assert_same(one: Translation, other: Translation) -> None:
    for name in ARRAYS:
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype, name
        assert left.tobytes() == right.tobytes(), (name, one, other)
        assert not left.flags.writeable
    for name in REST:
        assert getattr(one, name) == getattr(other, name), (name, one, other)


@given(texts, st.integers(0, 2**32), st.sampled_from(TOKENIZERS), st.sampled_from([0, 1280, 1 << 20]))
@settings(max_examples=150, deadline=None)
def test_a_block_gives_each_row_what_it_gets_alone(
    written: list[str], seed: int, reader: Tokenizer, cache_bytes: int
) -> None:
    rows = batch_of(written, seed)
    together = TokenizerBridge(TOKENIZERS, cache_bytes).translate(rows, reader)
    for row, translation in zip(rows, together, strict=True):
        (alone,) = TokenizerBridge(TOKENIZERS, 0).translate([row], reader)
        assert_same(translation, alone)


@given(texts, st.integers(0, 2**32), st.sampled_from(TOKENIZERS))
@settings(max_examples=150, deadline=None)
def test_a_block_gives_each_row_what_the_general_way_gives_it(written: list[str], seed: int, reader: Tokenizer) -> None:
    rows = [row for row in batch_of(written, seed) if row.tokenizer != reader.fingerprint]
    known = TokenizerFacts.of(reader)
    for row, translation in zip(rows, TokenizerBridge(TOKENIZERS).translate(rows, reader), strict=True):
        source = source_of(row)
        if isinstance(source, str):
            assert (translation.verdict, translation.reason) == ("failed", source)
        else:
            reading = reading_of(source, author_of(row), known, "keep")
            encodings = Encodings.of(by_sort(reading.wanted), known)
            block = translate_one(row, reading, author_of(row), known, encodings, ACTIONS)
            assert_same(translation, Translation(block, 0))


def test_rows_that_fit_are_one_block_and_the_others_one_each() -> None:
    good = [completion_of(WORD, [*ids.tolist(), 1], "stop") for ids in WORD.encode_batch(["hello", "the ", "x"])]
    cut = completion_of(WORD, [2 + 0xE6], "length")
    injected = completion_of(WORD, [*WORD.encode_batch(["<eos>"])[0].tolist(), 1], "stop")
    first, second, odd, spelled, third = TokenizerBridge(TOKENIZERS).translate(
        [*good[:2], cut, injected, good[2]], TOKENIZERS[1]
    )
    assert first.block is second.block is third.block
    assert len({id(t.block) for t in (first, odd, spelled)}) == 3
    assert [t.verdict for t in (first, odd, spelled)] == ["exact", "truncated", "injected-special"]


def test_text_that_differs_late_in_a_long_token_is_refused() -> None:
    # "        return x" is one token of 16 bytes
    ids = WORD.encode_batch(["        return x", "the        return x"])
    right = [completion_of(WORD, row) for row in ids]
    wrong = [Completion(c.text[:-1] + "y", c.token_ids, c.logprobs, "length", 0, c.tokenizer) for c in right]
    translations = TokenizerBridge(TOKENIZERS).translate([*right, *wrong], TOKENIZERS[1])
    assert [t.verdict for t in translations] == ["exact", "exact", "failed", "failed"]
    assert "not what its token_ids decode to" in translations[3].reason


def test_a_pickled_translation_carries_its_own_row_alone() -> None:
    rows = [completion_of(WORD, [*ids.tolist(), 1], "stop") for ids in WORD.encode_batch(["hello " * 9, "the end"])]
    translations = TokenizerBridge(TOKENIZERS).translate(rows, TOKENIZERS[4])
    for translation in translations:
        again = pickle.loads(pickle.dumps(translation))
        assert_same(translation, again)
        assert len(again.block.outcomes) == 1
        assert again.block.nbytes < translation.block.nbytes


def test_a_block_of_nothing_is_nothing() -> None:
    nothing = np.empty(0, np.int32)
    rows = [Completion("", nothing, np.empty(0), "length", 0, t.fingerprint) for t in TOKENIZERS]
    for reader in TOKENIZERS:
        for translation in TokenizerBridge(TOKENIZERS).translate(rows, reader):
            assert_same(translation, Translation(Block.without_chunks(nothing, 0, translation.block.outcomes[0]), 0))
            assert translation.verdict == "exact"
    assert TokenizerBridge(TOKENIZERS).translate([], WORD) == []


def test_a_third_partys_tokenizer_compares_by_itself_where_it_can() -> None:
    able, plain = AbleThirdParty(WORD), WORD
    reader = WordTokenizer(["hello", " wor"])
    ids = np.append(plain.encode_batch(["the hello world"])[0], plain.stop_id)
    rows = []
    for author in (able, plain):
        said = Completion("the hello world", ids, np.full(ids.size, -0.5), "stop", 0, author.fingerprint)
        rows.append(TokenizerBridge([author, reader]).translate([said] * 3, reader)[2])  # type: ignore[list-item]
    assert able.asked == 1  # one call for the batch
    assert rows[0].token_ids.tolist() == rows[1].token_ids.tolist()
    assert rows[0].verdict == rows[1].verdict == "exact"


def test_who_says_nothing_says_nothing_in_a_thought_either() -> None:
    thinker, bridge = TOKENIZERS[-1], TokenizerBridge(TOKENIZERS)
    silent = completion_of(WORD, [WORD.stop_id], "stop")
    torn = completion_of(WORD, [2 + 0xFF, *WORD.encode_batch(["hello"])[0].tolist()])
    for rows in ([silent], [torn], [silent, torn]):  # as a block, one by one, both
        for row, read in zip(rows, bridge.translate(rows, thinker), strict=True):
            rest = b"" if row is silent else b"\xffhello"
            assert thinker.token_bytes(read.token_ids) == CLOSING.encode() + rest
            assert (read.verdict, read.residual.unmatched_bytes) == ("normalised", len(CLOSING))
            assert read.chunk_exact.tolist() == ([False] if row is silent else [False, True])
            assert np.isclose(read.logprobs.sum(), row.logprobs.sum())
    thought = completion_of(thinker, [thinker.stop_id], "stop")
    (there,) = bridge.translate([thought], WORD)
    assert (WORD.decode(there.token_ids), there.verdict) == (OPENING, "normalised")
    cut = completion_of(thinker, [])
    (there,) = bridge.translate([cut], WORD)
    assert (there.token_ids.size, there.verdict) == (0, "exact")
