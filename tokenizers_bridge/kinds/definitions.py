"""Reading the definition of a Hugging Face tokenizer (tokenizer.json): how its pieces spell bytes, and copies of it
that encode otherwise.

The kind is read off the definition, never guessed from a name. What is not understood is refused: WordPiece and
word-level models, whose ids do not say where the white space was, and decoders or arguments that are not known here.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids
from tokenizers_bridge.declaration import Declaration
from tokenizers_bridge.kinds.vocabulary import SPACE
from tokenizers_bridge.rows import Rows

Definition: TypeAlias = Mapping[str, Any]
_Parts: TypeAlias = list[Mapping[str, Any]]
# Splitters that cut a text, and change nothing in it.
_CUTTERS = {"ByteLevel", "Split", "Digits", "Punctuation"}
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # the library reads both
# Decoders that are understood, with all arguments that they are known to take.
_DECODERS = {
    "ByteLevel": {"add_prefix_space", "trim_offsets", "use_regex"},
    "Replace": {"pattern", "content"},
    "ByteFallback": set[str](),
    "Fuse": set[str](),
    "Strip": {"content", "start", "stop"},
    "Metaspace": {"replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"},
}
# Pre-tokenizers after which nobody can tell how much white space there was.
_FORGETFUL = {"WhitespaceSplit", "Whitespace", "BertPreTokenizer", "CharDelimiterSplit"}


@dataclass(frozen=True, slots=True)
class HuggingFaceEncoder:
    """A private copy of a `tokenizers.Tokenizer`."""

    tokenizer: Any

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        return [row.copy() for row in self.rows(texts)]

    def rows(self, texts: Sequence[str]) -> Rows:
        ids, ends = array("I"), []  # signed ones take four times as long
        for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
            ids.fromlist(encoding.ids)
            ends.append(len(ids))
        return Rows.laid(np.frombuffer(ids, np.uint32).astype(np.int32), np.diff(np.array(ends, np.int64), prepend=0))


@dataclass(frozen=True, slots=True)
class HuggingFaceForm:
    """What the definition's normaliser makes of a text, the prefix space left out."""

    normalizer: Any
    space_pieces: bool
    prepends: bool

    def __call__(self, text: str) -> str:
        formed = str(self.normalizer.normalize_str(text)) if self.normalizer is not None else text
        formed = formed.replace(SPACE, " ") if self.space_pieces else formed
        return formed[1:] if self.prepends and formed[:1] == " " else formed


@dataclass(frozen=True, slots=True)
class Kind:
    """How pieces spell bytes: through the byte-level alphabet, or with ▁ for a space and, with `byte_pieces`, <0xXX>
    for a byte. `verbatim`: encoding changes nothing and puts nothing in front."""

    byte_level: bool
    prefix_space: bool
    byte_pieces: bool
    verbatim: bool

    @classmethod
    def of(cls, definition: Definition, name: str) -> Kind:
        model = definition["model"]
        if model["type"] not in ("BPE", "Unigram"):
            raise InvalidInputError(
                f"{name or 'tokenizer'}: {model['type']} models are not supported, because their ids do not say where "
                "the white space was; use a policy with a BPE or Unigram tokenizer"
            )
        decoders = parts(definition.get("decoder"), "decoders")
        splitters = parts(definition.get("pre_tokenizer"), "pretokenizers")
        normalizers = parts(definition.get("normalizer"), "normalizers")
        _refuse_unknown(model, decoders, [*splitters, *normalizers], name or "tokenizer")
        decoding = {d["type"] for d in decoders}
        prefix = (
            any(p.get("add_prefix_space") for p in splitters if p["type"] == "ByteLevel")
            or any(_prepends(p) for p in [*splitters, *decoders] if p["type"] == "Metaspace")
            or any(n["type"] == "Prepend" for n in normalizers)
        )
        by_pieces = "ByteFallback" in decoding or bool(model.get("byte_fallback"))
        cuts = not normalizers and {p["type"] for p in splitters} <= _CUTTERS
        return cls("ByteLevel" in decoding, prefix, by_pieces, "ByteLevel" in decoding and cuts and not prefix)

    def piece_bytes(self, piece: str) -> bytes:
        if self.byte_level:
            found = [_ALPHABET.get(c) for c in piece]
            return piece.encode("utf-8", "replace") if None in found else b"".join(b for b in found if b is not None)
        byte = _BYTE_PIECE.fullmatch(piece) if self.byte_pieces else None
        return bytes([int(byte.group(1), 16)]) if byte else piece.replace(SPACE, " ").encode("utf-8", "replace")

    def declaration(self, normalizer: Any, definition: Definition, texts: Mapping[int, str]) -> Declaration:
        normalizers = parts(definition.get("normalizer"), "normalizers")
        if self.byte_level and not normalizers:
            return Declaration(self.prefix_space, None, "", texts)
        prepends = any(n["type"] == "Prepend" for n in normalizers)
        names = [n["type"] for n in normalizers if n["type"] not in ("Prepend", "Replace")]
        names += [] if self.byte_level else ["space pieces"]
        return Declaration(
            self.prefix_space,
            HuggingFaceForm(normalizer, not self.byte_level, prepends),
            "+".join(names) or "replacement",
            texts,
        )


