"""Vocabularies in terms of one another, distributions on the other's tokens, and what a model says of bytes."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import tokenizers
from tokenizers import models

from benchmarks import tables
from benchmarks.gold import gold_table
from benchmarks.vocabularies import overlap_table
from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids
from tests.tokenizers_bridge.published import loaded
from tests.tokenizers_bridge.test_bridge_loading import byte_level, unigram
from tokenizers_bridge import (
    CharTokenizer,
    PairTokenizer,
    Spellings,
    Tokenizer,
    VocabularyMap,
    WordTokenizer,
    first_bytes,
    load,
    marginal,
)
from tokenizers_bridge.kinds.vocabulary import Vocabulary

WORDS = WordTokenizer(["hello", " hello", "lo"])
PAIRS = PairTokenizer("helo ", [("h", "e"), ("l", "l")])


def pieces_of(tokenizer: Tokenizer) -> list[bytes]:
    return [tokenizer.token_bytes([i]) for i in range(tokenizer.vocab_size)]


def assert_maps(author: Tokenizer, reader: Tokenizer) -> VocabularyMap:
    """What is paired has equal bytes, and what is not has none in the other vocabulary: looked up one by one."""
    mapped = VocabularyMap.of(author, reader)
    mine, theirs = pieces_of(author), pieces_of(reader)
    known = set(theirs)
    for i, (piece, there) in enumerate(zip(mine, mapped.to_reader.tolist(), strict=True)):
        if piece:
            assert (there >= 0) is (piece in known), (i, piece)
            assert there < 0 or theirs[there] == piece
        elif there >= 0:
            stops = ("eos", "end_of_turn")
            assert (author.specials[i] in stops and there == reader.stop_id) or reader.specials[there] == "bos"
    return mapped


def test_ids_of_any_two_kinds_pair_where_their_bytes_are_equal() -> None:
    kinds = [load(byte_level(("h", "e"), ("Ġ", "he"))), load(unigram(byte_fallback=True)), WORDS, PAIRS]
    for author, reader in product(kinds, kinds):
        assert_maps(author, reader)
    level, pieces = kinds[:2]
    ids = {piece: i for i, piece in enumerate(pieces_of(pieces)) if piece}
    to_pieces = VocabularyMap.of(level, pieces).to_reader
    (newline,) = level.encode_batch(["\n"])[0].tolist()
    assert to_pieces[newline] == ids[b"\n"]  # Ċ and <0x0A>
    assert to_pieces[level.stop_id] == pieces.stop_id


def test_of_two_ids_with_the_same_bytes_the_one_that_a_text_becomes_is_taken() -> None:
    pieces = load(unigram(byte_fallback=True))  # has "a" and <0x61>
    doubled = [i for i, piece in enumerate(pieces_of(pieces)) if piece == b"a"]
    assert len(doubled) == 2
    (own,) = pieces.encode_continuations(["a"])[0].tolist()  # type: ignore[attr-defined]
    chars = CharTokenizer("ab")
    assert VocabularyMap.of(chars, pieces).to_reader[2] == own
    there = VocabularyMap.of(pieces, chars)
    assert [there.to_reader[i] for i in doubled] == [2, 2]
    # A teacher that gives 0.3 to one and 0.2 to the other has given 0.5 to the letter.
    for top_k in (None, 3):
        logprobs = np.full(pieces.vocab_size, -np.inf)
        logprobs[doubled] = np.log([0.3, 0.2])
        found = there.project(logprobs, top_k=top_k)
        assert found.dense()[2] == pytest.approx(0.5)
        assert sorted(found.ids[found.ids >= 0].tolist()).count(2) == 1


class Doubled(WordTokenizer):
    """Has "A" twice, of which a text becomes the second, and twice the same behind half a character."""

    def __init__(self) -> None:
        super().__init__(["Az"])
        pieces = [*pieces_of(self)[:-1], b"A", b"\xffA", b"\xffA"]
        self._vocabulary = Vocabulary.of(pieces, self.specials)

    def encode_continuations(self, texts: Sequence[str]) -> list[Ids]:
        own, (second,) = 2 + ord("A"), [i for i in range(258, self.vocab_size) if self.token_bytes([i]) == b"A"]
        return [np.where(row == own, second, row).astype(np.int32) for row in super().encode_continuations(texts)]


def test_a_doubled_piece_that_is_no_text_stands_in_nobodys_place() -> None:
    doubled = Doubled()
    (own,) = doubled.encode_continuations(["A"])[0].tolist()
    assert own > 257
    assert VocabularyMap.of(CharTokenizer("A"), doubled).to_reader[2] == own


def test_word_pieces_can_be_compared_though_nothing_is_translated_to_them() -> None:
    bert = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "hello": 1, "##lo": 2, "lo": 3}, unk_token="[UNK]"))
    mapped = VocabularyMap.of(bert, WORDS)
    texts = [b"" if i < 0 else WORDS.token_bytes([i]) for i in mapped.to_reader.tolist()]
    assert texts == [b"", b" hello", b"lo", b""]  # "lo" begins a word: " lo", which the other lacks
    assert VocabularyMap.of(WORDS, Spellings.of(bert)).overlap == 2 / WORDS.vocab_size
    with pytest.raises(InvalidInputError, match="cannot read a vocabulary from int"):
        VocabularyMap.of(3, WORDS)


def test_a_projection_says_what_it_kept_and_what_it_lost() -> None:
    # PAIRS: bos eos h e l o space he ll. WORDS lacks "he" and "ll"; "lo" has no counterpart in PAIRS.
    mapped = VocabularyMap.of(PAIRS, WORDS)
    probabilities = np.array([0.0, 0.1, 0.2, 0.05, 0.05, 0.1, 0.0, 0.3, 0.2])
    with np.errstate(divide="ignore"):
        found = mapped.project(np.log(probabilities)[None])
    assert found.kept == pytest.approx([0.5])  # eos h e l o
    assert found.lost == pytest.approx([0.5])  # he ll
    dense = found.dense()[0]
    assert dense[WORDS.stop_id] == pytest.approx(0.1)
    assert dense[WORDS.encode_batch(["h"])[0][0]] == pytest.approx(0.2)
    assert found.dense(normalise=True).sum() == pytest.approx(1.0)
    with np.errstate(divide="ignore"):
        two = mapped.project(np.log(probabilities), top_k=2)  # he .3, then one of .2
    assert two.lost + two.kept == pytest.approx(0.5)
    assert two.beyond == pytest.approx(0.5)
    # The same from the ids and log-probabilities that an engine returns.
    ids = np.array([[7, 2, 1]])
    sparse = mapped.project(np.log(probabilities[ids]), ids)
    assert (sparse.lost[0], sparse.kept[0], sparse.beyond[0]) == pytest.approx((0.3, 0.3, 0.4))
    assert mapped.project(np.log(probabilities[ids]), ids, top_k=1).ids.tolist() == [[-1]]
    with pytest.raises(InvalidInputError, match="must end in the author's 9 ids"):
        mapped.project(np.zeros(12))
    with pytest.raises(InvalidInputError, match="top_k must be 1 or more, got 0"):
        mapped.project(np.zeros(9), top_k=0)


@pytest.mark.torch
def test_tensors_are_projected_to_the_same_numbers_with_gradients() -> None:
    torch = pytest.importorskip("torch")
    pieces = load(unigram(byte_fallback=True))
    mapped = VocabularyMap.of(pieces, WORDS)
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, pieces.vocab_size))).requires_grad_()
    for top_k in (None, 7):
        found = mapped.project(logits.log_softmax(-1), top_k=top_k)
        same = mapped.project(logits.log_softmax(-1).detach().numpy(), top_k=top_k)
        assert np.allclose(found.dense(normalise=True).detach().numpy(), same.dense(normalise=True))
        for name in ("kept", "lost", "beyond"):
            assert np.allclose(getattr(found, name).detach().numpy(), getattr(same, name))
    weights = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 3, WORDS.vocab_size)))
    work = lambda x: (mapped.project(x.log_softmax(-1)).dense() * weights).sum()  # noqa: E731
    assert torch.autograd.gradcheck(work, (logits,))
    assert mapped.project(logits.log_softmax(-1).bfloat16()).dense().dtype is torch.float32
    firsts = first_bytes(logits.softmax(-1), pieces)
    assert np.allclose(firsts.detach().numpy(), first_bytes(logits.softmax(-1).detach().numpy(), pieces))
    assert torch.autograd.gradcheck(lambda x: first_bytes(x.softmax(-1), pieces), (logits[:1, :1],))


class Model:
    """A next-token distribution for each context of ids, drawn from a seed of the context."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.size = tokenizer.vocab_size
        self.asked = 0

    def __call__(self, contexts) -> np.ndarray:
        self.asked += len(contexts)
        logits = np.stack([np.random.default_rng([7, *ids]).normal(size=self.size) for ids in contexts])
        logits[:, 0] = -np.inf  # bos does not come again
        return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


