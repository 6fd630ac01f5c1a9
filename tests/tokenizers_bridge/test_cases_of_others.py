"""What the tests of other aligners ask, asked here: TRL's GOLD, NVIDIA's NeMo RL (x_token), tokenkit.

Their cases, in this package's terms. Where the answer here is another one on purpose, the test says what theirs is.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.tokenizers_bridge.others import GOLD, NEMO, TOKENKIT
from tests.tokenizers_bridge.published import loaded
from tests.tokenizers_bridge.reference import completion_of
from tokenizers_bridge import (
    PairTokenizer,
    Spellings,
    Tokenizer,
    TokenizerBridge,
    VocabularyMap,
    WordTokenizer,
    align,
    align_batch,
)

WORDS = WordTokenizer(["Hello", " world", "llo", "He", "abc", "ab", "é"])
SPLIT = WordTokenizer(["He", "llo", " world", "ab", "abc"])
LETTERS = PairTokenizer("Helo wrd!", [])


def ids(tokenizer: Tokenizer, *pieces: str) -> list[int]:
    """The ids of these pieces, each one token; a control token by its spelling."""
    known = spellings(tokenizer)
    return [known[piece] for piece in pieces]


@cache
def spellings(tokenizer: Tokenizer) -> dict[str, int]:
    known = {piece.decode("utf-8", "replace"): i for piece, i in Spellings.of(tokenizer).ids_by_bytes().items()}
    return known | {text: i for i, text in tokenizer.declaration.control_texts.items()}  # type: ignore[attr-defined]


# NeMo RL: tests/unit/algorithms/x_token/test_token_aligner.py


def test_nemo_the_same_tokens_pair_one_by_one() -> None:
    row = ids(WORDS, "Hello", " world")
    alignment = align(row, WORDS, ids(WORDS, "Hello", " world"), WORDS)
    assert (alignment.author_counts.tolist(), alignment.reader_counts.tolist()) == ([1, 1], [1, 1])
    assert alignment.one_to_one.all()


def test_nemo_several_tokens_to_one() -> None:
    alignment = align(ids(SPLIT, "He", "llo"), SPLIT, ids(WORDS, "Hello"), WORDS)
    assert (alignment.author_ends.tolist(), alignment.reader_ends.tolist()) == ([2], [1])
    assert alignment.exact.tolist() == [True]


def test_nemo_coverage_that_differs_is_not_correct_on_either_side() -> None:
    # There: an orphan a side. Here: one chunk that is not exact, so that the sums stay whole.
    alignment = align(ids(SPLIT, "ab"), SPLIT, ids(WORDS, "abc"), WORDS)
    assert alignment.exact.tolist() == [False]
    assert alignment.chunk_sums(np.array([-2.0])).tolist() == [-2.0]


def test_nemo_beginnings_pair_by_role_whatever_their_spelling() -> None:
    alignment = align([0, *ids(WORDS, "Hello")], WORDS, [0, *ids(LETTERS, *"Hello")], LETTERS)
    assert (alignment.author_counts.tolist(), alignment.reader_counts.tolist()) == ([1, 1], [1, 5])
    assert alignment.exact.tolist() == [True, True]


def test_nemo_padding_is_in_no_chunk_and_no_chunk_is_of_padding() -> None:
    pad = 0
    content = ids(WORDS, "Hello", " world", "abc")
    rows = np.array([[*content, pad, pad, pad], [*content, *content]])
    mask = rows != pad
    batch = align_batch(rows, WORDS, rows, WORDS, author_mask=mask, reader_mask=mask)
    for side in ("author", "reader"):
        chunks = batch.chunk_ids(side)
        assert (chunks.shape, chunks[0].tolist()) == ((2, 6), [0, 1, 2, -1, -1, -1])
        assert (chunks[1] >= 0).all()
    assert batch.chunk_mask.tolist() == [[True] * 3 + [False] * 3, [True] * 6]
    assert batch.exact.tolist() == batch.chunk_mask.tolist()


def test_nemo_a_message_and_its_end_align_within_their_scaffolds() -> None:
    # scaffold, Hello, world, end: the scaffolds differ, and are masked
    author = [[*ids(WORDS, "abc"), *ids(WORDS, "Hello", " world"), WORDS.stop_id]]
    reader = [[*ids(LETTERS, "e", "e"), *ids(LETTERS, *"Hello world"), LETTERS.stop_id]]
    author_mask, reader_mask = [[0, 1, 1, 1]], [[0, 0, *[1] * 11, 1]]
    batch = align_batch(author, WORDS, reader, LETTERS, author_mask=author_mask, reader_mask=reader_mask)
    assert batch.chunk_ids("author").tolist() == [[-1, 0, 1, 2]]
    assert batch.chunk_ids("reader").tolist() == [[-1, -1, *[0] * 5, *[1] * 6, 2]]
    assert batch.exact.all()
    # without the first pair of contents: masked on both sides
    author_mask[0][1], reader_mask[0][2:7] = 0, [0] * 5
    batch = align_batch(author, WORDS, reader, LETTERS, author_mask=author_mask, reader_mask=reader_mask)
    assert batch.chunk_ids("author").tolist() == [[-1, -1, 0, 1]]


def test_nemo_regions_of_a_message_align_each_with_its_own() -> None:
    # reasoning "ab", something between, answer "Hello": two stretches of each side's mask
    author = [[*ids(SPLIT, "ab"), *ids(SPLIT, "abc"), *ids(SPLIT, "He", "llo")]]
    reader = [[*ids(WORDS, "ab"), *ids(WORDS, " world", " world"), *ids(WORDS, "Hello")]]
    both = align_batch(author, SPLIT, reader, WORDS, author_mask=[[1, 0, 1, 1]], reader_mask=[[1, 0, 0, 1]])
    assert (both.chunk_ids("author").tolist(), both.exact.tolist()) == ([[0, -1, 1, 1]], [[True, True]])
    answer = align_batch(author, SPLIT, reader, WORDS, author_mask=[[0, 0, 1, 1]], reader_mask=[[0, 0, 0, 1]])
    assert answer.chunk_ids("author").tolist() == [[-1, -1, 0, 0]]


@pytest.mark.real_tokenizers
def test_nemo_a_composed_character_is_said_to_be_the_same_by_who_composes_it() -> None:
    # There: equal after normalisation is correct. Here: it is if the reader declares that it composes, and not exact.
    author, reader = WordTokenizer([]), loaded("qwen")
    said = completion_of(author, author.encode_batch(["cafe\u0301"])[0])
    (translation,) = TokenizerBridge([author, reader]).translate([said], reader)
    assert (translation.verdict, translation.action) == ("normalised", "accept-and-flag")
    assert not translation.chunk_exact.all()


def test_nemo_tokens_that_end_inside_a_character_are_one_chunk_on_their_own_places() -> None:
    # theirs are merged into a canonical token first, and have to be mapped back: "Hello", " âĪ", "ĳ", "."
    halves = WordTokenizer(["Hello", b" \xe2\x88".decode("latin-1")])  # bytes have tokens of their own
    author = [*ids(halves, "Hello"), *halves.encode_batch([" ∑"])[0].tolist(), *ids(halves, ".")]
    whole = WordTokenizer(["Hello", " ∑", "."])
    batch = align_batch([author], halves, [ids(whole, "Hello", " ∑", ".")], whole)
    inside = len(author) - 2
    assert batch.chunk_ids("author").tolist() == [[0, *[1] * inside, 2]]
    assert batch.chunk_ids("reader").tolist() == [[0, 1, 2]]
    assert batch.rows[0].one_to_one.tolist() == [True, False, True]
    # "Ã", "©" and "é", then a character that both have
    author, reader = WordTokenizer(["中"]), WordTokenizer(["é", "中"])
    batch = align_batch(author.encode_batch(["é中"]), author, reader.encode_batch(["é中"]), reader)
    assert batch.chunk_ids("author").tolist() == [[0, 0, 1]]
    assert batch.chunk_ids("reader").tolist() == [[0, 1]]


def test_nemo_sides_of_different_widths_keep_their_own_and_empty_chunks_are_zero() -> None:
    author = [ids(SPLIT, "He", "llo", " world"), ids(SPLIT, "He", "llo")]
    reader = [[*ids(WORDS, "Hello", " world")], ids(WORDS, "Hello")]
    batch = align_batch(author, SPLIT, reader, WORDS)
    assert (batch.chunk_ids("author").shape, batch.chunk_ids("reader").shape) == ((2, 3), (2, 2))
    sums = batch.chunk_sums(np.array([[1.0, 2.0, 4.0], [8.0, 16.0, np.inf]]))  # behind a row's end: nobody's
    assert sums.tolist() == [[3.0, 4.0], [24.0, 0.0]]
    assert batch.chunk_mask.tolist() == [[True, True], [True, False]]


def test_nemo_of_several_ids_with_the_same_bytes_one_is_taken() -> None:
    # theirs: the student with the lowest index. Here: the id that a text becomes; what has no partner has -1.
    twice = Spellings((b"a", b"b", b"a"), {}, None)
    mapped = VocabularyMap.of(Spellings((b"a", b"c"), {}, None), twice)
    assert mapped.to_reader.tolist()[1] == -1
    assert mapped.to_reader[0] in (0, 2)
    back = VocabularyMap.of(twice, Spellings((b"a", b"c"), {}, None))
    assert back.to_reader.tolist() == [0, -1, 0]
    assert back.shared.tolist() == [True, False, True]
    projected = back.project(np.log([[0.5, 0.3, 0.2]]))
    assert projected.dense()[0].tolist() == pytest.approx([0.7, 0.0])
    assert projected.lost[0] == pytest.approx(0.3)


# TRL: tests/experimental/test_gold_trainer.py; those of its loss are in test_gold_losses


@pytest.mark.real_tokenizers
def test_gold_groups_cover_all_tokens_of_both_sides() -> None:
    student, teacher = loaded("llama3"), loaded("qwen")
    text = "SmolLM3-3B is smaller than Llama 3.2 but still capable."
    rows = [tokenizer.encode_batch([text])[0] for tokenizer in (teacher, student)]
    alignment = align(rows[0], teacher, rows[1], student)
    assert alignment.author_counts.sum() == rows[0].size
    assert alignment.reader_counts.sum() == rows[1].size
    assert alignment.exact.all()


@pytest.mark.real_tokenizers
def test_gold_vocabularies_share_the_common_tokens() -> None:
    student, teacher = loaded("llama3"), loaded("qwen")
    mapped = VocabularyMap.of(teacher, student).to_reader
    for piece in ("Hello", " world", "-", "Sm", "ol", "LM", "3", "B"):
        (there,), (here,) = ids(teacher, piece), ids(student, piece)
        assert mapped[there] == here


@pytest.mark.real_tokenizers
@pytest.mark.parametrize(
    ("name", "prompt", "completion"),
    [
        (
            "llama3",
            "User: Summarize the difference between llamas and alpacas.",
            "Assistant: Llamas are taller while alpacas have softer wool.",
        ),
        (
            "smollm2",
            "User: Describe SmolLM3 in a sentence.",
            "Assistant: SmolLM3 is a compact yet capable language model.",
        ),
        (
            "mistral-spm",  # there: NotImplementedError
            "User: Explain how GOLD handles tokenizer mismatches.",
            "Assistant: GOLD merges aligned subwords and applies hybrid ULD loss.",
        ),
    ],
)
def test_gold_a_prompt_and_its_completion_in_padded_rows(name: str, prompt: str, completion: str) -> None:
    student, teacher = loaded(name), loaded("qwen")
    rows, masks = {}, {}
    for tokenizer in (student, teacher):
        before, after = tokenizer.encode_batch([prompt])[0], tokenizer.encode_batch([completion])[0]
        rows[tokenizer] = [*before.tolist(), *after.tolist(), tokenizer.stop_id]
        masks[tokenizer] = [0] * before.size + [1] * (after.size + 1)
    width = max(map(len, rows.values()))
    rows = {t: [row + [t.stop_id] * (width - len(row))] for t, row in rows.items()}
    masks = {t: [mask + [0] * (width - len(mask))] for t, mask in masks.items()}
    batch = align_batch(
        rows[teacher], teacher, rows[student], student, author_mask=masks[teacher], reader_mask=masks[student]
    )
    for side, tokenizer in (("author", teacher), ("reader", student)):
        assert (batch.chunk_ids(side) >= 0).astype(int).tolist() == masks[tokenizer]
    assert batch.exact[batch.chunk_mask][1:].all()  # but for a prefix space in front
    logprobs = -np.abs(np.sin(np.arange(width, dtype=float)))[None]
    sums = batch.chunk_sums(logprobs)
    assert sums.sum() == pytest.approx((logprobs * np.array(masks[teacher])).sum())


def test_gold_a_split_token_has_the_product_of_its_parts() -> None:
    # There: .6 x .5 of a token in two parts. Here: the sum of the logarithms.
    alignment = align(ids(SPLIT, "He", "llo"), SPLIT, ids(WORDS, "Hello"), WORDS)
    assert np.exp(alignment.chunk_sums(np.log([0.6, 0.5]))) == pytest.approx([0.3])


def test_gold_answers_are_where_labels_are() -> None:
    labels = np.array(
        [
            [-100, -100, -100, 10, 20, 30, -100, -100],
            [-100, 5, 6, 7, -100, -100, -100, -100],
            [-100] * 8,
        ]
    )
    mask = labels != -100
    row = np.array([ids(LETTERS, *"Hello wo")] * 3)
    batch = align_batch(row, LETTERS, row, LETTERS, author_mask=mask, reader_mask=mask)
    assert [chunks.size for chunks in (r.exact for r in batch.rows)] == [3, 3, 0]
    assert (batch.chunk_ids() >= 0).tolist() == mask.tolist()


@pytest.mark.torch
@pytest.mark.real_tokenizers
def test_gold_its_own_walk_makes_the_same_groups_of_byte_offsets() -> None:
    gold = pytest.importorskip("trl.experimental.gold.gold_trainer")
    author, reader = loaded("deepseek"), loaded("llama3")
    for text in ("def f(x):\n    return x ** 2\n", "Größe, naïve: 天地玄黃 👩‍👩‍👧", "1,234,567.89 isn't it?  "):
        rows = author.encode_batch([text])[0], reader.encode_batch([text])[0]
        offsets = [
            list(zip([0, *ends[:-1]], ends, strict=True))
            for ends in (t.byte_lengths(row).cumsum().tolist() for t, row in zip((author, reader), rows, strict=True))
        ]
        theirs = gold.ULDLoss._align_by_byte_offsets(*offsets)
        ours = align(rows[0], author, rows[1], reader)
        for groups, counts in zip(theirs, (ours.author_counts, ours.reader_counts), strict=True):
            assert [len(group) for group in groups] == counts.tolist()


# tokenkit: tokenkit/align.py, test_get_alignment_indices


@pytest.mark.real_tokenizers
def test_tokenkit_chunks_around_control_tokens() -> None:
    teacher, student = loaded("qwen"), loaded("llama3")
    author = ids(teacher, "<|im_start|>", "Hel", "lo", "?", "\n", "\n")
    reader = ids(
        student, "<|begin_of_text|>", "<|start_header_id|>", "Hello", "?", "<|end_header_id|>", "\n\n", "\n"
    )  # fmt: skip
    alignment = align(author, teacher, reader, student)
    # There: [im_start | bos, start_header], [Hel lo | Hello], [? | ?], [\n | end_header \n\n], [\n | \n]. Here a
    # control token without a partner joins what stands before it, and line breaks that differ are one inexact chunk.
    assert alignment.author_ends.tolist() == [1, 3, 4, 6]
    assert alignment.reader_ends.tolist() == [2, 3, 5, 7]
    assert alignment.exact.tolist() == [False, True, False, False]
    assert alignment.unpaired == (1, 3)
    assert alignment.chunk_sums(np.arange(6.0)).sum() == 15.0


def test_tokenkit_a_vocabulary_of_bytes_has_a_token_for_each() -> None:
    letters = PairTokenizer("Helo?", [])
    row = ids(letters, *"Hello?")
    alignment = align(ids(WORDS, "Hello", "?"), WORDS, row, letters)
    assert alignment.reader_counts.tolist() == [5, 1]
    assert alignment.exact.all()


@pytest.mark.real_tokenizers
def test_tokenkit_turn_markers_of_another_family_are_no_text_of_this_one() -> None:
    # theirs puts the other family's markers into the vocabulary; here they are text, of any author in any reader
    qwen, llama = loaded("qwen"), loaded("llama3")
    for tokenizer, foreign in ((qwen, "<start_of_turn>Hello?"), (llama, "<|im_start|>Hello?")):
        (row,) = tokenizer.encode_batch([foreign])
        assert tokenizer.decode(row) == foreign
        assert tokenizer.byte_lengths(row).all()


def test_every_case_of_theirs_is_asked_here_or_has_a_reason_not_to_be() -> None:
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for cases in (GOLD, NEMO, TOKENKIT):
        for theirs, ours in cases.items():
            assert ours.startswith("no: ") or f"def {ours}(" in here, theirs
