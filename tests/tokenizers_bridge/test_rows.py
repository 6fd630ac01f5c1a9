"""Many texts encoded at once are what each is alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tiktoken

from mutual_env.errors import ConformanceError
from mutual_env.types import Ids
from tokenizers_bridge import CharTokenizer, Rows, Tokenizer, WordTokenizer, check_tokenizer
from tokenizers_bridge.kinds.tiktokens import from_tiktoken
from tokenizers_bridge.protocol import encode_rows
from tokenizers_bridge.rows import behind_one_another

PATTERN = r"""'s| ?\p{L}+| ?[^\s\p{L}]+|\s+(?!\S)|\s+"""
SPECIALS = {"<eos>": 300, "<think>": 301, "<eos>x": 302, "y<eos>": 303}
MERGES = {b"<e": 256, b"  ": 257, b"he": 258, b">x": 259, b"<eo": 260, b"<eos": 261}
ENCODING = tiktoken.Encoding(
    "at-once",
    pat_str=PATTERN,
    mergeable_ranks={**{bytes([i]): i for i in range(256)}, **MERGES},
    special_tokens=SPECIALS,
)
PLAIN = ["hello", "", " ends in space  ", "   ", "日本", "<eo", "s>", "<", "<think>hm", "a<think", "\n\n"]


def alone(text: str) -> list[int]:
    ids: list[int] = ENCODING.encode(text, allowed_special={"<think>"}, disallowed_special=())
    return ids


@pytest.mark.parametrize(
    "texts",
    [PLAIN, ["he", "<eos>"], ["he", "xhe", "x"], ["hey", "he"], ["<eo", "s>", "<eos>x"], ["a" * 25_001, "b"], []],
)
def test_the_texts_on_either_side_of_another_have_no_part_in_how_it_is_cut(texts: list[str]) -> None:
    tokenizer = from_tiktoken(ENCODING, stop="<eos>")
    expected = [alone(text) for text in texts]
    assert [row.tolist() for row in tokenizer.encode_batch(texts)] == expected
    assert [row.tolist() for row in encode_rows(tokenizer, texts, goes_on=True)] == expected
    assert [encode_rows(tokenizer, [text], goes_on=False)[0].tolist() for text in texts] == expected


def test_rows_apart_and_together() -> None:
    rows = Rows(np.arange(10, dtype=np.int32), np.array([7, 0, 4]), np.array([2, 3, 0]))
    assert [row.tolist() for row in rows] == [[7, 8], [0, 1, 2], []]
    assert rows.apart().ids.tolist() == [7, 8, 0, 1, 2]
    both = Rows.joined([rows, rows.taken(np.array([1])), Rows.of([])])
    assert [row.tolist() for row in both] == [[7, 8], [0, 1, 2], [], [0, 1, 2]]
    ids, at = both.ended(np.array([True, False, True, False]), 99)
    assert (ids.tolist(), at.tolist()) == ([7, 8, 99, 0, 1, 2, 99, 0, 1, 2], [0, 3, 6, 7, 10])


def test_arrays_that_are_parts_of_others_are_put_behind_one_another_too() -> None:
    whole = np.arange(8, dtype=np.float64)
    assert behind_one_another([whole[::2], whole[:2]], 6).tolist() == [0, 2, 4, 6, 0, 1]
    assert behind_one_another([whole[:0], whole[3:5]], 2).tolist() == [3, 4]


class OfItsOwn(CharTokenizer):
    """Encodes otherwise than the class that it is made of."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [ids[::-1] for ids in super().encode_batch(texts)]


class Hasty(WordTokenizer):
    """Gives one id for each text."""

    def encode_rows(self, texts: Sequence[str], *, goes_on: bool) -> Rows:
        return Rows.of([ids[:1] for ids in self.encode_batch(texts)])


def test_another_way_to_encode_is_not_passed_by() -> None:
    tokenizer: Tokenizer = OfItsOwn("abc")
    assert encode_rows(tokenizer, ["abc"], goes_on=False)[0].tolist() == tokenizer.encode_batch(["abc"])[0].tolist()


def test_the_shipped_test_sees_rows_that_are_other_ids() -> None:
    with pytest.raises(ConformanceError, match="encode_rows gives other ids than encode_batch"):
        check_tokenizer(Hasty(["the "]))