AB = PairTokenizer("ab", [("a", "b"), ("ab", "a"), ("b", "b")])


def brute(window: bytes, model: Model, tokenizer: Tokenizer) -> float:
    """The probability of every token sequence that spells the window or into it, one by one."""

    def covered(ids: tuple[int, ...], data: bytes) -> float:
        if data[: len(window)] == window:
            return 1.0
        if not window.startswith(data):
            return 0.0
        row = np.exp(model([ids])[0])
        tokens = [(i, tokenizer.token_bytes([i])) for i in range(2, tokenizer.vocab_size)]
        return sum(float(row[i]) * covered((*ids, i), data + piece) for i, piece in tokens)

    return covered((), b"")


def test_the_probability_of_bytes_is_the_sum_over_all_ways_to_cut_them() -> None:
    model = Model(AB)
    for window in (b"a", b"ab", b"abab", b"bba", b"abbabb"):
        found = marginal(window, model, AB)
        assert np.exp(found.logprob) == pytest.approx(brute(window, model, AB), rel=1e-12)
    # abab: a|b|a|b, a|b|ab, ab|a|b, ab|ab, aba|b
    assert len(marginal(b"abab", model, AB).cuts) == 5
    # All windows of n bytes, and the texts that end before: one of them comes to pass.
    ended = np.exp(model([()])[0][1]) + sum(
        np.exp(model([()])[0][i] + model([(i,)])[0][1]) for i in (2, 3)
    )  # nothing, or one byte
    windows = [np.exp(marginal(bytes(w), model, AB).logprob) for w in product(b"ab", repeat=2)]
    assert sum(windows) + ended == pytest.approx(1.0, rel=1e-12)