def parts(part: Mapping[str, Any] | None, key: str) -> _Parts:
    """A component of the definition as the flat list of what it is made of."""
    if part is None:
        return []
    return [p for inner in part[key] for p in parts(inner, key)] if part["type"] == "Sequence" else [part]


def ids_of(definition: Definition) -> dict[str, int]:
    """Every token's id by how the definition writes it."""
    return model_ids(definition) | {row["content"]: row["id"] for row in definition["added_tokens"]}


def model_ids(definition: Definition) -> dict[str, int]:
    vocab = definition["model"]["vocab"]
    return dict(vocab) if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}


def pieces_of(definition: Definition, kind: Kind, normalizer: Any) -> list[bytes]:
    """The bytes of each id. An added token stands for its spelling, one that is a piece of the model for that piece's
    bytes: Gemma lists its runs of spaces, "▁▁", among the added tokens. One that is looked for in the normalised text
    is what `normalizer` makes of its spelling."""
    own = model_ids(definition)
    ids = ids_of(definition)
    added = {row["id"]: row for row in definition["added_tokens"] if own.get(row["content"]) != row["id"]}
    pieces = [b""] * (max(ids.values()) + 1)
    for text, i in ids.items():
        formed = normalizer is not None and i in added and added[i]["normalized"]
        spelled = str(normalizer.normalize_str(text)).replace(SPACE, " ") if formed else text
        pieces[i] = spelled.encode("utf-8", "replace") if i in added else kind.piece_bytes(text)
    return pieces


def encoding_copy(definition: Definition, controls: Collection[int], tags: Collection[int], *, begins: bool) -> Any:
    """The same tokenizer without truncation, padding or dropout, that makes no control token of a text: each is special
    to it, and special tokens are not recognised. Tags are, wherever they stand, and no content takes the white space
    beside it away. Without `begins`, nothing is put in front of a text."""

    def changed(row: Mapping[str, Any]) -> Mapping[str, Any]:
        if row["id"] not in tags and (row["special"] or row["id"] in controls):
            return {**row, "special": True}
        return {**row, "special": False, "lstrip": False, "rstrip": False}

    copy = _built({**definition, "added_tokens": [changed(row) for row in definition["added_tokens"]]}, begins)
    copy.encode_special_tokens = True
    return copy


def publishers_copy(definition: Definition, *, begins: bool = True) -> Any:
    """The same tokenizer, without truncation, padding or dropout. Without `begins`, nothing is put in front of a
    text."""
    return _built(definition, begins)


def _built(definition: Definition, begins: bool) -> Any:
    from tokenizers import Tokenizer

    model = definition["model"] | ({"dropout": None} if "dropout" in definition["model"] else {})
    changed = {**definition, "truncation": None, "padding": None, "model": model}
    if not begins:
        changed |= {
            "normalizer": _without_prefix(definition.get("normalizer"), "normalizers"),
            "pre_tokenizer": _without_prefix(definition.get("pre_tokenizer"), "pretokenizers"),
        }
    return Tokenizer.from_str(json.dumps(changed))


