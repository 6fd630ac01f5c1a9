"""Batches with masks, tensors with gradients, canonical cuts: what whoever distils one model into another asks for."""

import subprocess
import sys
from itertools import zip_longest

import numpy as np
import pytest

from mutual_env.errors import InvalidInputError, MisalignedError
from tests.tokenizers_bridge.test_bridge_loading import unigram
from tokenizers_bridge import CharTokenizer, PairTokenizer, WordTokenizer, align, align_batch, canonical
from tokenizers_bridge.kinds.huggingface import from_huggingface
from tokenizers_bridge.kinds.prompts import ChatFormat

LETTERS = "abcde "
FINE = PairTokenizer(LETTERS, [])
COARSE = PairTokenizer(LETTERS, [("a", "b"), ("ab", "c"), (" ", "a"), ("d", "e")])
TEXTS = ("abc de", "ab", "cab abc deab", "e")

WITHOUT_ENVS = """
import sys
for name in ("gymnasium", "pettingzoo", "omegaconf", "yaml", "rich"):
    sys.modules[name] = None
import numpy as np
from mutual_env import Completion
from tokenizers_bridge import PairTokenizer, TokenizerBridge, WordTokenizer, align
author, reader = PairTokenizer("ab", [("a", "b")]), WordTokenizer([])
said = Completion("ab", author.encode_batch(["ab"])[0], np.full(1, -1.0), "length", 0, author.fingerprint)
print(TokenizerBridge([author, reader]).translate([said], reader)[0].logprobs.tolist())
import mutual_env
try:
    mutual_env.make("mutual/arithmetic-v0")
except ImportError as error:
    print(error)
"""


def test_the_bridge_is_a_library_that_needs_no_environment_package() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_ENVS], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[-0.5, -0.5]",  # one token of -1 on two bytes
        "mutual_env.make needs gymnasium and pettingzoo: pip install gymnasium pettingzoo",
    ]


