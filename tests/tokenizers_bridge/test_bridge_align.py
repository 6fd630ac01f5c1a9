import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutual_env.errors import IdentityMismatchError, InvalidInputError, MisalignedError
from tests.tokenizers_bridge.reference import assert_alignment_holds, assert_sums_hold, common_borders
from tokenizers_bridge import PairTokenizer, WordTokenizer, align

LETTERS = "abcde "
FINE = PairTokenizer(LETTERS, [])
COARSE = PairTokenizer(LETTERS, [("a", "b"), ("ab", "c"), (" ", "a"), ("d", "e")])
BYTES = WordTokenizer(["ab", "cab", " a", "de a", "é", "日本", "e\u0301"])
OTHER = WordTokenizer(["abc", "bc", "a ", "é", "本", "\u0301"])
TOYS = [FINE, COARSE, BYTES, OTHER]


def test_borders_are_where_both_sides_end_a_token() -> None:
    # author ab|cab|c and reader abc|a|bc: ends 2,5,6 and 3,4,6, so the only border is 6.
    author = [BYTES.encode_batch([t])[0][0] for t in ("ab", "cab", "c")]
    reader = [OTHER.encode_batch([t])[0] for t in ("abc", "a", "bc")]
    alignment = align(author, BYTES, np.concatenate(reader), OTHER)
    assert (alignment.author_ends.tolist(), alignment.reader_ends.tolist()) == ([3], [3])
    assert alignment.exact.tolist() == [True]


def test_a_chunk_total_is_spread_evenly_or_in_proportion() -> None:
    # author: "abc" as one token of -6, then " " of -1; reader: a, b, c, " ".
    author = COARSE.encode_batch(["abc "])[0]
    reader = FINE.encode_batch(["abc "])[0]
    alignment = align(author, COARSE, reader, FINE)
    even, exact = alignment.carry(np.array([-6.0, -1.0]))
    assert even.tolist() == [-2.0, -2.0, -2.0, -1.0]
    assert exact.all()
    # own -1, -2, -3, -5: shares 1/6, 2/6, 3/6 of -6, and all of -1.
    proportional, _ = alignment.carry(np.array([-6.0, -1.0]), np.array([-1.0, -2.0, -3.0, -5.0]))
    assert np.allclose(proportional, [-1.0, -2.0, -3.0, -1.0])
    # own adds up to 0 in the first chunk: evenly again.
    flat, _ = alignment.carry(np.array([-6.0, -1.0]), np.array([0.0, 0.0, 0.0, -5.0]))
    assert np.allclose(flat, [-2.0, -2.0, -2.0, -1.0])


def test_bytes_that_differ_cost_one_chunk_and_leave_the_rest_exact() -> None:
    # "ab d" against "ab e": a|b|space stay exact, d|e is one chunk that is not.
    alignment = align(FINE.encode_batch(["ab d"])[0], FINE, BYTES.encode_batch(["abXe"])[0], BYTES)
    assert alignment.exact.tolist() == [True, False]
    assert alignment.author_ends.tolist() == [2, 4]
    alignment = align(FINE.encode_batch(["ab da"])[0], FINE, BYTES.encode_batch(["ab ea"])[0], BYTES)
    assert alignment.exact.tolist() == [True, True, False, True]
    assert alignment.edits.unmatched_bytes == 2
    assert not alignment.edits.declared


def test_stop_tokens_pair_and_other_control_tokens_make_their_chunk_inexact() -> None:
    text = FINE.encode_batch(["ab"])[0].tolist()
    same = COARSE.encode_batch(["ab"])[0].tolist()
    stopped = align([*text, FINE.stop_id], FINE, [*same, COARSE.stop_id], COARSE)
    assert stopped.exact.tolist() == [True, True]
    assert stopped.unpaired == (0, 0)
    # a bos in the middle of the author's tokens has no partner: it spoils the chunk that it stands in.
    lonely = align([text[0], 0, text[1]], FINE, same, COARSE)
    assert lonely.exact.tolist() == [False]
    assert lonely.unpaired == (1, 0)
    # only the author has a stop token: it goes with the last chunk, so that sums stay whole.
    one_sided = align([*text, FINE.stop_id], FINE, same, COARSE)
    assert one_sided.exact.tolist() == [False]
    assert one_sided.carry(np.array([-1.0, -2.0, -3.0]))[0].tolist() == [-6.0]


