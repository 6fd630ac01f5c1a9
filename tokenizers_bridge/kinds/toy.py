"""Small tokenizers in pure Python, for tests, examples and policies that need no download.

    CharTokenizer   one character, one id
    PairTokenizer   characters, and pairs of pieces merged in a given order (a miniature byte-pair encoding)
    WordTokenizer   a list of words, and single bytes for everything else: it can write any text

All three put `bos` first and `eos` second in the vocabulary, stop with `eos`, and prompt with `bos` and the text; chat
messages are written as "role: content" lines, with "assistant:" at the end. The first two cannot write a character
outside their alphabet: encoding leaves it out (the bridge sees the missing bytes and flags the row) and rendering a
prompt with it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids, Prompt
from tokenizers_bridge.declaration import Declaration
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer, Encoder, PromptFormat
from tokenizers_bridge.kinds.vocabulary import Vocabulary
from tokenizers_bridge.protocol import Role

BOS, EOS = "<bos>", "<eos>"
_SPECIALS: dict[int, Role] = {0: "bos", 1: "eos"}


class CharTokenizer(AdaptedTokenizer):
    """One character, one id: `bos`, `eos`, then the characters of the alphabet in their order."""

    def __init__(self, alphabet: str) -> None:
        ids = {char: i for i, char in enumerate(_distinct(alphabet), start=len(_SPECIALS))}
        encoder = _PairEncoder(ids, {})
        parts = _toy(encoder, list(ids), alphabet)
        super().__init__(name=f"char({len(alphabet)})", definition=("char", alphabet), **parts)


class PairTokenizer(AdaptedTokenizer):
    """Characters, and the pairs in `merges`, e.g. `[("a", "b"), ("ab", "c")]`; the earlier a pair, the sooner it is
    merged.
    """

    def __init__(self, alphabet: str, merges: Sequence[Sequence[str]]) -> None:
        pairs = [(left, right) for left, right in merges]  # a configuration's are lists, or texts of two characters
        pieces = list(_distinct(alphabet))
        for left, right in pairs:
            if left not in pieces or right not in pieces:
                raise InvalidInputError(
                    f"merges: {(left, right)!r} joins a piece that is neither in the alphabet nor merged before it"
                )
            if left + right not in pieces:
                pieces.append(left + right)
        ids = {piece: i for i, piece in enumerate(pieces, start=len(_SPECIALS))}
        encoder = _PairEncoder(ids, {pair: rank for rank, pair in enumerate(dict.fromkeys(pairs))})
        definition = ("pair", alphabet, *(part for pair in pairs for part in pair))
        parts = _toy(encoder, pieces, alphabet)
        super().__init__(name=f"pair({len(alphabet)}+{len(pairs)})", definition=definition, **parts)


class WordTokenizer(AdaptedTokenizer):
    """The given words, longest first, and the 256 bytes for what is left: it writes any text, and any bytes."""

    def __init__(self, words: Sequence[str]) -> None:
        kept = sorted({w for w in words if len(w.encode()) > 1}, key=lambda w: (-len(w), w))
        first_word = len(_SPECIALS) + 256
        encoder = _WordEncoder({w: i for i, w in enumerate(kept, start=first_word)}, len(_SPECIALS))
        pieces = [bytes([b]) for b in range(256)] + [w.encode() for w in kept]
        super().__init__(name=f"word({len(kept)})", definition=("word", *kept), **_toy(encoder, pieces, None))


class _ToyParts(TypedDict):
    vocabulary: Vocabulary
    encoder: Encoder
    prompt_format: PromptFormat
    stop_id: int
    declaration: Declaration


@dataclass(frozen=True, slots=True)
class _PairEncoder:
    ids: dict[str, int]
    ranks: dict[tuple[str, str], int]

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        return [np.array([self.ids[p] for p in self._pieces(text)], np.int32) for text in texts]

    def _pieces(self, text: str) -> list[str]:
        pieces = [char for char in text if char in self.ids]
        while self.ranks and len(pieces) > 1:
            pairs = set(pairwise(pieces))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            pieces = _merge(pieces, best)
        return pieces


@dataclass(frozen=True, slots=True)
class _WordEncoder:
    words: dict[str, int]
    first_byte: int

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        longest_first = "|".join(map(re.escape, self.words))
        pattern = re.compile(f"({longest_first})" if longest_first else "(?!)()")
        return [np.array([i for part in pattern.split(text) for i in self._ids(part)], np.int32) for text in texts]

    def _ids(self, part: str) -> list[int]:
        if part in self.words:
            return [self.words[part]]
        return [self.first_byte + b for b in part.encode("utf-8", "surrogatepass")]


@dataclass(frozen=True, slots=True)
class _ToyPrompt:
    """`bos`, then the text."""

    encoder: Encoder
    alphabet: frozenset[str] | None

    def __call__(self, prompt: Prompt) -> Ids:
        text = (
            prompt
            if isinstance(prompt, str)
            else "".join(f"{m['role']}: {m['content']}\n" for m in prompt) + "assistant:"
        )
        unknown = sorted(set(text) - self.alphabet) if self.alphabet is not None else []
        if unknown:
            raise InvalidInputError(
                f"prompt has characters outside the alphabet, {unknown[:8]!r}: add them to the alphabet"
            )
        return np.concatenate([np.zeros(1, np.int32), self.encoder([text])[0]])


def _toy(encoder: Encoder, pieces: Sequence[str | bytes], alphabet: str | None) -> _ToyParts:
    table = [b"", b"", *(p.encode("utf-8", "surrogatepass") if isinstance(p, str) else p for p in pieces)]
    return {
        "vocabulary": Vocabulary.of(table, _SPECIALS),
        "encoder": encoder,
        "prompt_format": _ToyPrompt(encoder, None if alphabet is None else frozenset(alphabet)),
        "stop_id": 1,
        "declaration": Declaration(control_texts={0: BOS, 1: EOS}),
    }


def _distinct(alphabet: str) -> str:
    repeated = sorted({char for char in alphabet if alphabet.count(char) > 1})
    if repeated or not alphabet:
        raise InvalidInputError(
            f"alphabet must be distinct characters, at least one; "
            f"more than once: {repeated[:8]!r}, in {alphabet[:80]!r}"
        )
    return alphabet


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