def padded(tokenizer: PairTokenizer, prompt: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Prompt, text, stop token, padding, and a mask of text and stop."""
    rows = [[*ids.tolist(), tokenizer.stop_id] for ids in tokenizer.encode_batch(TEXTS)]
    columns = zip_longest(*([2] * prompt + row for row in rows), fillvalue=tokenizer.stop_id)
    ids = np.array(list(columns), np.int64).T
    mask = np.zeros(ids.shape, np.int64)
    for i, row in enumerate(rows):
        mask[i, prompt : prompt + len(row)] = 1
    return ids, mask


def test_a_padded_batch_is_its_rows_one_by_one() -> None:
    (ids_a, mask_a), (ids_r, mask_r) = padded(COARSE), padded(FINE, prompt=1)
    batch = align_batch(ids_a, COARSE, ids_r, FINE, author_mask=mask_a, reader_mask=mask_r)
    values = np.where(mask_a == 1, -np.arange(ids_a.size, dtype=float).reshape(ids_a.shape), np.nan)  # nothing leaks
    sums, (carried, exact) = batch.chunk_sums(values), batch.carry(values)
    for i in range(len(TEXTS)):
        kept_a, kept_r = mask_a[i] == 1, mask_r[i] == 1
        one = align(ids_a[i, kept_a], COARSE, ids_r[i, kept_r], FINE)
        count = one.exact.size
        assert (batch.exact[i, :count].tolist(), batch.chunk_mask[i].sum()) == (one.exact.tolist(), count)
        assert np.allclose(sums[i, :count], one.chunk_sums(values[i, kept_a]))
        assert np.allclose(carried[i, kept_r], one.carry(values[i, kept_a])[0])
        assert exact[i, kept_r].tolist() == one.exact_tokens.tolist()
        assert not carried[i, ~kept_r].any()
        assert batch.chunk_ids("reader")[i, kept_r].tolist() == one.chunk_ids().tolist()
        assert (batch.chunk_ids("reader")[i, ~kept_r] == -1).all()
    own = -1.0 - np.arange(ids_r.size, dtype=float).reshape(ids_r.shape)
    assert np.allclose(batch.chunk_sums(batch.carry(values, own)[0], "reader"), sums)


def test_turns_are_aligned_with_their_own_turns() -> None:
    # Two turns, "ab" and "c", around a reply that is masked: no chunk spans it.
    author, reader = COARSE.encode_batch(["ab", "c"]), FINE.encode_batch(["ab", "c"])
    a, r = np.concatenate([author[0], [7, 7], author[1]]), np.concatenate([reader[0], [2], reader[1]])
    batch = align_batch([a], COARSE, [r], FINE, author_mask=[[1, 0, 0, 1]], reader_mask=[[1, 1, 0, 1]])
    assert batch.chunk_ids("author").tolist() == [[0, -1, -1, 1]]
    assert batch.chunk_ids("reader").tolist() == [[0, 0, -1, 1]]
    assert batch.exact.tolist() == [[True, True]]
    with pytest.raises(InvalidInputError, match="row 0: author_mask has 2 stretches of tokens and reader_mask 1"):
        align_batch([a], COARSE, [r], FINE, author_mask=[[1, 0, 0, 1]])
    nothing = align_batch([a], COARSE, [r], FINE, author_mask=[[0] * 4], reader_mask=[[0] * 4])
    assert nothing.chunk_sums(np.ones((1, 4))).shape == (1, 0)
    assert nothing.carry(np.ones((1, 4)))[0].tolist() == [[0.0] * 4]


def test_what_does_not_fit_a_batch_is_refused_with_a_sentence() -> None:
    ids, mask = padded(FINE)
    with pytest.raises(MisalignedError, match="reader_ids must align with the rows of author_ids: got 1, expected 4"):
        align_batch(ids, FINE, ids[:1], FINE)
    with pytest.raises(MisalignedError, match="author_mask must align with author_ids"):
        align_batch(ids, FINE, ids, FINE, author_mask=mask[:, 1:])
    with pytest.raises(InvalidInputError, match=r"values of the author must have shape \(4, 15\)"):
        align_batch(ids, FINE, ids, FINE, author_mask=mask, reader_mask=mask).chunk_sums(np.ones(3))


@pytest.mark.torch
def test_sums_of_tensors_are_the_same_numbers_and_gradients_go_through() -> None:
    torch = pytest.importorskip("torch")
    (ids_a, mask_a), (ids_r, mask_r) = padded(COARSE), padded(FINE)
    tensors = [torch.from_numpy(x) for x in (ids_a, mask_a, ids_r, mask_r)]
    batch = align_batch(tensors[0], COARSE, tensors[2], FINE, author_mask=tensors[1], reader_mask=tensors[3].bool())
    rng = np.random.default_rng(0)
    values = rng.normal(size=ids_r.shape)
    leaf = torch.from_numpy(values).requires_grad_()
    sums = batch.chunk_sums(leaf, "reader")
    assert np.allclose(sums.detach().numpy(), batch.chunk_sums(values, "reader"), atol=0, rtol=1e-15)
    # Finite differences of a loss of the sums, in float64: torch's own check.
    weights = torch.from_numpy(rng.normal(size=tuple(sums.shape)))
    assert torch.autograd.gradcheck(lambda v: (batch.chunk_sums(v, "reader").sin() * weights).sum(), (leaf,))
    # By hand: d/dv of the sum of squares is twice the sum of the chunk, and 0 at what the mask left out.
    sums.square().sum().backward()
    chunks = batch.chunk_ids("reader")
    expected = np.where(chunks >= 0, 2 * np.take_along_axis(sums.detach().numpy(), np.maximum(chunks, 0), 1), 0.0)
    assert np.allclose(leaf.grad.numpy(), expected)
    half = torch.from_numpy(values).bfloat16().requires_grad_()
    sums = batch.chunk_sums(half, "reader")
    sums.square().sum().backward()
    assert sums.dtype is torch.float32
    assert half.grad.dtype is torch.bfloat16
    assert np.allclose(half.grad.float().numpy(), expected, atol=0.1)  # values of 8 bits: 2 * 4 tokens * 2**-8 each
    carried, _ = batch.carry(torch.from_numpy(rng.normal(size=ids_a.shape)).requires_grad_())
    assert carried.requires_grad
    assert carried.shape == ids_r.shape
    # A token that the author could not say makes its chunk's sum infinite, and nothing of the padding.
    surprised = np.where(batch.chunk_ids("author") == 0, -np.inf, values[:, :1])
    expected, _ = batch.carry(surprised)
    assert np.isneginf(expected).any()
    assert np.array_equal(batch.carry(torch.from_numpy(surprised))[0].numpy(), expected)


@pytest.mark.torch
def test_one_alignment_takes_tensors_too() -> None:
    torch = pytest.importorskip("torch")
    author, reader = COARSE.encode_batch(["abc "])[0], FINE.encode_batch(["abc "])[0]
    alignment = align(author, COARSE, reader, FINE)
    values = torch.tensor([-1.0, -2.0, -3.0, -4.0], dtype=torch.float16, requires_grad=True)
    sums = alignment.chunk_sums(values, "reader")
    assert sums.tolist() == [-6.0, -4.0]  # abc | space
    sums.sum().backward()
    assert values.grad.tolist() == [1.0] * 4
    with pytest.raises(MisalignedError, match="the author's tokens: got 4, expected 2"):
        alignment.chunk_sums(values, "author")


def test_a_cut_that_the_tokenizer_would_not_make_is_seen_in_its_chunk() -> None:
    # The policy sampled a|b|c where its tokenizer has abc; " a" and the stop token are as they should be.
    ids = np.concatenate([*COARSE.encode_batch(["a", "b", "c", " a"]), [COARSE.stop_id]])
    (found,) = canonical([ids], COARSE)
    assert (found.row, found.tokens.tolist()) == (False, [False, False, False, True, True])
    words = WordTokenizer(["abc", " a"])
    read = np.append(words.encode_batch(["abc a"])[0], words.stop_id)
    rows, chunks = align_batch([ids], COARSE, [read], words).canonical()
    assert (rows.tolist(), chunks.tolist()) == ([False], [[False, True, True]])
    rows, chunks = align_batch([ids], COARSE, [read], words).canonical("reader")
    assert (rows.tolist(), chunks.tolist()) == ([True], [[True, True, True]])
    assert canonical([[]], COARSE)[0].row


def test_canonical_knows_prefix_spaces_and_bytes_that_are_no_text() -> None:
    goes_on = from_huggingface(unigram(byte_fallback=True))
    begins = from_huggingface(unigram(byte_fallback=True), chat=ChatFormat((), {"*": ("{content}",)}, ()))
    prefixed, plain = begins.encode_batch(["hello world"])[0], begins.encode_continuations(["hello world"])[0]
    assert [canonical([ids], begins)[0].row for ids in (prefixed, plain)] == [True, False]
    # Where a completion goes on, both are canonical: the first is that of " hello world".
    assert [canonical([ids], goes_on)[0].row for ids in (prefixed, plain)] == [True, True]
    word = WordTokenizer(["é"])
    half = [word.encode_batch(["a"])[0][0], word.encode_batch(["a"])[0][0] - ord("a") + 0xC3]
    assert not canonical([half], word)[0].row  # no tokenizer makes half a character of a text
    stopped = [*CharTokenizer("ab").encode_batch(["ab"])[0].tolist(), 1]
    assert canonical([stopped], CharTokenizer("ab"))[0].tokens.tolist() == [True, True, True]