def _without_prefix(part: Mapping[str, Any] | None, key: str) -> Mapping[str, Any] | None:
    kept = [_unprefixed(p) for p in parts(part, key) if p["type"] != "Prepend"]
    return None if not kept else kept[0] if len(kept) == 1 else {"type": "Sequence", key: kept}


def _unprefixed(part: Mapping[str, Any]) -> Mapping[str, Any]:
    match part["type"]:
        case "Metaspace":
            return {**part, "prepend_scheme": "never", "add_prefix_space": False}
        case "ByteLevel":
            return {**part, "add_prefix_space": False}
    return part


def _prepends(metaspace: Mapping[str, Any]) -> bool:
    return bool(
        metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never") != "never"
    )


def _refuse_unknown(model: Mapping[str, Any], decoders: _Parts, others: _Parts, name: str) -> None:
    """What decodes or normalises in a way that is not known here would be read wrongly in silence."""
    kinds = {d["type"] for d in decoders}
    found = sorted(kinds - set(_DECODERS))
    found += [k for k in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(k)]
    if found or not decoders:
        raise InvalidInputError(
            f"{name}: cannot read how its pieces spell bytes (decoder: {', '.join(found) or 'none'}); supported are "
            "byte-level decoders and ▁ pieces with or without byte fallback"
        )
    forgetful = [part["type"] for part in others if part["type"] in _FORGETFUL]
    if forgetful:
        raise InvalidInputError(
            f"{name}: its pre-tokenizer {forgetful[0]} drops white space, so its ids do not say where lines end (T5 "
            "and its relatives): use a policy with a BPE or Unigram tokenizer that keeps it, or load the SentencePiece "
            "model that this one was made of, whose losses are told row by row"
        )
    roles = [*((part, True) for part in decoders), *((part, False) for part in others)]
    for part, decoding in roles:
        odd = _odd_argument(part, decoding=decoding)
        if odd:
            raise InvalidInputError(
                f"{name}: {part['type']} with {odd} is not known, so what its pieces spell cannot be told: "
                "supported is ▁ for a space"
            )
    # Pieces are spelled in one way: either through the byte-level alphabet, or with ▁ for a space.
    beside = sorted(kinds - {"ByteLevel", "Fuse"}) if "ByteLevel" in kinds else []
    if beside or not kinds & {"ByteLevel", "Replace", "Metaspace"}:
        written = f"ByteLevel beside {', '.join(beside)}" if beside else f"{', '.join(sorted(kinds))} alone"
        raise InvalidInputError(
            f"{name}: a decoder of {written} is not known, so what its pieces spell cannot be told: supported are "
            "byte-level decoders alone, and those that write ▁ as a space"
        )


def _odd_argument(part: Mapping[str, Any], *, decoding: bool) -> str:
    unknown = sorted(set(part) - {"type"} - _DECODERS[part["type"]]) if decoding else []
    if unknown:
        return f"argument {unknown[0]}"
    match part["type"]:
        case "Replace" if decoding and (part.get("pattern"), part.get("content")) != ({"String": SPACE}, " "):
            return f"pattern {part.get('pattern')}, content {part.get('content')!r}"
        case "Strip" if decoding and (part.get("content"), part.get("start", 0) in (0, 1), part.get("stop")) != (
            " ", True, 0,
        ):  # fmt: skip
            return f"content {part.get('content')!r}, start {part.get('start')}, stop {part.get('stop')}"
        case "Metaspace" if part.get("replacement") != SPACE:
            return f"replacement {part.get('replacement')!r}"
        case "Prepend" if part.get("prepend") != SPACE:
            return f"prepend {part.get('prepend')!r}"
    return ""


def _alphabet() -> dict[str, bytes]:
    """The byte-level alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 onwards in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): bytes([b]) for b in printable} | {chr(0x100 + n): bytes([b]) for n, b in enumerate(others)}


_ALPHABET = _alphabet()
