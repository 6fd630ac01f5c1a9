"""What every id of a vocabulary stands for, whatever kind it is: all that a map between two vocabularies needs."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mutual_env.errors import InvalidInputError
from tokenizers_bridge.protocol import Role, Tokenizer, encode_continuations
from tokenizers_bridge.roles import acts_as_control, role_of


@dataclass(frozen=True, slots=True, eq=False)
class Spellings:
    """`pieces` are the bytes of each id, none for a control token; `roles` are those of control tokens. Of several ids
    with the same bytes, `preferred` is the one that a text becomes: SentencePiece has "A" and <0x41>."""

    pieces: Sequence[bytes]
    roles: Mapping[int, Role]
    stop_id: int | None = None
    preferred: Mapping[bytes, int] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Tokenizer | Spellings | Any) -> Spellings:
        """A tokenizer's; or those of a `tokenizers.Tokenizer` with a WordPiece model, which cannot be translated to
        (its ids do not say how much white space there was) but can be compared: "the" is " the", "##ing" is "ing"."""
        if isinstance(source, Spellings):
            return source
        if isinstance(source, Tokenizer):
            return cls._of_tokenizer(source)
        if hasattr(source, "to_str") and json.loads(source.to_str())["model"]["type"] == "WordPiece":
            return cls._of_word_pieces(json.loads(source.to_str()))
        raise InvalidInputError(f"cannot read a vocabulary from {type(source).__name__}: give what load(...) returns")

    @classmethod
    def _of_tokenizer(cls, tokenizer: Tokenizer) -> Spellings:
        every = np.arange(tokenizer.vocab_size, dtype=np.int32)
        ends = tokenizer.byte_lengths(every).cumsum()
        data = tokenizer.token_bytes(every)
        pieces = [data[a:b] for a, b in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]
        return cls(pieces, tokenizer.specials, tokenizer.stop_id, _preferred(pieces, tokenizer))

    @classmethod
    def _of_word_pieces(cls, definition: Mapping[str, Any]) -> Spellings:
        model = definition["model"]
        prefix, vocab = model["continuing_subword_prefix"], dict(model["vocab"])
        vocab |= {row["content"]: row["id"] for row in definition["added_tokens"]}
        special = {row["id"] for row in definition["added_tokens"] if row["special"]}
        pieces = [b""] * (max(vocab.values()) + 1)
        roles: dict[int, Role] = {}
        for text, i in vocab.items():
            if i in special or acts_as_control(text) or text == model["unk_token"]:
                roles[i] = "unk" if text == model["unk_token"] else role_of(text)
            else:
                pieces[i] = text.removeprefix(prefix).encode() if text.startswith(prefix) else f" {text}".encode()
        return cls(pieces, roles)

    def ids_by_bytes(self) -> dict[bytes, int]:
        """The one id of each piece that a text becomes."""
        ids = {piece: i for i, piece in reversed(list(enumerate(self.pieces))) if piece}
        return {**ids, **self.preferred}


def _preferred(pieces: Sequence[bytes], tokenizer: Tokenizer) -> dict[bytes, int]:
    """Which of several ids with the same bytes the tokenizer itself makes of them."""
    by_bytes: dict[bytes, list[int]] = {}
    for i, piece in enumerate(pieces):
        if piece:
            by_bytes.setdefault(piece, []).append(i)
    doubled = {piece: ids for piece, ids in by_bytes.items() if len(ids) > 1}
    # No encoding makes what is no whole text; without its odd bytes it would stand in the place of another piece.
    texts = {text: piece for piece in doubled if (text := piece.decode("utf-8", "ignore")).encode() == piece}
    rows = encode_continuations(tokenizer, list(texts))
    return {
        piece: int(row[0])
        for piece, row in zip(texts.values(), rows, strict=True)
        if row.size == 1 and int(row[0]) in doubled[piece]
    }


@dataclass(frozen=True, slots=True, eq=False)
class Prefixes:
    """Pieces in the order of their bytes: those that begin with something stand behind one another."""

    ordered: Sequence[bytes]
    ids: Sequence[int]
    by_bytes: Mapping[bytes, Sequence[int]]

    @classmethod
    def of(cls, spellings: Spellings) -> Prefixes:
        rows = sorted((piece, i) for i, piece in enumerate(spellings.pieces) if piece)
        by_bytes: dict[bytes, list[int]] = {}
        for piece, i in rows:
            by_bytes.setdefault(piece, []).append(i)
        return cls([piece for piece, _ in rows], [i for _, i in rows], by_bytes)

    def beginning_with(self, data: bytes) -> Sequence[int]:
        """Ids of all pieces that begin with these bytes."""
        start = bisect_left(self.ordered, data)
        following = data.rstrip(b"\xff")
        if not following:
            return self.ids[start:]
        return self.ids[start : bisect_left(self.ordered, following[:-1] + bytes([following[-1] + 1]))]

    def within(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Ids and lengths of all pieces that these bytes begin with and go on behind."""
        for size in range(1, len(data)):
            for i in self.by_bytes.get(data[:size], ()):
                yield i, size