def test_the_next_byte_is_exact_from_one_distribution() -> None:
    model = Model(AB)
    bytes_ = first_bytes(np.exp(model([()])), AB)[0]
    assert bytes_[ord("a")] == pytest.approx(np.exp(marginal(b"a", model, AB).logprob))
    assert bytes_[256] == pytest.approx(np.exp(model([()])[0][1]))
    assert bytes_.sum() == pytest.approx(1.0)


def test_a_window_is_short_and_says_so() -> None:
    with pytest.raises(InvalidInputError, match=r"window has 17 bytes: give 1 to 16"):
        marginal(b"a" * 17, Model(AB), AB)
    with pytest.raises(InvalidInputError, match="more than 8 token prefixes: shorten it"):
        marginal(b"ababab", Model(AB), AB, most=8)
    assert marginal(b"abc", Model(AB), AB).logprob == -np.inf  # no token of its has a c


@pytest.mark.long
@pytest.mark.real_tokenizers
def test_published_vocabularies_pair_by_bytes_whatever_they_write_for_them() -> None:
    level, pieces = loaded("deepseek"), loaded("mistral-spm")
    assert assert_maps(pieces, level).overlap > 0.8
    text = ["Let x be the number of apples, so that 3x + 7 = 52."]
    assert VocabularyMap.of(level, pieces).overlap_of(level.encode_batch(text)) > 0.6


def test_the_tables_of_the_documentation_are_the_measured_ones() -> None:
    assert tables.is_current("bridge.md", "overlap", overlap_table(tables.figures("vocabularies")["overlap"]))
    assert tables.is_current("bridge.md", "gold", gold_table(tables.figures("gold")["teachers"]))