def test_an_empty_side_gives_nothing_to_compare() -> None:
    ids = FINE.encode_batch(["ab"])[0]
    none = np.empty(0, np.int32)
    assert align(none, FINE, ids, COARSE).carry(np.empty(0))[0].tolist() == [0.0, 0.0]
    assert not align(none, FINE, ids, COARSE).exact.any()
    assert align(ids, FINE, none, COARSE).carry(np.array([-1.0, -1.0]))[0].size == 0
    assert align(ids, FINE, none, COARSE).chunk_sums(np.array([-1.0, -1.0])).sum() == -2.0
    assert align(none, FINE, none, COARSE).exact.size == 0


def test_bad_input_is_refused_with_a_sentence() -> None:
    ids = FINE.encode_batch(["ab"])[0]
    with pytest.raises(IdentityMismatchError, match="token id 99999 is outside this vocabulary"):
        align([99999], FINE, ids, COARSE)
    with pytest.raises(IdentityMismatchError, match="token id -1 is outside"):
        align(ids, FINE, [-1], COARSE)
    with pytest.raises(IdentityMismatchError, match="outside"):
        align([77], FINE, [77], FINE)
    alignment = align(ids, FINE, ids, FINE)
    with pytest.raises(
        MisalignedError, match="chunk_sums values must align with the author's tokens: got 3, expected 2"
    ):
        alignment.chunk_sums(np.zeros(3))
    with pytest.raises(InvalidInputError, match="finite"):
        alignment.carry(np.zeros(2), np.array([np.nan, 0.0]))


pieces = st.lists(st.sampled_from([b"a", b"bc", b"\xc3", b"\xa9", "日".encode(), b" ", b"\n\n", b"\xff"]), min_size=1)


@given(pieces, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_any_two_cuts_of_the_same_bytes_align_as_a_walk_along_both_would(tokens: list[bytes], random) -> None:
    data = b"".join(tokens)
    cuts = sorted(random.sample(range(1, len(data)), random.randint(0, len(data) - 1))) if len(data) > 1 else []
    other = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    author, reader = _Pieces(tokens), _Pieces(other)
    alignment = align(author.ids, author, reader.ids, reader)
    borders = list(zip(alignment.author_ends.tolist(), alignment.reader_ends.tolist(), strict=True))
    assert borders == common_borders(tokens, other)
    assert alignment.exact.all()


@given(st.lists(st.integers(0, 10_000), max_size=40), st.lists(st.integers(0, 10_000), max_size=40), st.data())
@settings(max_examples=300, deadline=None)
def test_any_ids_of_any_pair_align_and_keep_their_sums(left: list[int], right: list[int], data) -> None:
    author, reader = data.draw(st.sampled_from(TOYS)), data.draw(st.sampled_from(TOYS))
    ids_a = np.array(left, np.int32) % author.vocab_size
    ids_r = np.array(right, np.int32) % reader.vocab_size
    if data.draw(st.booleans()):
        ids_r = reader.encode_batch([author.decode(ids_a)])[0]
    alignment = align(ids_a, author, ids_r, reader)
    if author is not reader or not np.array_equal(ids_a, ids_r):
        assert_alignment_holds(alignment, author, ids_a, reader, ids_r)
    rng = np.random.default_rng(len(left))
    assert_sums_hold(alignment, -rng.exponential(1, ids_a.size), ids_r.size, -rng.exponential(1, ids_r.size))


class _Pieces:
    """A vocabulary that is one list of pieces, in order: the least that `align` asks of a tokenizer."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.ids = np.arange(len(pieces), dtype=np.int32)
        self.fingerprint = str(id(self))
        self.specials: dict[int, str] = {}

    def token_bytes(self, ids) -> bytes:
        return b"".join(self.pieces[i] for i in ids)

    def byte_lengths(self, ids) -> np.ndarray:
        return np.array([len(self.pieces[i]) for i in ids], np.int64)
