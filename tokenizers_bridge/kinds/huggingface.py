"""Hugging Face fast tokenizers: byte-level BPE, SentencePiece-style BPE with byte fallback, Unigram.

The kind is read off the definition (tokenizer.json), never guessed from a name. WordPiece and word-level models are
refused: their ids do not say where the white space was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mutual_env.errors import InvalidInputError
from mutual_env.types import Ids
from tokenizers_bridge.declaration import Declaration
from tokenizers_bridge.kinds.adapted import AdaptedTokenizer, PromptFormat
from tokenizers_bridge.kinds.prompts import ChatFormat, ChatFormatPrompt, PlainPrompt, TransformersPrompt
from tokenizers_bridge.kinds.vocabulary import SPACE, Vocabulary
from tokenizers_bridge.protocol import Role
from tokenizers_bridge.roles import STOP_ROLES, role_of

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_Parts = list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class HuggingFaceEncoder:
    """A private copy of a `tokenizers.Tokenizer` that never recognises a control token in text."""

    tokenizer: Any

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.fromiter(encoding.ids, np.int32) for encoding in encodings]


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


def from_huggingface(
    backend: Any,
    *,
    name: str = "",
    special_texts: Mapping[Role, str] | None = None,
    stop: str | None = None,
    chat: ChatFormat | None = None,
    template_of: Any = None,
) -> AdaptedTokenizer:
    """A `tokenizers.Tokenizer`. `special_texts` and `stop` name control tokens where their spelling does not say their
    role; `template_of` is the transformers tokenizer whose chat template renders the prompts."""
    definition = json.loads(backend.to_str())
    kind = _kind(definition, name)
    ids = _ids(definition)
    controls = _controls(definition, ids, special_texts or {})
    stop_id = _stop_id(controls, ids, stop, name)
    controls.setdefault(stop_id, "eos")
    copy = _private_copy(definition, controls)
    texts = {i: text for text, i in ids.items() if i in controls}
    encoder = HuggingFaceEncoder(copy)
    added = {row["id"] for row in definition["added_tokens"]}
    pieces = [b""] * (max(ids.values()) + 1)
    for text, i in ids.items():
        pieces[i] = text.encode("utf-8", "replace") if i in added else kind.piece_bytes(text)
    return AdaptedTokenizer(
        name=name or "huggingface",
        vocabulary=Vocabulary.of(pieces, controls),
        encoder=encoder,
        prompt_format=_prompt_format(backend, encoder, ids, controls, stop_id, chat, template_of),
        stop_id=stop_id,
        declaration=kind.declaration(copy.normalizer, definition, texts),
        definition=("huggingface", copy.to_str()),
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    """How pieces spell bytes: through the byte-level alphabet, or with ▁ for a space and <0xXX> for a byte."""

    byte_level: bool
    prefix_space: bool

    def piece_bytes(self, piece: str) -> bytes:
        if self.byte_level:
            return b"".join(_ALPHABET.get(c) or c.encode("utf-8", "replace") for c in piece)
        byte = _BYTE_PIECE.fullmatch(piece)
        return bytes([int(byte.group(1), 16)]) if byte else piece.replace(SPACE, " ").encode("utf-8", "replace")

    def declaration(self, normalizer: Any, definition: Mapping[str, Any], texts: Mapping[int, str]) -> Declaration:
        normalizers = _parts(definition.get("normalizer"), "normalizers")
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


def _kind(definition: Mapping[str, Any], name: str) -> _Kind:
    model = definition["model"]
    if model["type"] not in ("BPE", "Unigram"):
        raise InvalidInputError(
            f"{name or 'tokenizer'}: {model['type']} models are not supported, because their ids do not say where the "
            "white space was; use a policy with a BPE or Unigram tokenizer"
        )
    decoders = {d["type"]: d for d in _parts(definition.get("decoder"), "decoders")}
    affixes = [k for k in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(k)]
    unknown = set(decoders) - {"ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
    if affixes or unknown or not decoders:
        found = ", ".join([*sorted(unknown), *affixes]) or "none"
        raise InvalidInputError(
            f"{name or 'tokenizer'}: cannot read how its pieces spell bytes (decoder: {found}); supported are "
            "byte-level decoders and ▁ pieces with or without byte fallback"
        )
    splitters = _parts(definition.get("pre_tokenizer"), "pretokenizers")
    normalizers = _parts(definition.get("normalizer"), "normalizers")
    prefix = (
        any(p.get("add_prefix_space") for p in splitters if p["type"] == "ByteLevel")
        or any(_prepends(p) for p in [*splitters, *decoders.values()] if p["type"] == "Metaspace")
        or any(n["type"] == "Prepend" for n in normalizers)
    )
    return _Kind("ByteLevel" in decoders, prefix)


def _prepends(metaspace: Mapping[str, Any]) -> bool:
    return bool(
        metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never") != "never"
    )


def _parts(part: Mapping[str, Any] | None, key: str) -> _Parts:
    """A component of the definition as the flat list of what it is made of."""
    if part is None:
        return []
    return [p for inner in part[key] for p in _parts(inner, key)] if part["type"] == "Sequence" else [part]


def _ids(definition: Mapping[str, Any]) -> dict[str, int]:
    vocab = definition["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}
    return ids | {row["content"]: row["id"] for row in definition["added_tokens"]}


def _controls(definition: Mapping[str, Any], ids: Mapping[str, int], named: Mapping[Role, str]) -> dict[int, Role]:
    roles = {row["id"]: role_of(row["content"]) for row in definition["added_tokens"] if row["special"]}
    model = definition["model"]
    unk = model.get("unk_token")
    if isinstance(unk, str) and unk in ids:
        roles[ids[unk]] = "unk"
    if model.get("unk_id") is not None:
        roles[model["unk_id"]] = "unk"
    for role, text in named.items():
        if text in ids and roles.get(ids[text], "other") == "other":
            roles[ids[text]] = role
    return roles


def _stop_id(controls: Mapping[int, Role], ids: Mapping[str, int], stop: str | None, name: str) -> int:
    if stop is not None:
        if stop not in ids:
            raise InvalidInputError(f"{name or 'tokenizer'}: stop token {stop!r} is not in its vocabulary")
        return ids[stop]
    ends = [i for i, role in controls.items() if role in STOP_ROLES]
    if not ends:
        raise InvalidInputError(f"{name or 'tokenizer'}: no end-of-text token is known: name the stop token")
    return min(ends, key=lambda i: (controls[i] != "eos", i))


def _private_copy(definition: dict[str, Any], controls: Mapping[int, Role]) -> Any:
    """The same tokenizer without truncation, padding or dropout, to which every control token is special."""
    from tokenizers import Tokenizer

    special = [{**row, "special": row["special"] or row["id"] in controls} for row in definition["added_tokens"]]
    model = definition["model"] | ({"dropout": None} if "dropout" in definition["model"] else {})
    changed = definition | {"truncation": None, "padding": None, "added_tokens": special, "model": model}
    copy = Tokenizer.from_str(json.dumps(changed))
    copy.encode_special_tokens = True
    return copy


def _prompt_format(
    backend: Any,
    encoder: HuggingFaceEncoder,
    ids: Mapping[str, int],
    controls: Mapping[int, Role],
    stop_id: int,
    chat: ChatFormat | None,
    template_of: Any,
) -> PromptFormat:
    if template_of is not None:
        return TransformersPrompt(template_of)
    if chat is not None:
        return ChatFormatPrompt(chat, encoder, ids)
    head = backend.encode("").ids  # what its post-processor puts around a text
    bos = next((i for i in head if controls.get(i) == "bos"), None)
    return PlainPrompt(encoder, bos, stop_id)


def _alphabet() -> dict[str, bytes]:
    """The byte-level alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 onwards in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): bytes([b]) for b in printable} | {chr(0x100 + n): bytes([b]) for n, b in enumerate(others)}


_ALPHABET = _alphabet()
